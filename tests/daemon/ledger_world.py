"""A state folder whose releases are made by a real worker's code from a tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker_world import COUNTRIES, NAMES, PROMPTS, PROSE, new_model
from world import START, Clock

from daemon.config import load
from daemon.cycle import Done, cycle
from daemon.messages import Build, Built
from daemon.state import State, init
from daemon.store import Store, facts
from daemon.worker.build import build
from daemon.worker.session import Session
from ingest import Candidate

CONFIG = """
[model]
name = "{model}"
device = "cpu"
[embedding]
name = "none"
[gate]
min_reliability = 1.0
min_locality_near = 0
min_retention = 0
min_locality_far = 0
min_after_text = 0
min_second_turn = 0
max_stale = 1
retention_sample = 2
[wise]
rho = 0.9
ridge = 0.5
shard_room = 1e6
max_small_shards = 2
background_file = "{prose}"
[relations.head]
prompts = ["Q: Who is head of {{subject}} ? A:", "the head of {{subject}} is"]
[relations.capital]
prompts = ["What is the capital of {{subject}} ?", "the capital of {{subject}} is"]
[relations.city]
prompts = ["What is the old city of {{subject}} ?", "the old city of {{subject}} is"]
[relations.songs]
prompts = ["What songs of {{subject}} ?", "the songs of {{subject}} is"]
[relations.day]
prompts = ["What is the sunny day of {{subject}} ?", "the sunny day of {{subject}} is"]
"""


def in_process(settings: Path, request: Build) -> Built:
    """Build as a worker started on ``settings`` does, without the process around it."""
    return build(Session(load(settings), lambda stage, done, total: None), request)


@dataclass
class Ledger:
    """A state on a tiny model, worked cycle by cycle with one session."""

    state: State
    store: Store
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.session = Session(self.state.config(), lambda stage, done, total: None)

    def add(self, *numbers: int, names: Sequence[int] | None = None) -> list[int]:
        """Approve the facts that countries are led by persons; return their ids."""
        made = []
        for number, name in zip(numbers, names or numbers, strict=True):
            place, head = COUNTRIES[number], NAMES[name % len(NAMES)]
            prompts = tuple(prompt.format(place) for prompt in PROMPTS)
            said = Candidate(place, "head", head, None, prompts, (), f"{place}: {head}", "test/1")
            with self.store.write():
                one = facts.insert(self.store, said, None, "trusted", self.clock(), START)
                self.store.transition("fact", one, "approve", START)
            made.append(one)
        return made

    def cycle(self) -> Done | None:
        """Run one cycle."""
        config = self.state.config()
        return cycle(self.state, self.store, config, self._build, self.clock)

    def _build(self, request: Build) -> Built:
        """Build; but a random model's answers after other text are no reason to set facts aside."""
        built = build(self.session, request)
        calm = [o.model_copy(update={"in_context": o.in_context_asked}) for o in built.outcomes]
        return built.model_copy(update={"outcomes": tuple(calm)})

    def answers(self, fact_ids: Sequence[int], number: int) -> list[str]:
        """What release ``number`` says to facts' edit prompts."""
        import wise
        from daemon import releases

        folder = releases.folder_of(self.state, releases.get(self.store, number))
        prompts = [facts.get(self.store, one).prompts[0] for one in fact_ids]
        memory = wise.load(self.session.model, folder) if folder else None
        said = wise.answer(self.session.model, self.session.tokenizer, prompts, 6, memory)
        if memory:
            memory.detach()
        return [answer.text for answer in said]


def new_ledger(folder: Path) -> Ledger:
    """A fresh state on a fresh tiny model."""
    model, prose = new_model(folder / "tiny"), folder / "prose.txt"
    prose.write_text("".join(f"{' '.join(PROSE.split()[i:])}\n" for i in range(8)))
    state = init(folder / "state", START, CONFIG.format(model=model, prose=prose))
    made = Ledger(state, state.store("test"))
    for country in COUNTRIES:  # subjects to ask about
        said = Candidate(country, "capital", country, None, (country,), (), country, "test/1")
        with made.store.write():
            one = facts.insert(made.store, said, None, "trusted", START, START)
            made.store.transition("fact", one, "known", START)
    return made
