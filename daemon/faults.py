"""Points between durable steps at which a test lets the process die, as SIGKILL would.

`WISED_FAULT=name` ends the process the first time that it comes by the point, `name:3` the third
time. Without the variable a point does nothing.
"""

from __future__ import annotations

import os
from collections import Counter

VARIABLE = "WISED_FAULT"
STATUS = 137  #: as a shell reports SIGKILL
#: every point: of a turn in which all goes well, of what may go otherwise, of a start
POINTS = (
    "poll.fetched",
    "poll.stored",
    "triage.embedded",
    "triage.asked",
    "triage.decided",
    "cycle.planned",
    "cycle.built",
    "cycle.set_aside",
    "cycle.refused",
    "publish.written",
    "publish.sealed",
    "publish.renamed",
    "publish.synced",
    "cycle.verified",
    "promote.moved",
    "link.made",
    "link.replaced",
    "promote.linked",
    "prune.marked",
    "prune.deleted",
    "emergency.retracted",
    "emergency.planned",
    "emergency.written",
    "emergency.verified",
    "emergency.overtaken",
    "poll.failed",
    "triage.blamed",
    "triage.given_up",
    "cycle.failed",
    "cycle.withdrawn",
    "probation.checked",
    "inspect.recorded",
    "reload.recorded",
    "start.noted",
    "reconcile.dropped",
    "reconcile.tidied",
    "reconcile.checked",
)
_passed: Counter[str] = Counter()


def fault(point: str) -> None:
    """Die here when the environment says so; raises KeyError for a point that is not listed."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    if point not in POINTS:
        raise KeyError(point)
    name, _, time = wanted.partition(":")
    _passed[point] += 1
    if name == point and _passed[point] == int(time or 1):
        os._exit(STATUS)
