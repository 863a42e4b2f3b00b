"""The status screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from daemon.cli.release_view import measure_line, measures
from daemon.progress import Work
from daemon.render import ago, span, times
from daemon.status import SourceHealth, Status
from daemon.store.shards import Shard


def document(status: Status, now: datetime) -> dict[str, object]:
    """Return the status as it is printed in JSON; ages are in seconds."""
    current, oldest = status.release, status.oldest_waiting
    since = current.promoted_at
    return {
        "healthy": not status.problems,
        "problems": status.problems,
        "daemon": {"running": status.daemon is not None, "holder": status.daemon},
        "work": _work(status.work),
        "release": {
            "number": current.number,
            "facts": status.held,
            "promoted_at": times(since),
            "age_seconds": None if since is None else (now - since).total_seconds(),
        },
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


def lines(status: Status, now: datetime) -> Iterator[tuple[str, object]]:
    """Yield the status as named lines, the most urgent first."""
    yield "health", status.problems or "ok"
    yield "daemon", f"running ({status.daemon})" if status.daemon is not None else "not running"
    if status.work is not None:
        yield "doing", work_line(status.work, now)
    yield "release", release_line(status, now)
    if status.shards:
        yield "memory", _memory_line(status.shards)
    yield "facts", queue_line(status)
    if status.oldest_waiting:
        yield "oldest waiting", waiting_line(status, now)
    yield from _source_lines(status)
    yield from gate_lines(status)
    for kind, reason in status.holds.items():
        yield "hold", f"{kind}: {reason}"
    yield "dead letters", status.dead_letters


def work_line(work: Work, now: datetime) -> str:
    """Return what the daemon is at: ``edit for 3 min: training, 12 of 40``."""
    far = f", {work.done} of {work.total}" if work.total > 1 else ""
    what = f": {work.doing}{far}" if work.doing else ""
    return f"{work.stage} for {span(now - work.since)}{what}"


def release_line(status: Status, now: datetime) -> str:
    """Return which release answers, what it holds and since when."""
    current = status.release
    what = f"{status.held} facts" if current.number else "the bare model"
    return f"{current.number}: {what}, promoted {ago(current.promoted_at, now)}"


def queue_line(status: Status) -> str:
    """Return how many facts are in each state."""
    return ", ".join(f"{count} {state}" for state, count in status.queue.items())


def waiting_line(status: Status, now: datetime) -> str | None:
    """Return which fact waits longest; None when none does."""
    if status.oldest_waiting is None:
        return None
    fact, state, since = status.oldest_waiting
    return f"fact {fact}, {state}, received {ago(since, now)}"


def _memory_line(shards: tuple[Shard, ...]) -> str:
    """Return how full the shards are: ``5 shards, 31 to 94 % full; 71 of 720 facts dead``."""
    full = sorted(round(100 * one.fullness) for one in shards)
    range_ = f"{full[0]} to {full[-1]}" if full[0] < full[-1] else f"{full[0]}"
    kind = "1 shard" if len(shards) == 1 else f"{len(shards)} shards"
    dead, solved = sum(one.dead for one in shards), sum(one.solved for one in shards)
    return f"{kind}, {range_} % full; {dead} of {solved} facts dead"


def _source_lines(status: Status) -> Iterator[tuple[str, object]]:
    kinds = Counter("failing" if s.is_failing else _calm(s) for s in status.sources)
    yield "sources", ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    for one in status.sources:
        if one.is_failing:
            trouble = f"{one.failures} times in a row: {one.last_error or 'no error noted'}"
            yield "  failing", f"{one.name}, {trouble}"


def _calm(one: SourceHealth) -> str:
    return "ok" if one.state == "active" else one.state


def gate_lines(status: Status) -> Iterator[tuple[str, object]]:
    """Yield how the newest measured release did as named lines."""
    last = status.gate
    if last is None:
        return
    yield "last gate", f"release {last.number} {last.state}" + _because(last.reason)
    for name, measured in last.measures.items():
        yield f"  {name}", measure_line(measured)


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
