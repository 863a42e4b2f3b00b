"""A state folder with facts, and a builder that stands for the worker in tests of the cycle.

The builder writes a real, loadable-looking folder and reports the figures that a test asks for;
what a real worker makes is tested end to end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from daemon.config import Config
from daemon.measured import Measured
from daemon.messages import Build, Built, Outcome
from daemon.state import State, init
from daemon.store import Store, facts
from ingest import Candidate

START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that moves a second at each look."""

    now: datetime = START

    def __call__(self) -> datetime:
        """Return the time."""
        self.now += timedelta(seconds=1)
        return self.now


def new_state(folder: Path) -> State:
    """A fresh state folder with the default configuration."""
    return init(folder / "state", START)


def add_fact(
    store: Store,
    subject: str,
    object: str,
    state: str = "approved",
    *,
    relation: str = "head_of_government",
    tier: str = "trusted",
    at: datetime = START,
) -> int:
    """Insert a fact and move it to ``state`` by the shortest way."""
    candidate = Candidate(
        subject,
        relation,
        object,
        None,
        (f"Q: Who is the head of government of {subject}? A:",),
        (f"Name the head of government of {subject}. Answer:",),
        f"{subject}: {object}",
        "test/1",
    )
    events = {"received": [], "approved": ["approve"], "pending": ["hold"], "known": ["known"]}
    with store.write():
        number = facts.insert(store, candidate, None, tier, at, at)
        for event in events[state]:
            store.transition("fact", number, event, at)
    return number


@dataclass
class Builder:
    """Stands for the worker: measures as told, remembers what it was asked."""

    wrong: set[int] = field(default_factory=set)  #: facts that are never answered right
    clumsy: set[int] = field(default_factory=set)  #: facts that miss one of two held-out phrasings
    near: tuple[int, int] = (100, 100)
    requests: list[Build] = field(default_factory=list)

    def __call__(self, request: Build) -> Built:
        """Write the candidate's files and report its figures."""
        self.requests.append(request)
        folder = Path(request.out)
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_bytes(bytes(8))
        (folder / "probes.json").write_text(json.dumps({"number": request.number}))
        right = sum(f.id not in self.wrong for f in request.facts)
        count = len(request.facts)
        measures = {
            "reliability": Measured(right=right, asked=count),
            "generalisation": Measured(
                right=2 * count - sum(f.id in self.clumsy for f in request.facts), asked=2 * count
            ),
            "locality_near": Measured(right=self.near[0], asked=self.near[1]),
            "locality_far": Measured(right=100, asked=100),
        }
        return Built(
            measures=measures if count else {"locality_far": measures["locality_far"]},
            parent_measures={},
            bare_measures={},
            outcomes=tuple(
                Outcome(
                    id=f.id,
                    reliable=f.id not in self.wrong,
                    generalised=2 - (f.id in self.clumsy),
                    generalised_asked=2,
                )
                for f in request.facts
            ),
            figures={"threshold": 0.8, "false_fire_bound": 0.001},
            base_name="tiny",
            base_sha256="0" * 64,
        )


def states(store: Store) -> dict[int, str]:
    """Each fact's state."""
    return {r["id"]: r["state"] for r in store.rows("SELECT id, state FROM fact")}


def config(state: State, *, retry_minutes: float = 0, **wise: object) -> Config:
    """The state's configuration with changes to [wise]; facts are tried again at once."""
    settings = state.config()
    daemon = settings.daemon.model_copy(update={"retry_minutes": retry_minutes})
    changes = {"daemon": daemon, "wise": settings.wise.model_copy(update=wise)}
    return settings.model_copy(update=changes)
