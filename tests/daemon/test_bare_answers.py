"""What the bare model says: asked only where someone reads it, and kept within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_reader_facts import World
from world import new_state

from daemon.messages import Answers, Ask
from daemon.worker import session as sessions
from daemon.worker.session import Session
from wise import Answer


class Recorded(World):
    """Keeps what triage asks of the worker."""

    asked: list[Ask]

    def _ask(self, request: Ask) -> Answers:
        self.asked.append(request)
        return super()._ask(request)


def test_triage_does_not_let_the_bare_model_answer_what_nobody_reads(tmp_path: Path) -> None:
    with new_state(tmp_path / "plain").store() as store:
        world = Recorded(tmp_path, store)
        world.asked = []
        world.add("Succès Masra")
        world.sort_out()
    assert [request.beside_bare for request in world.asked] == [False]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session without a model that remembers what the bare one was asked."""
    made = Session(new_state(tmp_path).config(), lambda stage, done, total: None)
    heard: list[list[str]] = []

    def ask(prompts: list[str], memory: None, stage: str, tokens: int) -> list[Any]:
        heard.append(list(prompts))
        return [Answer(f"{prompt}/{tokens}") for prompt in prompts]

    monkeypatch.setattr(made, "ask", ask)
    monkeypatch.setattr(made, "heard", heard, raising=False)
    monkeypatch.setattr(sessions, "MAX_BARE_ANSWERS", 3)
    return made


def test_bare_answers_are_kept_and_those_asked_for_longest_ago_go_first(session: Any) -> None:
    assert session.bare(["a", "b", "a"], 16) == ["a/16", "b/16", "a/16"]
    assert session.bare(["c"], 16) == ["c/16"]
    session.bare(["a", "d"], 16)  # one too many: b goes
    session.bare(["a", "c", "d"], 16)
    assert session.heard == [["a", "b"], ["c"], ["d"], []]
    session.bare(["b"], 16)
    assert session.heard[-1] == ["b"]


def test_a_request_larger_than_what_is_kept_is_answered_in_full(session: Any) -> None:
    prompts = [str(n) for n in range(10)]
    assert session.bare(prompts, 32) == [f"{prompt}/32" for prompt in prompts]
    assert len(session._bare) == 3
