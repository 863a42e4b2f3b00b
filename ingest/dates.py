"""Dates in one form, however they were written."""

from __future__ import annotations

import re

_YEAR_OF_MONTHS = """
    january february march april may june july august september october november december
"""
MONTHS = tuple(_YEAR_OF_MONTHS.split())
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])"
_MONTH = rf"(?P<month>{'|'.join(MONTHS)})"
_YEAR = r"(?P<year>\d{4})"
#: 5 July 1962; July 5, 1962; 1962-07-05. Not 5/7/1962, which is two dates.
_FORMS = tuple(
    re.compile(rf"(?<![\w.,/-]){form}(?![\w/]|[.,-]\d)", re.IGNORECASE)
    for form in (
        rf"{_DAY}(?:st|nd|rd|th)?(?: of)? {_MONTH},? {_YEAR}",
        rf"{_MONTH} {_DAY}(?:st|nd|rd|th)?,? {_YEAR}",
        rf"{_YEAR}-(?P<number>0[1-9]|1[0-2])-{_DAY}",
    )
)


def _plain(found: re.Match[str]) -> str:
    parts = found.groupdict()
    month = parts.get("month") or MONTHS[int(parts["number"]) - 1]
    return f"{int(parts['day'])} {month.casefold()} {parts['year']}"


def plain_dates(text: str) -> str:
    """Return a text with each full date as day, month in letters and year: ``5 july 1962``.

    Dates that can be read in two ways, and days that no month has, are left as they are written.
    """
    for form in _FORMS:
        text = form.sub(_plain, text)
    return text
