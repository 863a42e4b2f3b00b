"""What the daemon says of its health: alive, ready, and why not. Pure; the observer asks it."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.observe.pulse import Vital


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the daemon lives and can work; each reason is one line for a person."""

    alive: bool
    reasons: tuple[str, ...]  #: what keeps it from being ready; empty when it is

    @property
    def ready(self) -> bool:
        """Tell whether new work would be done."""
        return not self.reasons


def of(vital: Vital, store_trouble: str | None) -> Health:
    """Judge the signs of life; ``store_trouble`` says why the last look at the store failed."""
    reasons = []
    if not vital.ready:
        reasons.append("starting: the store is being brought in line with the files")
    if vital.stopping:
        reasons.append("stopping")
    if not vital.fresh:
        reasons.append("the main loop has not moved within its budget")
    if not vital.worker_fresh:
        reasons.append("the worker is past its budget")
    reasons += [f"failing: {why}" for why in vital.failing]
    if store_trouble is not None:
        reasons.append(f"the store: {store_trouble}")
    return Health(vital.alive, tuple(reasons))


def line(vital: Vital, health: Health, release: int, waiting: int) -> str:
    """Return how the service stands in one line, for the service manager."""
    if health.reasons:
        return health.reasons[0]
    doing = "waiting for work"
    if vital.work is not None:
        doing = f"{vital.work.stage} {vital.work.doing}".strip()
    return f"release {release} answers; {waiting} facts wait; {doing}"
