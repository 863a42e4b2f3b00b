"""Dates as sources claim them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

#: no feed is older
_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
#: clocks are wrong by hours, not by days
_FUTURE = timedelta(hours=24)


def credible(moment: datetime, now: datetime) -> datetime | None:
    """Return an aware moment in UTC, or None when it lies outside [1990, now + 24 h]."""
    return moment.astimezone(UTC) if _EARLIEST <= moment <= now + _FUTURE else None
