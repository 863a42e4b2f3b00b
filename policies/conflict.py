"""Two facts for one slot: which stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from policies.trust import Tier

#: states of a fact that was accepted, by rule or by a person
BELIEVED = frozenset({"known", "approved", "batched", "edited", "verified", "promoted"})
#: states in which a fact still claims its slot; all others have given it up
STANDING = BELIEVED | {"received", "pending", "quarantined", "conflicting"}


class Outcome(StrEnum):
    """What becomes of the new fact."""

    SUPERSEDE = "supersede"  #: it replaces the held one
    STALE = "stale"  #: it is recorded as superseded by the held one
    CONFLICTING = "conflicting"  #: a person decides


@dataclass(frozen=True, slots=True)
class Standing:
    """What counts in a conflict."""

    tier: Tier
    asserted_at: datetime  #: aware; the source's date, or when we received it
    state: str  #: of the fact


@dataclass(frozen=True, slots=True)
class Resolution:
    """An outcome and why; the reason goes into the audit log."""

    outcome: Outcome
    reason: str


def resolve(new: Standing, held: Standing) -> Resolution:
    """Decide between a new fact and the one that holds its slot with another object.

    Raises ValueError when the held fact is in no state that holds a slot.
    """
    if held.state not in STANDING:
        raise ValueError(f"a {held.state} fact holds no slot")
    dates = f"{new.asserted_at.isoformat()} against {held.asserted_at.isoformat()}"
    tiers = f"{new.tier} against {held.tier}"
    if new.asserted_at < held.asserted_at:
        return _older(new, held, dates, tiers)
    if new.asserted_at == held.asserted_at:
        return Resolution(Outcome.CONFLICTING, f"two objects of the same time, {tiers}")
    if new.tier.at_least(held.tier):
        return Resolution(Outcome.SUPERSEDE, f"newer ({dates}) from an equal or higher tier")
    return Resolution(Outcome.CONFLICTING, f"newer ({dates}) but from a lower tier ({tiers})")


def _older(new: Standing, held: Standing, dates: str, tiers: str) -> Resolution:
    """Decide on an older fact.

    Sources date their own claims: one that nobody has accepted must not silence better ones by
    its date alone.
    """
    if held.state in BELIEVED or held.tier.at_least(new.tier):
        return Resolution(Outcome.STALE, f"older ({dates})")
    return Resolution(
        Outcome.CONFLICTING,
        f"older ({dates}), but the newer one is {held.state} and of a lower tier ({tiers})",
    )
