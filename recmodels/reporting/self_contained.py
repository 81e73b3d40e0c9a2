"""Whether a document can be opened anywhere: nothing in it is loaded from elsewhere, and nothing in it runs."""

import re
from html.parser import HTMLParser

_LOADING = frozenset({"src", "srcset", "href", "data", "poster", "action", "formaction", "background", "xlink:href"})
_STYLE_ADDRESS = re.compile(r"(?:url\(|@import)\s*[\"']?\s*([^\"')\s;]+)", re.IGNORECASE)


def references_to_outside(html: str) -> list[str]:
    """
    Return everything in a document that runs, or that leads out of it, as it stands there.

    That is script elements, attributes for events, addresses of scripts, and any address in an attribute or a style
    that is neither a place in the document (``#...``) nor an image that it holds (``data:image/...``).

    Examples
    --------
    >>> references_to_outside('<p style="color: red"><a href="#top">up</a></p>')
    []
    >>> references_to_outside('<img src="//cdn.example/x.png" onerror="run()">')
    ['img src=//cdn.example/x.png', 'img onerror=run()']
    """
    document = _References()
    document.feed(html)
    document.close()
    return document.found


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        if tag == "script":
            self.found.append("script")
        for name, value in attrs:
            text = value or ""
            foreign = name.startswith("on") or (name in _LOADING and not _is_inside(text))
            if foreign or (name == "style" and _leads_out(text)) or name == "srcdoc":
                self.found.append(f"{tag} {name}={text}")

    def handle_data(self, data: str) -> None:
        if self._in_style and _leads_out(data):
            self.found.append("style with an address")

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False


def _is_inside(address: str) -> bool:
    return address.strip().startswith(("#", "data:image/"))


def _leads_out(style: str) -> bool:
    return any(not _is_inside(address) for address in _STYLE_ADDRESS.findall(style))
