"""The report: one HTML file that needs nothing else, with every text from the data escaped and kept to itself."""

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")
_MEASURED = re.compile(r'(?s)<span class="measured">.*?</span>')


@dataclass(frozen=True)
class LineageRow:
    """The record of one asset of the data set."""

    asset: str
    partition: str
    data_version: str
    code_version: str
    rows: str


def render_report(shown: Mapping[str, Any]) -> str:
    """
    Return the report as one HTML document without scripts or outside references, from what the template names.

    Charts are PNG bytes; an empty chart, and a section without rows, is left out.
    """
    environment = Environment(
        loader=PackageLoader("recmodels.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"isolated": _isolated, "one_way": without_bidi_controls, "p_value": shown_p_value}
    return environment.get_template("report.html.j2").render(data=shown, image=_image)


def without_measured(html: str) -> str:
    """
    Return a report without times, machine and commit, which differ between two runs that come to the same.

    Examples
    --------
    >>> without_measured('<p>trained in <span class="measured">12.5 s</span></p>')
    '<p>trained in </p>'
    """
    return _MEASURED.sub("", html)


def without_bidi_controls(text: str) -> str:
    """
    Return a text without the characters that turn the direction of what follows them.

    Marks and letters that have a direction of their own keep it.

    Examples
    --------
    >>> without_bidi_controls("abc\u202edef")
    'abcdef'
    """
    return _BIDI_CONTROLS.sub("", text)


def shown_p_value(value: float) -> str:
    """
    Return a p-value with three decimals, and a smaller one by its power of ten.

    Examples
    --------
    >>> shown_p_value(0.0312), shown_p_value(0.00002), shown_p_value(float("nan"))
    ('0.031', '2e-05', 'n/a')
    """
    if math.isnan(value):
        return "n/a"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def _isolated(text: str) -> Markup:
    """Return a text from the data so that its direction ends with it."""
    return Markup("<bdi>{}</bdi>").format(without_bidi_controls(text))


def _image(png: bytes, alternative: str) -> Markup:
    if not png:
        return Markup("")
    encoded = base64.b64encode(png).decode("ascii")
    return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(encoded, alternative)
