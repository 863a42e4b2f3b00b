"""HTML fragments to plain lines of text."""

from __future__ import annotations

from html.parser import HTMLParser

#: elements after which a new line begins
_BLOCK_NAMES = """
    address article aside blockquote br dd div dl dt figcaption footer h1 h2 h3 h4 h5 h6 header
    hr li main nav ol p pre section table td th tr ul
"""
_BLOCKS = frozenset(_BLOCK_NAMES.split())
#: elements whose content is not text
_SILENT = frozenset({"script", "style", "template", "noscript"})


class _Lines(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT and self._silent is None:
            self._silent = tag
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._silent:
            self._silent = None
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._silent is None:
            # A line break inside a paragraph of HTML is a space.
            self.parts.append(" ".join(data.splitlines()))


def to_text(markup: str) -> str:
    """Return the text of an HTML fragment, one block a line, without its tags and scripts."""
    lines = _Lines()
    lines.feed(markup)
    lines.close()
    return "".join(lines.parts)
