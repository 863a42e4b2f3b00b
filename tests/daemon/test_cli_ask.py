import json
from typing import ClassVar

import pytest
from cli_world import (
    EDITED,
    add_entry,
    add_fact,
    add_release,
    add_source,
    new_state,
    refuse,
    wised,
)

from daemon.child import WorkerError
from daemon.messages import Answers, Said


class FakeWorker:
    """A worker that answers as it is told to and remembers what it was asked."""

    said = Said(text="Abéché")
    error: WorkerError | None = None
    asked: ClassVar[list] = []
    killed = 0

    def __init__(self, config, log, should_stop):
        self.config, self.log = config, log

    def request(self, request, expect, budget_seconds, progress):
        type(self).asked.append((request.release, request.prompts, budget_seconds))
        progress("loading the model", 0, 1)
        if self.error is not None:
            raise self.error
        return Answers(answers=(self.said,))

    def kill(self):
        type(self).killed += 1


@pytest.fixture
def worker(monkeypatch):
    class Fresh(FakeWorker):
        asked: ClassVar[list] = []

    monkeypatch.setattr("daemon.child.Worker", Fresh)
    return Fresh


@pytest.fixture
def state(tmp_path):
    made = new_state(tmp_path)
    entry = add_entry(made, add_source(made), "The news", "https://example.org/1")
    fact = add_fact(made, object="Abéché", entry=entry, quote="now Abéché", events=EDITED)
    add_release(made, 1, (fact,))
    return made


ROUTED = Said(text="Abéché", bare="N'Djamena", fact=1, cosine=0.97, threshold=0.8125, routed=True)


def test_the_promoted_release_answers_and_the_worker_ends(state, worker):
    ran = wised(state, "ask", "The capital of Chad is", "--timeout", "5")
    assert ran.out == "Abéché\n"
    folder = str(state.releases / "000001")
    assert worker.asked == [(folder, ("The capital of Chad is",), 5.0)]
    assert worker.killed == 1


def test_release_0_is_the_bare_model(state, worker):
    ran = wised(state, "ask", "x", "--release", "r0", "--json")
    assert worker.asked[0][0] is None
    assert (ran.json["release"], ran.json["bare"], ran.json["fact"]) == (0, "Abéché", None)


def test_explain_names_fact_source_score_and_the_bare_answer(state, worker):
    worker.said = ROUTED
    rows = wised(state, "ask", "The capital of Chad is", "--explain").rows
    assert rows[:6] == [
        ["answer", "Abéché"],
        ["bare model", "N'Djamena"],
        ["release", "1"],
        ["routed", "yes"],
        ["score", "0.9700, at least the threshold 0.8125"],
        ["fact", "1 Chad | capital | Abéché (promoted)"],
    ]
    assert ["  title", "The news"] in rows
    assert ["  link", "https://example.org/1"] in rows
    assert ["  quote", "now Abéché"] in rows


def test_explain_of_an_unrouted_prompt_names_the_nearest_fact_as_such(state, worker):
    worker.said = ROUTED.model_copy(update={"routed": False, "cosine": 0.1, "text": "N'Djamena"})
    rows = wised(state, "ask", "x", "--explain").rows
    assert ["score", "0.1000, below the threshold 0.8125"] in rows
    assert rows[5][0] == "nearest fact"


def test_the_json_answer_holds_the_whole_explanation(state, worker):
    worker.said = ROUTED
    found = wised(state, "ask", "p", "--json").json
    assert (found["prompt"], found["answer"], found["bare"]) == ("p", "Abéché", "N'Djamena")
    assert (found["routed"], found["cosine"], found["threshold"]) == (True, 0.97, 0.8125)
    assert found["fact"]["evidence"][0]["source"] == "world"


def test_an_answer_cannot_steer_the_terminal(state, worker):
    worker.said = Said(text="\x1b]0;pwned\x07")
    assert wised(state, "ask", "x").out == "\\x1b]0;pwned\\x07\n"


def test_a_worker_that_dies_is_a_failure_with_its_code(state, worker):
    worker.error = WorkerError("worker.died", "the worker ended with code 9", hint="see the log")
    ran = wised(state, "ask", "x", "--json")
    assert (ran.code, ran.out, worker.killed) == (1, "", 1)
    assert json.loads(ran.err)["error"]["code"] == "worker.died"


def test_a_refused_or_unknown_release_cannot_be_asked(state, worker):
    refuse(state, 2, "no")
    assert wised(state, "ask", "x", "--release", "2").code == 4
    assert wised(state, "ask", "x", "--release", "9").code == 3
    assert worker.asked == []


def test_an_answer_that_does_not_come_in_time_is_a_timeout(state, worker):
    worker.error = WorkerError("worker.timeout", "the worker overran its 5 s")
    assert wised(state, "ask", "The capital of Chad is", "--timeout", "5").code == 8
