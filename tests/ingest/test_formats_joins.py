"""Corrections that say what is right, and elsewhere in the log what was asked."""

import json
from datetime import UTC, datetime

import pytest
from ingest_world import relations

from ingest import log, related
from ingest.extract import Extractor

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EXTRACTOR = Extractor(relations())


def trace(id="t-1", question="What is the capital of Chad?", **more):
    dated = {"id": id, "timestamp": "2024-05-29T13:46:19.963Z", "metadata": {}, "tags": []}
    return dated | {"input": question, "output": "Fort-Lamy"} | more


def score(value="N'Djamena", **more):
    return {"id": "s-1", "name": "output", "dataType": "CORRECTION", "value": value} | more


@pytest.fixture
def path(tmp_path):
    return tmp_path / "corrections.jsonl"


def write(path, *rows):
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read(path, position=None, **more):
    return log.read(path, position, EXTRACTOR, now=NOW, **more)


def outcome(poll):
    facts = [(i.candidates[0].subject, i.candidates[0].object) for i in poll.items]
    return facts, [dead.code for dead in poll.dead]


@pytest.mark.parametrize("is_before", [True, False])
def test_a_score_is_joined_with_its_trace_wherever_it_stands(path, is_before):
    write(path, *([trace(), score(traceId="t-1")][:: 1 if is_before else -1]))
    poll = read(path)
    assert outcome(poll) == ([("Chad", "N'Djamena")], [])
    assert poll.items[0].candidates[0].old == "Fort-Lamy"


def test_a_trace_of_an_earlier_poll_is_found_again(path):
    write(path, trace())
    first = read(path)
    assert outcome(first) == ([], [])
    write(path, score(traceId="t-1"))
    assert outcome(read(path, first.position)) == ([("Chad", "N'Djamena")], [])


def test_a_score_without_its_trace_says_which_one_is_missing(path):
    write(path, trace("t-2"), score(traceId="t-1"))
    poll = read(path)
    assert outcome(poll) == ([], ["row.not_joined"])
    assert "trace t-1 is not in this log" in poll.dead[0].message


def test_a_score_of_an_observation_is_not_joined_with_its_trace(path):
    """The trace's question may be another one than that of a step in it."""
    write(path, trace(), score(traceId="t-1", observationId="o-1"))
    poll = read(path)
    assert outcome(poll) == ([], ["row.not_joined"])
    assert "observation o-1" in poll.dead[0].message


def test_the_last_of_several_rows_of_one_trace_counts(path):
    """Tools write a trace when it begins and again when it ends."""
    write(path, trace(question=None, output=None), trace(), score(traceId="t-1"))
    assert outcome(read(path)) == ([("Chad", "N'Djamena")], [])


def test_a_score_that_was_joined_by_other_means_needs_no_trace(path):
    write(path, score(traceId="t-9", input="What is the capital of Chad?"))
    assert outcome(read(path)) == ([("Chad", "N'Djamena")], [])


def test_what_was_asked_is_part_of_the_evidence(path):
    write(path, trace(), score(traceId="t-1"))
    said, asked = read(path).items[0].entry.raw.split("\n")
    assert (json.loads(said)["id"], json.loads(asked)["id"]) == ("s-1", "t-1")


def test_traces_count_neither_as_rows_nor_as_dead_letters(path):
    write(path, *(trace(f"t-{n}") for n in range(10)), score(traceId="t-1"), score(traceId="t-2"))
    poll = read(path, max_rows=2)
    assert (len(poll.items), poll.more) == (2, False)


def test_an_id_spelled_with_escapes_is_found(path):
    path.write_text(json.dumps(trace("é")) + "\n" + json.dumps(score(traceId="é")) + "\n")
    assert outcome(read(path)) == ([("Chad", "N'Djamena")], [])


def test_only_rows_near_the_correction_are_searched(path, monkeypatch):
    write(path, trace(), {"prompt": "p", "right": "x" * 250}, score(traceId="t-1"))
    first = read(path, max_rows=1)
    assert outcome(read(path, first.position))[1] == []
    monkeypatch.setattr(related, "REACH_BYTES", 100)
    assert outcome(read(path, first.position))[1] == ["row.not_joined"]


def test_a_run_of_langsmith_is_joined_likewise(path):
    run = {"id": "r-1", "run_type": "chain", "inputs": {"question": "What is the capital of Chad?"}}
    given = {"run_id": "r-1", "key": "correctness", "correction": {"answer": "N'Djamena"}}
    write(path, run, given, given | {"run_id": None})
    poll = read(path)
    assert outcome(poll) == ([("Chad", "N'Djamena")], ["row.not_joined"])
    assert "names no run" in poll.dead[0].message
