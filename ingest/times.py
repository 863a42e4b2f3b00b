"""Dates as sources claim them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

#: no feed is older
_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
#: clocks are wrong by hours, not by days
_FUTURE = timedelta(hours=24)


def moment(value: object) -> datetime | None:
    """Return the moment of an ISO 8601 text (UTC when it names no zone); None for anything else."""
    try:
        found = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)


def credible(moment: datetime, now: datetime) -> datetime | None:
    """Return an aware moment in UTC, or None when it lies outside [1990, now + 24 h]."""
    return moment.astimezone(UTC) if _EARLIEST <= moment <= now + _FUTURE else None
