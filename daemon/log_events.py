"""The names that the daemon's log uses, each once; docs/logs.md says when they occur."""

from __future__ import annotations

#: what a record of a library is called; its own words are the field ``text``
LIBRARY = "library.said"

#: how a cycle can end, and what the log calls that
OUTCOMES = {
    "promoted": "release.promoted",
    "verified": "release.verified",
    "refused": "release.refused",
    "failed": "release.failed",
}

EVENTS = frozenset(
    {
        LIBRARY,
        *OUTCOMES.values(),
        "clock.was_set",
        "config.refused",
        "config.reloaded",
        "daemon.ready",
        "daemon.stopped",
        "endpoint.listening",
        "entry.read",
        "facts.dropped",
        "facts.rekeyed",
        "facts.triaged",
        "observer.failed",
        "observer.recovered",
        "poll.broke_off",
        "probe.missed",
        "read.broke_off",
        "reader.failed",
        "release.building",
        "release.checked",
        "release.measured",
        "release.not_rolled_back",
        "release.rolled_back",
        "rows.trimmed",
        "source.failed",
        "source.polled",
        "source.waits",
        "state.damaged",
        "state.reconciled",
        "textfile.failed",
        "triage.broke_off",
        "triage.failed",
        "watchdog.withheld",
        "work.failed",
        "work.progress",
    }
)
