"""The gate: whether a candidate release may be promoted, and which of its facts may not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

#: measures of the new facts after other text
_IN_CONTEXT = frozenset({"after_text", "second_turn"})
#: measures of what is none of the release's business
_LOCALITY = frozenset({"locality_near", "locality_far"})
#: measured on every candidate; the others only where there is something to ask
REQUIRED = frozenset({"reliability", "locality_near", "locality_far"})
#: measures of which less is better
_CEILINGS = frozenset({"stale"})
#: of a fact's held-out phrasings, so many must be right for it to stay
MIN_SHARE = 0.5


class Outcome(StrEnum):
    """What the gate says."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The least share of right answers that passes, by measure; for `stale` the most."""

    reliability: float = 0.98  #: the new facts' own prompts
    generalisation: float = 0.95  #: phrasings that were never trained on
    after_text: float = 0.97  #: the new facts' own prompts after unrelated text
    second_turn: float = 0.97  #: the same as the second question of a dialogue
    locality_near: float = 0.99  #: same subject or relation, unchanged
    locality_far: float = 0.998  #: unrelated prompts, unchanged
    retention: float = 0.98  #: facts of earlier releases
    unchanged: float = 1.0  #: facts of rewritten shards: answered as before, or right
    withdrawn: float = 1.0  #: superseded and retracted facts: the bare model's answer is back
    stale: float = 0.003  #: superseded and retracted facts still answered: at most
    min_probes: int = 1  #: fewer probes of a required measure decide nothing

    def __post_init__(self) -> None:
        """Raise ValueError for a share outside [0, 1] or no probes at all."""
        for name in MEASURES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share between 0 and 1")
        if self.min_probes < 1:
            raise ValueError("min_probes is at least 1")


#: every measure, in the order of reasons
MEASURES = tuple(f.name for f in fields(Thresholds) if f.name != "min_probes")


@dataclass(frozen=True, slots=True)
class Measure:
    """How many probes of a kind came out right; for `stale`, how many did not."""

    name: str
    right: int
    asked: int

    def __post_init__(self) -> None:
        """Raise ValueError for counts that cannot be."""
        if not 0 <= self.right <= self.asked:
            raise ValueError(f"{self.name}: {self.right} of {self.asked} cannot be")

    @property
    def rate(self) -> float | None:
        """Return the share, None when nothing was asked."""
        return self.right / self.asked if self.asked else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says and, unless it passes, why."""

    outcome: Outcome
    reasons: tuple[str, ...]
    measures: tuple[str, ...] = ()  #: what each reason is about, in the same order


def _share(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".").removeprefix("0") or "0"


def _rate(measure: Measure, *, up: bool) -> str:
    """Return three decimals, rounded away from the threshold: .9499 is not shown as .95."""
    thousandths = (measure.right * 1000 + (measure.asked - 1 if up else 0)) // measure.asked
    return f"{thousandths / 1000:.3f}".removeprefix("0")


def _shortfall(name: str, measure: Measure, thresholds: Thresholds) -> str | None:
    limit: float = getattr(thresholds, name)
    rate = measure.rate
    if rate is None:
        return None
    is_ceiling = name in _CEILINGS
    if rate <= limit if is_ceiling else rate >= limit:
        return None
    shown = f"{_rate(measure, up=is_ceiling)} ({measure.right} of {measure.asked})"
    return f"{name} {shown} is {'over' if is_ceiling else 'under'} {_share(limit)}"


def _gap(name: str, measure: Measure | None, least: int) -> str | None:
    asked = measure.asked if measure else 0
    if asked >= least:
        return None
    return f"{name} has no probes" if not asked else f"{name} has {asked} probes, under {least}"


def judge(
    measures: Mapping[str, Measure],
    thresholds: Thresholds,
    required: frozenset[str] = REQUIRED,
) -> Verdict:
    """Judge a candidate by its measures.

    One measure on the wrong side of its threshold fails it; otherwise a required measure without
    enough probes leaves it open. Raises ValueError for a measure that has no threshold.
    """
    if unknown := (set(measures) | required) - set(MEASURES):
        raise ValueError(f"no threshold for {', '.join(sorted(unknown))}")
    present = [name for name in MEASURES if name in measures]
    failures = [_shortfall(name, measures[name], thresholds) for name in present]
    if any(failures):
        short = tuple(name for name, why in zip(present, failures, strict=True) if why)
        return Verdict(Outcome.FAILED, tuple(filter(None, failures)), short)
    needed = [name for name in MEASURES if name in required]
    gaps = [_gap(name, measures.get(name), thresholds.min_probes) for name in needed]
    if any(gaps):
        open_ = tuple(name for name, why in zip(needed, gaps, strict=True) if why)
        return Verdict(Outcome.INCONCLUSIVE, tuple(filter(None, gaps)), open_)
    return Verdict(Outcome.PASSED, ())


@dataclass(frozen=True, slots=True)
class FactResult:
    """How one fact of a candidate did on its own probes."""

    fact_id: int
    reliable: bool  #: its edit prompt is answered right
    generalised: int  #: held-out phrasings right
    generalised_asked: int
    in_context: int = 0  #: right after other text or in a second turn
    in_context_asked: int = 0
    misfires: int = 0  #: probes of other slots that were answered from it, and wrongly


@dataclass(frozen=True, slots=True)
class SetAside:
    """A fact to leave out of the candidate, and why."""

    fact_id: int
    reason: str


def _weakness(result: FactResult) -> str | None:
    if not result.reliable:
        return "unreliable: its own prompt is not answered right"
    for what, right, asked in (
        ("held-out phrasings", result.generalised, result.generalised_asked),
        ("prompts in context", result.in_context, result.in_context_asked),
    ):
        if right < MIN_SHARE * asked:
            return f"{right} of {asked} {what} right, under half"
    return None


def failing_facts(results: Iterable[FactResult]) -> tuple[SetAside, ...]:
    """Return the facts to set aside, in the order given."""
    judged = ((result.fact_id, _weakness(result)) for result in results)
    return tuple(SetAside(fact_id, why) for fact_id, why in judged if why)


def blamed_facts(results: Iterable[FactResult], verdict: Verdict) -> tuple[SetAside, ...]:
    """Return the facts whose own misses failed a candidate, in the order given.

    Empty when a measure that no single new fact answers for (retention, say) fell short too, and
    when prompts of other slots were not answered from a new fact.
    """
    short = set(verdict.measures)
    of_facts = {"generalisation", *_IN_CONTEXT, *_LOCALITY}
    given = list(results)
    if verdict.outcome is not Outcome.FAILED or not short <= of_facts:
        return ()
    if short & _LOCALITY and not any(result.misfires for result in given):
        return ()
    blamed = []
    for result in given:
        missed = []
        if "generalisation" in short and result.generalised < result.generalised_asked:
            missed.append(f"{result.generalised} of {result.generalised_asked} held-out phrasings")
        if short & _IN_CONTEXT and result.in_context < result.in_context_asked:
            missed.append(f"{result.in_context} of {result.in_context_asked} prompts in context")
        said = [f"{' and '.join(missed)} right"] if missed else []
        if short & _LOCALITY and result.misfires:
            said.append(f"it answered {result.misfires} prompts of other slots")
        if said:
            why = "; ".join((*said, *verdict.reasons))
            blamed.append(SetAside(result.fact_id, why))
    return tuple(blamed)
