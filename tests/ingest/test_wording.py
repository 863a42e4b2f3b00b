"""Questions that no configured phrasing fits: what they ask for, by their words."""

import pytest
from ingest_world import relations

from ingest.wording import Wordings

WORDINGS = Wordings({name: (*r.prompts, *r.held_out) for name, r in relations().items()})


def asks(prompt, subject="Chad"):
    """The relations that a question may ask for."""
    return {name for name in relations() if WORDINGS.may_ask(prompt, subject, name)}


def test_every_configured_phrasing_asks_for_its_relation():
    for name, relation in relations().items():
        for template in (*relation.prompts, *relation.held_out):
            assert asks(template.format(subject="Chad")) == {name}, template


@pytest.mark.parametrize(
    ("prompt", "relation"),
    [
        ("Who leads Chad as head of its government nowadays?", "head_of_government"),
        ("Who heads the government of Chad at the moment?", "head_of_government"),
        ("Which city is the capital of Chad?", "capital"),
        ("Where do most of Chad's exports go?", "top_export_partner"),
        ("Which languages do most people of Chad speak?", "main_language"),
    ],
)
def test_a_question_in_other_words_asks_for_the_relation_that_it_is_like(prompt, relation):
    assert asks(prompt) == {relation}


@pytest.mark.parametrize(
    "prompt",
    [
        "Who is the head of state of Chad?",
        "Who is the chief of Chad's government?",
        "Who is well known in Chad?",
        "Chad?",
        "",
    ],
)
def test_a_question_whose_words_speak_for_two_or_none_asks_for_nothing(prompt):
    assert asks(prompt) == set()


def test_the_side_of_the_subject_tells_who_sells_from_who_buys():
    assert "top_export_partner" not in asks("Which country sells the most to Chad?")
    assert "top_import_partner" not in asks("Which country buys the most from Chad?")


def test_the_words_of_the_subject_say_nothing():
    assert asks("Who leads the Capital Region?", "Capital Region") == set()
    assert asks("The capital of the Capital Region is", "The Capital Region") == {"capital"}


def test_without_relations_there_is_nothing_to_tell_by():
    assert Wordings({}).may_ask("Who leads Chad?", "Chad", "capital")
    assert not WORDINGS.may_ask("The capital of Chad is", "Chad", "no_longer_configured")
