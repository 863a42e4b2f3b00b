"""How long a promoted release is watched, and when it has failed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Probation:
    """How a release is watched after its promotion."""

    window: timedelta  #: from its promotion on; zero: not at all
    every: timedelta  #: between two checks
    min_same: float  #: share of the asked probes that must be answered as recorded

    def is_due(self, promoted: datetime, last: datetime | None, now: datetime) -> bool:
        """Tell whether a release is to be checked; ``last`` is when it last was, None for never.

        Times are aware. A clock that was set back makes a check due: too often harms nothing.
        """
        if now > promoted + self.window or not self.window:
            return False
        return last is None or not timedelta(0) <= now - last < self.every

    def is_failed(self, same: int, asked: int) -> bool:
        """Tell whether too few probes were answered as recorded."""
        return asked > 0 and same / asked < self.min_same
