"""The report: one HTML file that needs nothing else, with every text from the data escaped."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@dataclass(frozen=True)
class LeaderboardRow:
    """One model: mean and standard deviation of each metric over its seeds."""

    model: str
    n_seeds: int
    cells: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class ProfileExample:
    """A profile beside the lines it was made from."""

    title: str
    source: str
    text: str
    evidence: Sequence[str]


@dataclass(frozen=True)
class UserExample:
    """A user's training items and what each model recommends, by title."""

    name: str
    history: Sequence[str]
    recommended: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class LineageRow:
    """The record of one asset of the data set."""

    asset: str
    partition: str
    data_version: str
    code_version: str
    rows: str


@dataclass(frozen=True)
class ReportData:
    """Everything the report shows. Charts are PNG bytes; an empty chart is left out."""

    dataset: str
    title: str
    split_digest: str
    split_rule: str
    notes: Sequence[str]
    metric_columns: Sequence[str]
    leaderboard: Sequence[LeaderboardRow]
    statistics: Sequence[tuple[str, str]]
    profiles: Sequence[ProfileExample]
    users: Sequence[UserExample]
    lineage: Sequence[LineageRow]
    leaderboard_chart: bytes
    curves_chart: bytes
    activity_chart: bytes


def _image(png: bytes, alternative: str) -> Markup:
    if not png:
        return Markup("")
    encoded = base64.b64encode(png).decode("ascii")
    return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(encoded, alternative)


def render_report(data: ReportData) -> str:
    """Return the report as one HTML document without scripts or outside references."""
    environment = Environment(
        loader=PackageLoader("recmodels.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(data=data, image=_image)
