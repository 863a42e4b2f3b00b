"""How long to wait after failures in a row."""

from __future__ import annotations

from datetime import timedelta

LONGEST = timedelta(hours=24)


def wait_after(failures: int, first: timedelta, chance: float) -> timedelta:
    """Return the wait after ``failures`` (1 or more) in a row: twice as long each time.

    ``chance``, from 0 to 1, takes up to half of it away, so that what failed together is not
    tried again together. Never longer than a day.
    """
    whole = min(LONGEST, first * (1 << min(failures - 1, 20)))
    return whole * (1 - chance / 2)
