"""The documents of --json keep their keys and kinds of value: scripts rest on them."""

import json

import pytest
from cli_commands import CHANGES, READS, AnsweringWorker, everything, options
from cli_shapes import FILE, TELLING, TEXT_ONLY, either, shape, told

GOLDEN = json.loads(FILE.read_text("utf-8"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return everything(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    monkeypatch.setattr("daemon.child.Worker", AnsweringWorker)


def test_every_document_has_a_shape_and_says_its_version():
    assert list(GOLDEN) == [" ".join(words) for words in TELLING]
    assert {words for words in {*READS, *CHANGES} if "--json" not in options(words)} == TEXT_ONLY
    assert {kept["schema_version"] for kept in GOLDEN.values()} == {"integer"}


@pytest.mark.parametrize("words", TELLING, ids=" ".join)
def test_a_document_has_the_shape_that_scripts_rest_on(base, tmp_path, words):
    """`python tests/daemon/cli_shapes.py` writes them anew where a change is meant."""
    document = told(base, words, tmp_path / "one")
    assert shape(document) == GOLDEN[" ".join(words)]
    if words in CHANGES:
        assert shape(told(base, words, tmp_path / "other", "--dry-run")) == shape(document)


def test_a_shape_tells_what_may_be_missing_or_of_several_kinds():
    rows = [{"a": 1, "b": [True]}, {"a": None, "b": []}, {"a": 0.5, "c": {}}]
    assert shape(rows) == [{"a": "integer | null | number", "b?": ["boolean"], "c?": {}}]
    assert either("null", {"a": "string"}, ["string"]) == "array | null | object"
