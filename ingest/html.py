"""HTML fragments to plain lines of text, and the JSON-LD in them."""

from __future__ import annotations

from html import unescape
from html.parser import HTMLParser

#: elements after which a new line begins
_BLOCK_NAMES = """
    address article aside blockquote br dd div dl dt figcaption footer h1 h2 h3 h4 h5 h6 header
    hr li main nav ol p pre section table td th tr ul
"""
_BLOCKS = frozenset(_BLOCK_NAMES.split())
#: elements whose content is not text
_SILENT = frozenset({"script", "style", "template", "noscript"})
#: tags in a row whose end an unclosed quote hides; there are two kinds of quotes
_MAX_UNFINISHED = 8


class _Parser(HTMLParser):
    """The library's, with an end that costs no more than its length: its own is quadratic."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """Pass over ``<![...>``, to HTML a comment; the library's own raises for unknown names."""
        return self.rawdata.find(">", i) + 1 or -1

    def close(self) -> None:
        """Take a tag that never ends for text; a comment or a script that never ends is none."""
        for _ in range(_MAX_UNFINISHED):
            rest, self.rawdata = self.rawdata, ""
            if rest.startswith("<!--") or self.cdata_elem is not None:
                return
            end = rest.find(">") + 1 if rest.startswith("<") else 0
            self.handle_data(unescape(rest[:end] if end else rest))
            if not end:
                return
            # A quote that is not closed hid the tag's end.
            self.feed(rest[end:])
        self.handle_data(unescape(self.rawdata))


class _Lines(_Parser):
    def __init__(self) -> None:
        super().__init__()
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


class _Scripts(_Parser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._is_inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kind = (dict(attrs).get("type") or "").partition(";")[0]
        self._is_inside = tag == "script" and kind.strip().lower() == "application/ld+json"
        if self._is_inside:
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self._is_inside = False

    def handle_data(self, data: str) -> None:
        if self._is_inside:
            self.found[-1] += data


def linked_data(markup: str) -> tuple[str, ...]:
    """Return the texts of the JSON-LD scripts in an HTML fragment, in their order."""
    if "ld+json" not in markup:
        return ()
    scripts = _Scripts()
    scripts.feed(markup)
    scripts.close()
    return tuple(scripts.found)
