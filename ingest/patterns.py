"""Regular expressions from the configuration: compiled, checked, and run on bounded lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ingest.types import Relation

#: longer lines are prose, not statements; it also bounds what backtracking can cost
MAX_LINE_CHARS = 1000

#: one token of a pattern's source: an escape, a class, a group's edge, a repeat, or anything else
_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\((?:\?(?:P<\w+>|>|[:=!]|<[=!]))?|\)"
    r"|(?:[*+?]|\{\d*,?\d*\})[+?]?|.",
    re.DOTALL,
)
_UNBOUNDED = re.compile(r"[*+]\??$|\{\d*,\}\??$")


def _has_nested_repeats(source: str) -> bool:
    r"""Tell whether a repeated group repeats inside, as in ``(a+)+``: exponential in the line.

    A possessive repeat (``\w++``) and an atomic group (``(?>...)``) give nothing back and are fine.
    """
    tokens = _TOKEN.findall(source)
    groups: list[tuple[bool, bool]] = [(False, False)]  # per open group: is atomic, repeats inside
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if token.startswith("("):
            groups.append((token == "(?>", False))
        elif token == ")" and len(groups) > 1:
            atomic, repeats = groups.pop()
            if repeats and not atomic and _UNBOUNDED.match(following):
                return True
            groups[-1] = (groups[-1][0], groups[-1][1] or (repeats and not atomic))
        elif _UNBOUNDED.match(token):
            groups[-1] = (groups[-1][0], True)
    return False


def problem(source: str) -> str | None:
    """Return why a pattern can't be used, as what to say after it; None for a good one."""
    try:
        pattern = re.compile(source)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is no regular expression: {error}"
    if missing := {"subject", "object"} - pattern.groupindex.keys():
        return f"lacks the group {sorted(missing)[0]!r}"
    if _has_nested_repeats(source):
        return r"repeats a group that repeats inside; make the inner repeat possessive, as in \w++"
    return None


def compiled(relation: Relation) -> tuple[re.Pattern[str], ...]:
    """Compile a relation's patterns; raise ValueError that names the relation and the pattern."""
    for source in relation.patterns:
        if why := problem(source):
            raise ValueError(f"relation {relation.name}: pattern {source!r} {why}")
    return tuple(re.compile(source) for source in relation.patterns)


def lines(title: str, text: str) -> Iterator[str]:
    """Yield the title and each line of the text, without the overlong ones.

    An overlong line is left out, not cut: cut, it could state half a name.
    """
    for line in (title, *text.splitlines()):
        if 0 < len(line) <= MAX_LINE_CHARS:
            yield line
