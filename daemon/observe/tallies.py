"""Counts out of the audit log, so that a restart keeps them. Contains no metric names."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections import Counter
from datetime import datetime

from daemon import checks, releases
from daemon.store import Store

#: upper bounds of the histogram of how long candidates took, in seconds
EDIT_BUCKETS = (1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 7200.0)
#: what became of a fact that was to be written, by the event that says so
_EDITS = {"fact.promote": "promoted", "fact.return": "returned", "fact.fail": "failed"}


class Tallies:
    """What the audit log adds up to; `read` looks only at events that are new."""

    def __init__(self) -> None:
        self.edits: Counter[str] = Counter(dict.fromkeys(_EDITS.values(), 0))
        self.gate: Counter[str] = Counter(passed=0, refused=0, failed=0, overtaken=0)
        self.rollbacks: Counter[str] = Counter(operator=0, probation=0, integrity=0)
        self.edit_seconds = 0.0  #: of all candidates together
        self.edit_buckets = [0] * (len(EDIT_BUCKETS) + 1)  #: candidates by how long they took
        self._seq = 0
        self._begun: dict[int, datetime] = {}
        self._answers = 0  #: number of the release that answers

    def read(self, store: Store) -> None:
        """Take in what was logged since the last look."""
        row = store.one("SELECT max(seq) AS seq FROM event")
        last = row["seq"] if row is not None and row["seq"] is not None else 0
        if last == self._seq:
            return
        span = (self._seq, last)
        for counted in store.rows(
            "SELECT action, count(*) AS n FROM event WHERE seq > ? AND seq <= ?"
            " AND action IN ('fact.promote', 'fact.return', 'fact.fail') GROUP BY action",
            *span,
        ):
            self.edits[_EDITS[counted["action"]]] += counted["n"]
        for event in store.rows(
            "SELECT event.at, actor, action, data, number, kind, measures != '{}' AS judged"
            " FROM event JOIN release ON number = CAST(substr(subject, 9) AS INTEGER)"
            " WHERE seq > ? AND seq <= ? AND subject LIKE 'release:%' ORDER BY seq",
            *span,
        ):
            self._take(event)
        self._seq = last

    def _take(self, event: sqlite3.Row) -> None:
        action, number = event["action"].removeprefix("release."), event["number"]
        if action == "promote":
            self._promoted(number, event)
        elif event["kind"] == "emergency":
            return  # nothing was trained or judged
        elif action == "plan":
            self._begun[number] = datetime.fromisoformat(event["at"])
        elif action == "publish":
            self._ended(number, event["at"])
        elif action == "verify":
            self.gate["passed"] += 1
        elif action == "refuse":
            self._refused(event)

    def _promoted(self, number: int, event: sqlite3.Row) -> None:
        if number < self._answers:
            self.rollbacks[_cause(event)] += 1
        self._answers = number

    def _refused(self, event: sqlite3.Row) -> None:
        data = json.loads(event["data"])
        if data["reason"] in releases.CUT_SHORT:  # how long the daemon was down is no edit's time
            self._begun.pop(event["number"], None)
        elif data["from"] == "verified":
            self.gate["overtaken"] += 1
        else:
            self.gate["refused" if event["judged"] else "failed"] += 1
            self._ended(event["number"], event["at"])

    def _ended(self, number: int, at: str) -> None:
        begun = self._begun.pop(number, None)
        if begun is None:
            return
        seconds = max(0.0, (datetime.fromisoformat(at) - begun).total_seconds())
        self.edit_seconds += seconds
        self.edit_buckets[bisect_left(EDIT_BUCKETS, seconds)] += 1


def _cause(event: sqlite3.Row) -> str:
    """Return why an older release was promoted: the daemon's own ways are these two."""
    if event["actor"].startswith("operator"):
        return "operator"
    is_watched = json.loads(event["data"])["reason"].startswith(checks.REASON)
    return "probation" if is_watched else "integrity"
