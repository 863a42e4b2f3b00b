"""Prometheus metrics, from what is stored. Nothing that a feed writes becomes a label."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from daemon import __version__, status
from daemon.observe.tallies import EDIT_BUCKETS, Tallies
from daemon.render import safe_text
from daemon.state import State
from daemon.status import Status
from daemon.store import Store, vitals
from daemon.store.lifecycle import FACT_STATES
from daemon.store.vitals import PollTally
from policies.sampling import interval

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HOLDS = ("ingest", "edit", "promote")
#: a source's name is the operator's; more of them than anyone has make no more series
MAX_SOURCES = 1000
MAX_LABEL_CHARS = 64

Key = TypeVar("Key", bound=tuple[str, ...])  #: a value for each label


@dataclass(frozen=True, slots=True)
class Figures:
    """All that the metrics say, at one moment."""

    status: Status
    tallies: Tallies
    polls: tuple[PollTally, ...]
    beats: Mapping[str, datetime]  #: when each part of the daemon last moved
    last_promotion: datetime | None
    now: datetime


def read(
    state: State,
    store: Store,
    now: datetime,
    seen: Status | None = None,
    tallies: Tallies | None = None,
    beats: Mapping[str, datetime] | None = None,
) -> Figures:
    """Collect the figures; ``store`` may be open read-only.

    The daemon hands in what it knows by itself: its status, its running tallies, newer beats.
    """
    tallies = tallies or Tallies()
    tallies.read(store)
    row = store.one("SELECT max(promoted_at) AS at FROM release")
    return Figures(
        status=seen or status.read(state, store, now),
        tallies=tallies,
        polls=tuple(vitals.polls(store)),
        beats={**vitals.beats(store), **(beats or {})},
        last_promotion=datetime.fromisoformat(row["at"]) if row and row["at"] else None,
        now=now,
    )


def text(figures: Figures) -> str:
    """Return the figures in Prometheus' text format."""
    return generate_latest(_registry(figures)).decode("utf-8")


def document(figures: Figures) -> list[dict[str, object]]:
    """Return the same for JSON: families with their samples, named as in the text."""
    return [
        {
            "name": family.name,
            "type": family.type,
            "help": family.documentation,
            "samples": [
                {"name": one.name, "labels": one.labels, "value": one.value}
                for one in family.samples
            ],
        }
        for family in _registry(figures).collect()
    ]


def _registry(figures: Figures) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(figures))
    return registry


class _Families(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """Return every metric."""
        for part in (_service, _facts, _sources, _edits, _gate, _vital):
            yield from part(self._figures)


def _gauge(name: str, about: str, values: Mapping[Key, float], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"wised_{name}", about, labels=labels)
    for key, value in values.items():
        family.add_metric([_label(part) for part in key], value)
    return family


def _counter(
    name: str, about: str, values: Mapping[Key, float], *labels: str
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"wised_{name}", about, labels=labels)
    for key, value in values.items():
        family.add_metric([_label(part) for part in key], value)
    return family


def _label(text: str) -> str:
    return safe_text(text)[:MAX_LABEL_CHARS]


def _service(figures: Figures) -> Iterator[Metric]:
    seen, release = figures.status, figures.status.release
    yield _gauge("up", "1 while a daemon runs on this state.", {(): seen.daemon is not None})
    build = (__version__, platform.python_version())
    yield _gauge("build_info", "Always 1.", {build: 1}, "version", "python")
    yield _gauge("active_release", "Number of the release that answers.", {(): release.number})
    if release.promoted_at is not None:
        age = (figures.now - release.promoted_at).total_seconds()
        yield _gauge("release_age_seconds", "Since it was promoted.", {(): age})
    if figures.last_promotion is not None:
        yield _gauge(
            "last_promotion_timestamp_seconds",
            "When a release was last promoted, or the state made.",
            {(): figures.last_promotion.timestamp()},
        )
    holds = {(kind,): float(kind in seen.holds) for kind in HOLDS}
    yield _gauge("hold", "1 while this kind of work is on hold.", holds, "kind")
    free = {(): float(seen.free_bytes)}
    yield _gauge("disk_free_bytes", "On the disk of the state folder.", free)


def _facts(figures: Figures) -> Iterator[Metric]:
    seen = figures.status
    counts = {(state,): float(seen.queue.get(state, 0)) for state in FACT_STATES}
    yield _gauge("facts", "Facts by state.", counts, "state")
    since = seen.oldest_waiting[2] if seen.oldest_waiting else None
    waited = (figures.now - since).total_seconds() if since else 0.0
    yield _gauge(
        "oldest_pending_seconds", "Since the oldest fact that waits was received.", {(): waited}
    )
    dead = {(): float(seen.dead_letters)}
    yield _gauge("dead_letters", "Rows and entries that could not be read.", dead)


def _sources(figures: Figures) -> Iterator[Metric]:
    known = figures.status.sources[:MAX_SOURCES]
    yield _gauge(
        "source_last_success_timestamp_seconds",
        "When a poll of an active source last went well; 0 before the first.",
        {
            (s.name,): s.last_ok_at.timestamp() if s.last_ok_at else 0.0
            for s in known
            if s.state in ("active", "gone")
        },
        "source",
    )
    names = {s.name for s in known}
    failures = {
        (p.source, p.code): float(p.polls) for p in figures.polls if p.code and p.source in names
    }
    yield _counter("source_failures", "Polls that failed.", failures, "source", "code")
    received = {(): float(sum(p.bytes for p in figures.polls))}
    yield _counter("fetch_bytes", "Size of the feeds' bodies.", received)


def _edits(figures: Figures) -> Iterator[Metric]:
    tallies = figures.tallies
    bounds = [*(str(bound) for bound in EDIT_BUCKETS), "+Inf"]
    yield HistogramMetricFamily(
        "wised_edit_seconds",
        "From the plan of a candidate until it was written and judged.",
        buckets=list(zip(bounds, accumulate(map(float, tallies.edit_buckets)), strict=True)),
        sum_value=tallies.edit_seconds,
    )
    outcomes = {(outcome,): float(n) for outcome, n in tallies.edits.items()}
    yield _counter("edits", "Facts written, by what became of them.", outcomes, "outcome")


def _gate(figures: Figures) -> Iterator[Metric]:
    tallies, scores = figures.tallies, {}
    for kind, m in (figures.status.gate.measures if figures.status.gate else {}).items():
        if not m.asked:
            continue
        scores[kind, "rate"] = m.right / m.asked
        if m.whole is not None:
            scores[kind, "low"], scores[kind, "high"] = interval(m.right, m.asked, m.whole)
    about = "Share of probes answered right by the newest candidate measured; bounds of samples."
    yield _gauge("verify_score", about, scores, "probe_set", "metric")
    results = {(result,): float(n) for result, n in tallies.gate.items()}
    yield _counter("gate", "Candidates by what the gate said.", results, "result")
    causes = {(cause,): float(n) for cause, n in tallies.rollbacks.items()}
    yield _counter("rollbacks", "Returns to an older release.", causes, "cause")


def _vital(figures: Figures) -> Iterator[Metric]:
    beats = {(part,): at.timestamp() for part, at in figures.beats.items()}
    about = "When this part of the daemon last moved."
    yield _gauge("stage_heartbeat_timestamp_seconds", about, beats, "stage")
