"""Pure decisions: trust, approval, conflicts, quotas, the gate, what to keep. No I/O, no clock."""

from policies.approval import Decision, State, decide, passes_for, risks
from policies.compaction import ShardView, due
from policies.conflict import BELIEVED, STANDING, Outcome, Resolution, Standing, resolve
from policies.gate import (
    FactResult,
    Measure,
    SetAside,
    Thresholds,
    Verdict,
    blamed_facts,
    failing_facts,
    judge,
)
from policies.gate import Outcome as GateOutcome
from policies.probation import Probation
from policies.quota import Drop, Queue, Quota, Quotas, drops, over_day, room
from policies.retention import ReleaseView, prunable
from policies.retry import wait_after
from policies.sampling import interval
from policies.trust import Tier

__all__ = [
    "BELIEVED",
    "STANDING",
    "Decision",
    "Drop",
    "FactResult",
    "GateOutcome",
    "Measure",
    "Outcome",
    "Probation",
    "Queue",
    "Quota",
    "Quotas",
    "ReleaseView",
    "Resolution",
    "SetAside",
    "ShardView",
    "Standing",
    "State",
    "Thresholds",
    "Tier",
    "Verdict",
    "blamed_facts",
    "decide",
    "drops",
    "due",
    "failing_facts",
    "interval",
    "judge",
    "over_day",
    "passes_for",
    "prunable",
    "resolve",
    "risks",
    "room",
    "wait_after",
]
