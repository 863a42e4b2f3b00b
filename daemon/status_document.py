"""The status as JSON: what `wised status --json` prints and `status.json` holds."""

from __future__ import annotations

from datetime import datetime

from daemon.attempts import Waiting
from daemon.checks import Watched
from daemon.measured import Measured
from daemon.observe.pulse import Work
from daemon.releases import Release
from daemon.render import times
from daemon.status import SourceHealth, Status
from daemon.store.shards import Shard
from policies.sampling import interval


def document(status: Status, now: datetime) -> dict[str, object]:
    """Return the status as it is printed in JSON; ages are in seconds."""
    current, oldest = status.release, status.oldest_waiting
    since = current.promoted_at
    return {
        "at": times(now),
        "healthy": not status.problems,
        "problems": status.problems,
        "daemon": {
            "running": status.daemon is not None,
            "holder": status.daemon,
            "trouble": status.word.trouble,
        },
        "work": _work(status.word.work),
        "release": {
            "number": current.number,
            "facts": status.held,
            "promoted_at": times(since),
            "age_seconds": None if since is None else (now - since).total_seconds(),
        },
        "probation": _probation(status.probation),
        "memory": [_shard(one) for one in status.shards],
        "queue": dict(status.queue),
        "oldest_waiting": None
        if oldest is None
        else {
            "fact": oldest[0],
            "state": oldest[1],
            "received_at": times(oldest[2]),
            "age_seconds": (now - oldest[2]).total_seconds(),
        },
        "sources": [_source(one) for one in status.sources],
        "gate": _gate(status),
        "holds": dict(status.holds),
        "dead_letters": status.dead_letters,
        "disk_free_bytes": status.free_bytes,
        "waiting_batches": [_waiting(one) for one in status.waiting],
        "dropped_last_24_hours": [
            {"source": one.source, "quota": one.quota, "facts": one.facts} for one in status.dropped
        ],
        "unread": status.unread,
    }


def _work(work: Work | None) -> dict[str, object] | None:
    if work is None:
        return None
    return {
        "stage": work.stage,
        "since": times(work.since),
        "doing": work.doing,
        "done": work.done,
        "total": work.total,
    }


def _probation(watched: Watched | None) -> dict[str, object] | None:
    return None if watched is None else {"until": times(watched.until), "checks": watched.checks}


def _waiting(one: Waiting) -> dict[str, object]:
    return {
        "batch": one.batch,
        "facts": one.facts,
        "attempts": one.attempts,
        "next_attempt_at": times(one.next_attempt_at),
        "error": one.error,
    }


def _shard(one: Shard) -> dict[str, object]:
    return {
        "made_in": one.made_in,
        "live": one.live,
        "dead": one.dead,
        "fullness": round(one.fullness, 4),
    }


def _source(one: SourceHealth) -> dict[str, object]:
    return {
        "name": one.name,
        "state": one.state,
        "failing": one.is_failing,
        "failures": one.failures,
        "last_error": one.last_error,
        "last_ok_at": times(one.last_ok_at),
        "proposed_url": one.proposed_url,
    }


def _gate(status: Status) -> dict[str, object] | None:
    if status.gate is None:
        return None
    return {
        "release": status.gate.number,
        "state": status.gate.state,
        "reason": status.gate.reason,
        "measures": measures(status.gate),
    }


def measures(release: Release) -> dict[str, dict[str, object]]:
    """Return each probe kind's right, asked and rate (None when nothing was asked).

    A sample has the size of the whole and the 95 % interval of its rate beside it.
    """
    return {name: _measure(measured) for name, measured in release.measures.items()}


def _measure(measured: Measured) -> dict[str, object]:
    right, asked, whole = measured.right, measured.asked, measured.whole
    body: dict[str, object] = {"right": right, "asked": asked}
    body["rate"] = right / asked if asked else None
    if whole is not None:
        body |= {"whole": whole, "interval": interval(right, asked, whole)}
    return body
