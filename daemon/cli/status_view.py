"""The status screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from daemon.measured import Measured
from daemon.observe.pulse import Work
from daemon.render import ago, span, times
from daemon.status import SourceHealth, Status
from daemon.store.shards import Shard
from ingest.urls import host
from policies.sampling import interval


def lines(status: Status, now: datetime) -> Iterator[tuple[str, object]]:
    """Yield the status as named lines, the most urgent first."""
    yield "health", status.problems or "ok"
    yield "daemon", f"running ({status.daemon})" if status.daemon is not None else "not running"
    if status.word.work is not None:
        yield "doing", work_line(status.word.work, now)
    yield "release", release_line(status, now)
    yield from probation_lines(status)
    if status.shards:
        yield "memory", _memory_line(status.shards)
    yield "facts", queue_line(status)
    if status.oldest_waiting:
        yield "oldest waiting", waiting_line(status, now)
    yield from batch_lines(status)
    yield from _source_lines(status)
    yield from dropped_lines(status)
    yield from gate_lines(status)
    for kind, reason in status.holds.items():
        yield "hold", f"{kind}: {reason}"
    yield "dead letters", status.dead_letters
    yield from unread_lines(status)
    yield "disk", disk_line(status)


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


def probation_lines(status: Status) -> Iterator[tuple[str, object]]:
    """Yield how long the release is still watched, when it is."""
    if (watched := status.probation) is not None:
        checks = "1 check" if watched.checks == 1 else f"{watched.checks} checks"
        yield "probation", f"until {times(watched.until)}, {checks} passed"


def queue_line(status: Status) -> str:
    """Return how many facts are in each state."""
    return ", ".join(f"{count} {state}" for state, count in status.queue.items())


def waiting_line(status: Status, now: datetime) -> str | None:
    """Return which fact waits longest; None when none does."""
    if status.oldest_waiting is None:
        return None
    fact, state, since = status.oldest_waiting
    return f"fact {fact}, {state}, received {ago(since, now)}"


def disk_line(status: Status) -> str:
    """Return how much room there is where the state lies."""
    return f"{status.free_bytes / 1e9:.1f} GB free"


def source_line(status: Status) -> str:
    """Return how many sources are how: ``1 failing, 3 ok``."""
    kinds = Counter("failing" if s.is_failing else _calm(s) for s in status.sources)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def batch_lines(status: Status) -> Iterator[tuple[str, object]]:
    """Yield the batches that failed and are tried again, the next first."""
    for batch in status.waiting:
        again = f"next attempt at {times(batch.next_attempt_at)}"
        what = f"{batch.facts} facts, {again}, {batch.attempts} failed: {batch.error}"
        yield f"batch {batch.batch}", what


def dropped_lines(status: Status) -> Iterator[tuple[str, object]]:
    """Yield what was dropped over a quota lately, by source and quota."""
    for one in status.dropped:
        count = "1 fact" if one.facts == 1 else f"{one.facts} facts"
        yield "dropped", f"{count} of {one.source} in 24 hours, over {one.quota}"


def unread_lines(status: Status) -> Iterator[tuple[str, object]]:
    """Yield how much the reader has still to read, when there is any."""
    if status.unread:
        yield "unread", f"{status.unread} entries wait for the reader"


def _memory_line(shards: tuple[Shard, ...]) -> str:
    """Return how full the shards are: ``5 shards, 31 to 94 % full; 71 of 720 facts dead``."""
    full = sorted(round(100 * one.fullness) for one in shards)
    range_ = f"{full[0]} to {full[-1]}" if full[0] < full[-1] else f"{full[0]}"
    kind = "1 shard" if len(shards) == 1 else f"{len(shards)} shards"
    dead, solved = sum(one.dead for one in shards), sum(one.solved for one in shards)
    return f"{kind}, {range_} % full; {dead} of {solved} facts dead"


def _source_lines(status: Status) -> Iterator[tuple[str, object]]:
    yield "sources", source_line(status)
    for one in status.sources:
        if one.is_failing:
            trouble = f"{one.failures} times in a row: {one.last_error or 'no error noted'}"
            yield "  failing", f"{one.name}, {trouble}"
    for one in status.sources:
        if one.proposed_url is not None:
            yield "  moved", f"{one.name}, {_moved(one, one.proposed_url)}"


def _moved(one: SourceHealth, new: str) -> str:
    old_host, new_host = host(one.location), host(new)
    other = "" if old_host == new_host else f", another host ({new_host} instead of {old_host})"
    return f"has moved for good to {new}{other}; to follow it: wised source set-url {one.name}"


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


def measure_line(measured: Measured) -> str:
    """Return a measure as ``0.9875 (158 of 160)``, a sample's with its 95 % interval."""
    right, asked, whole = measured.right, measured.asked, measured.whole
    if not asked:
        return "not asked"
    share = f"{right / asked:.4f} ({right} of {asked}"
    if whole is None:
        return f"{share})"
    low, high = interval(right, asked, whole)
    return f"{share} drawn from {whole}; 95 % within {low:.4f} to {high:.4f})"


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
