"""What leads out of a document is found, however it is written."""

import pytest

from recmodels.reporting.self_contained import references_to_outside


@pytest.mark.parametrize(
    "html",
    [
        "<SCRIPT>run()</SCRIPT>",
        "<img src='http://x/y.png'>",
        "<img src=//cdn/y.png>",
        '<a href="https://x">x</a>',
        '<a href="javascript:run()">x</a>',
        '<img src="data:text/html;base64,AA">',
        '<img src="data:image/png;base64,AA" onerror="run()">',
        "<style>body { background: url(//cdn/x.png) }</style>",
        '<style>@import "x.css";</style>',
        '<p style="background: URL( http://x )">',
        '<iframe srcdoc="x"></iframe>',
        '<svg><image xlink:href="http://x"/></svg>',
    ],
)
def test_it_is_found(html: str) -> None:
    assert len(references_to_outside(f"<html>{html}</html>")) == 1


def test_what_stays_inside_is_not() -> None:
    html = '<style>b { color: red }</style><a href="#b">b</a><img src="data:image/png;base64,AA"><p>url(http://x)</p>'
    assert references_to_outside(html) == []
