"""From a candidate's measures to the gate's verdict, and the words for it. Pure."""

from __future__ import annotations

from daemon.config import Config
from daemon.measured import Measured
from daemon.messages import Built
from policies.gate import FactResult, Measure, Thresholds, Verdict, judge


def verdict_on(built: Built, config: Config) -> Verdict:
    """Judge a candidate's measures by the configured gate."""
    gate = config.gate
    thresholds = Thresholds(
        reliability=gate.min_reliability,
        generalisation=gate.min_generalisation,
        after_text=gate.min_after_text,
        second_turn=gate.min_second_turn,
        locality_near=gate.min_locality_near,
        locality_far=gate.min_locality_far,
        retention=gate.min_retention,
        withdrawn=1.0,
        stale=gate.max_stale,
    )
    measures = {name: _measure(name, m) for name, m in built.measures.items()}
    written = "unchanged" in measures or built.outcomes
    required = frozenset({"locality_far"} | ({"reliability"} if written else set()))
    return judge(measures, thresholds, required)


def explained(verdict: Verdict, built: Built) -> tuple[str, ...]:
    """Return the gate's reasons, each with an example of what was answered."""
    first = {miss.probe: miss for miss in reversed(built.misses)}
    reasons = []
    for name, reason in zip(verdict.measures, verdict.reasons, strict=True):
        miss = first.get(name)
        if miss:
            said = f"{miss.prompt!r} answered {miss.answer!r}, not {miss.expected!r}"
            reason = f"{reason}, e.g. {said}"
        reasons.append(reason)
    return tuple(reasons)


def _measure(name: str, measured: Measured) -> Measure:
    right = measured.asked - measured.right if name == "stale" else measured.right
    return Measure(name, right, measured.asked)


def results(built: Built) -> list[FactResult]:
    """Return how each new fact did on its own probes."""
    return [
        FactResult(
            o.id,
            o.reliable,
            o.generalised,
            o.generalised_asked,
            o.in_context,
            o.in_context_asked,
            o.misfires,
        )
        for o in built.outcomes
    ]
