"""Pure decisions: trust, approval, conflicts, the promotion gate, retention. No I/O, no clock."""

from policies.approval import Decision, State, decide, risks
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
from policies.retention import ReleaseView, prunable
from policies.trust import Tier

__all__ = [
    "BELIEVED",
    "STANDING",
    "Decision",
    "FactResult",
    "GateOutcome",
    "Measure",
    "Outcome",
    "ReleaseView",
    "Resolution",
    "SetAside",
    "Standing",
    "State",
    "Thresholds",
    "Tier",
    "Verdict",
    "blamed_facts",
    "decide",
    "failing_facts",
    "judge",
    "prunable",
    "resolve",
    "risks",
]
