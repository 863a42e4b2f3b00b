"""`wised source test` with a reader: what it would bring, and nothing stored."""

import json

import pytest
from cli_world import dump, new_state, wised
from reader_world import FACT, PROSE, atom, write_config

from tests.ingest.reader_server import says, serving, stated, status

PLAIN = "Chad: capital is now Abéché"
SMALL = """
[model]
name = "demo"
device = "cpu"

[embedding]
name = "all-MiniLM-L6-v2"

[extraction]
reader = "local"
max_facts_per_entry = 1

[relations.capital]
prompts = ["The capital of {subject} is"]
"""


@pytest.fixture
def state(tmp_path):
    return new_state(tmp_path)


def tried(state, server, *options):
    return wised(state, "source", "test", f"{server.root}/feed", "--allow-private", "any", *options)


def files(state):
    return sorted(str(path) for path in state.folder.rglob("*") if path.name[:9] != "wised.db-")


def test_an_endpoint_reads_what_has_no_facts_and_nothing_is_stored(state):
    lie = ("Chad", "capital", "Moscow")
    with serving(says(stated(FACT, lie)), atom(PROSE, PLAIN)) as server:
        write_config(state, reader="endpoint", model="m", endpoint=server.url)
        before = dump(state), files(state)
        found = tried(state, server, "--json").json
        ran = tried(state, server)
        assert (dump(state), files(state)) == before
        assert sum(body is not None for _, _, body in server.seen) == 2
    facts = [(f["subject"], f["object"], f["quote"], f["extractor"]) for f in found["facts"]]
    assert facts == [
        ("Chad", "Succès Masra", PROSE, "reader-endpoint/1:m"),
        ("Chad", "Abéché", PLAIN, "pattern/1"),
    ]
    assert found["reader"] == {
        "name": "reader-endpoint/1:m",
        "entries_read": 1,
        "entries_unread": 0,
        "dropped": {"read.not_in_text": 1},
    }
    assert ran.rows[0][-1] == "FOUND BY"
    assert ran.rows[1][-2:] == [PROSE, "reader-endpoint/1:m"]
    assert "1 entries have no facts; reader-endpoint/1:m reads them ..." in ran.err
    assert "read 1 entries and left 0; 1 of its facts were dropped." in ran.err


def test_a_reader_that_is_out_of_order_is_told_beside_what_patterns_found(state):
    with serving(status(404), atom(PROSE, PROSE + " Again.", PLAIN)) as server:
        write_config(state, reader="endpoint", model="m", endpoint=server.url)
        found = tried(state, server, "--json").json
    assert [f["object"] for f in found["facts"]] == ["Abéché"]
    assert [d["code"] for d in found["dead_letters"]] == ["reader.status_404"]
    assert found["reader"]["entries_unread"] == 2


def test_without_a_reader_there_is_none_in_the_document(state):
    with serving(status(500), atom(PROSE)) as server:
        found = tried(state, server, "--json").json
    assert (found["reader"], found["facts"], found["dead_letters"]) == (None, [], [])


@pytest.mark.slow
def test_a_local_reader_reads_in_a_process_of_its_own_and_leaves_nothing(state):
    pytest.importorskip("lmformatenforcer")
    state.config_file.write_text(SMALL, "utf-8")
    with serving(status(500), atom("The capital of Chad is Abéché.")) as server:
        before = dump(state), files(state)
        ran = tried(state, server, "--json")
        assert (dump(state), files(state)) == before
    found = json.loads(ran.out)
    assert found["dead_letters"] == []
    assert found["reader"]["name"] == "reader-local/1:demo"
    assert (found["reader"]["entries_read"], found["reader"]["dropped"]) == (1, {})
    assert "reader-local/1:demo reads them in a process of its own" in ran.err
    for fact in found["facts"]:
        assert fact["extractor"] == "reader-local/1:demo"
        assert fact["subject"] in "The capital of Chad is Abéché."


@pytest.mark.slow
def test_a_local_reader_whose_model_is_missing_is_told_once_and_costs_no_entry(state, tmp_path):
    pytest.importorskip("lmformatenforcer")
    text = SMALL.replace('reader = "local"', f'reader = "local"\nmodel = "{tmp_path}/none"')
    state.config_file.write_text(text, "utf-8")
    with serving(status(500), atom(PROSE, PROSE + " Again.")) as server:
        found = tried(state, server, "--json").json
    assert [d["code"] for d in found["dead_letters"]] == ["reader.unusable"]
    assert found["reader"]["entries_unread"] == 2


@pytest.mark.slow
def test_the_daemons_worker_reads_with_the_model_that_is_kept_current(state):
    pytest.importorskip("lmformatenforcer")
    state.config_file.write_text(SMALL, "utf-8")
    with serving(status(500), atom("The capital of Chad is Abéché.")) as server:
        url = f"{server.root}/feed"
        wised(state, "source", "add", "feed", url, "--name", "p", "--allow-private", "any")
        assert wised(state, "run", "--once", "--stages", "ingest").code == 0
    logged = (state.logs / "wised.jsonl").read_text("utf-8")
    assert '"entry.read"' in logged
    assert wised(state, "status", "--json").json["unread"] == 0
