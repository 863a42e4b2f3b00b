"""The life of a fact and of a release, each as one table of (state, event) -> next state.

Nothing else in the project writes a state.
"""

from __future__ import annotations

from daemon.errors import Conflict

FACT_STATES = (
    "received",
    "duplicate",
    "known",
    "conflicting",
    "quarantined",
    "pending",
    "approved",
    "batched",
    "edited",
    "verified",
    "promoted",
    "superseded",
    "retracted",
    "rejected",
    "failed",
    "dropped",
)
RELEASE_STATES = (
    "building",
    "candidate",
    "verified",
    "promoted",
    "previous",
    "retained",
    "refused",
    "pruned",
)

FACT: dict[tuple[str, str], str] = {
    # what triage finds
    ("received", "duplicate"): "duplicate",
    ("received", "known"): "known",
    ("received", "conflict"): "conflicting",
    ("received", "quarantine"): "quarantined",
    ("received", "hold"): "pending",
    ("received", "approve"): "approved",
    ("received", "supersede"): "superseded",
    # what a person decides
    ("pending", "approve"): "approved",
    ("conflicting", "approve"): "approved",
    ("quarantined", "approve"): "approved",
    ("failed", "approve"): "approved",
    ("rejected", "approve"): "approved",
    ("verified", "requeue"): "approved",
    ("pending", "reject"): "rejected",
    ("conflicting", "reject"): "rejected",
    ("quarantined", "reject"): "rejected",
    ("approved", "reject"): "rejected",
    ("failed", "reject"): "rejected",
    ("pending", "quarantine"): "quarantined",
    ("conflicting", "quarantine"): "quarantined",
    ("approved", "quarantine"): "quarantined",
    # a newer fact of the same slot
    ("pending", "supersede"): "superseded",
    ("conflicting", "supersede"): "superseded",
    ("quarantined", "supersede"): "superseded",
    ("known", "supersede"): "superseded",
    ("approved", "supersede"): "superseded",
    ("failed", "supersede"): "superseded",
    ("verified", "supersede"): "superseded",
    ("promoted", "supersede"): "superseded",
    # a cycle
    ("approved", "batch"): "batched",
    ("batched", "edit"): "edited",
    ("edited", "verify"): "verified",
    ("verified", "promote"): "promoted",
    ("approved", "promote"): "promoted",  # with an earlier release that holds it
    ("batched", "return"): "approved",
    ("edited", "return"): "approved",
    ("verified", "return"): "approved",
    ("batched", "fail"): "failed",
    ("edited", "fail"): "failed",
    # over a quota
    ("received", "drop"): "dropped",
    ("pending", "drop"): "dropped",
    ("conflicting", "drop"): "dropped",
    ("quarantined", "drop"): "dropped",
    ("dropped", "requeue"): "duplicate",  # of the new fact that it comes back as
    # taking it back
    ("promoted", "retract"): "retracted",
    ("verified", "retract"): "retracted",
    ("superseded", "retract"): "retracted",
    ("promoted", "roll_back"): "verified",
    ("superseded", "restore"): "promoted",
}

RELEASE: dict[tuple[str, str], str] = {
    ("building", "publish"): "candidate",
    ("building", "refuse"): "refused",
    ("candidate", "verify"): "verified",
    ("candidate", "refuse"): "refused",
    ("verified", "refuse"): "refused",
    ("verified", "promote"): "promoted",
    ("previous", "promote"): "promoted",
    ("retained", "promote"): "promoted",
    ("promoted", "replace"): "previous",
    ("previous", "retain"): "retained",
    ("retained", "prune"): "pruned",
}


def next_state(kind: str, state: str, event: str) -> str:
    """Return the state after ``event``; raises Conflict when it can't happen in ``state``."""
    table = FACT if kind == "fact" else RELEASE
    if (state, event) not in table:
        allowed = sorted(s for s, e in table if e == event)
        raise Conflict(
            f"cannot {event.replace('_', ' ')} a {kind} that is {state}",
            hint=f"possible for a {kind} that is {' or '.join(allowed) or 'in no state'}",
        )
    return table[state, event]
