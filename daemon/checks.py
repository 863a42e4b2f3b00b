"""The checks of a release on probation, kept as events: what was found, and until when it lasts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from daemon.releases import Release
from daemon.store import Store, timestamp

CHECKED = "release.check"
#: how the reason of a rollback begins that a failed check is the cause of
REASON = "on probation: "


@dataclass(frozen=True, slots=True)
class Watched:
    """A release on probation."""

    until: datetime
    checks: int  #: that it has passed


def record(
    store: Store,
    release: Release,
    same: int,
    asked: int,
    failed: str | None,
    until: datetime,
    now: datetime,
) -> None:
    """Write down a check, inside a transaction; ``until`` is when the probation ends."""
    data = {"same": same, "asked": asked, "failed": failed, "until": timestamp(until)}
    store.event(CHECKED, f"release:{release.number}", data, now)


def times(store: Store, release: Release) -> list[datetime]:
    """Return when the promoted release was checked since its promotion, oldest first."""
    return [datetime.fromisoformat(at) for at, _ in _since_promotion(store, release)]


def watched(store: Store, release: Release, now: datetime) -> Watched | None:
    """Return how far the promoted release's probation is; None when it is on none."""
    found = _since_promotion(store, release)
    results = [json.loads(data) for _, data in found]
    until = results[-1].get("until") if results else None
    if until is None or now > datetime.fromisoformat(until):
        return None
    passed = sum(result["failed"] is None for result in results)
    return Watched(datetime.fromisoformat(until), passed)


def _since_promotion(store: Store, release: Release) -> list[tuple[str, str]]:
    if release.promoted_at is None:
        return []
    rows = store.rows(
        "SELECT at, data FROM event WHERE subject = ? AND action = ? AND at >= ? ORDER BY seq",
        f"release:{release.number}",
        CHECKED,
        timestamp(release.promoted_at),
    )
    return [(row["at"], row["data"]) for row in rows]
