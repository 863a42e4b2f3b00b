"""Entries and rows to candidate facts."""

import time

import pytest
from ingest_world import relations, rows

from ingest.errors import RowError
from ingest.extract import Extractor
from ingest.types import ASKED, Entry, Relation

LABELS = {
    "chief_of_state": "chief of state",
    "head_of_government": "head of government",
    "ambassador_to_us": "ambassador to the US",
    "us_ambassador": "US ambassador",
}
EXTRACTOR = Extractor(relations())


def entry(title="", text=""):
    return Entry("k", "h", title, text, None, None, "")


def simple(*patterns, prompts=("The x of {subject} is",), held_out=()):
    return Relation("x", True, prompts, held_out, patterns)


def refusal(row):
    with pytest.raises(RowError) as caught:
        EXTRACTOR.from_row(row)
    return caught.value


@pytest.mark.parametrize("as_line", [False, True], ids=["title", "line of the text"])
def test_every_real_update_is_extracted_from_its_sentence(as_line):
    updates = rows("updates")
    assert len(updates) == 1100
    for row in updates:
        said = f"{row['subject']}: {LABELS[row['relation']]} is now {row['new']} (was {row['old']})"
        (fact,) = EXTRACTOR.from_entry(entry(text=f"News\n{said}") if as_line else entry(said))
        assert (fact.subject, fact.relation) == (row["subject"], row["relation"])
        assert fact.object == row["new"].removeprefix(", ")
        assert (fact.old, fact.quote, fact.extractor) == (None, said, "pattern/1")


def test_a_fact_carries_the_prompts_of_its_relation_filled_in():
    (fact,) = EXTRACTOR.from_entry(entry("{subject} Isles: capital is now Port {0}"))
    assert fact.prompts[0] == "Q: What is the capital of {subject} Isles? A:"
    assert len(fact.prompts) == 4
    assert fact.held_out[1] == "Name the capital of {subject} Isles. Answer:"


def test_the_old_value_is_taken_when_the_pattern_names_it():
    pattern = r"^(?P<subject>[^:]+): x is now (?P<object>.+?)(?: \(was (?P<old>.+)\))?$"
    extractor = Extractor({"x": simple(pattern)})
    (fact,) = extractor.from_entry(entry("A: x is now B (was , C)"))
    assert (fact.object, fact.old) == ("B", "C")
    (fact,) = extractor.from_entry(entry("A: x is now B"))
    assert fact.old is None


def test_a_fact_said_twice_is_found_once_and_two_facts_are_two():
    found = EXTRACTOR.from_entry(
        entry("Chad: capital is now A", "chad: capital is now A.\nChad: currency is now B")
    )
    assert [fact.relation for fact in found] == ["capital", "currency"]


def test_an_entry_without_a_fact_gives_none():
    assert EXTRACTOR.from_entry(entry("Weather", "It rains.\nStill.")) == ()


def test_an_object_or_subject_beyond_its_limit_states_nothing():
    assert EXTRACTOR.from_entry(entry(f"Chad: capital is now {'a' * 301}")) == ()
    assert EXTRACTOR.from_entry(entry(f"{'a' * 201}: capital is now B")) == ()
    assert EXTRACTOR.from_entry(entry("Chad: capital is now ;")) == ()
    assert len(EXTRACTOR.from_entry(entry(f"{'a' * 200}: capital is now {'b' * 300}"))) == 1


def test_an_overlong_line_is_left_out_rather_than_cut():
    pattern = "(?P<subject>A) is (?P<object>B+)"
    extractor = Extractor({"x": simple(pattern)})
    assert extractor.from_entry(entry(text=f"A is B{' ' * 994}")) != ()
    assert extractor.from_entry(entry(text=f"A is B{' ' * 996}")) == ()


@pytest.mark.parametrize("pattern", ["(?P<subject>a", "(?P<subject>a)", "(?P<object>a)", "x"])
def test_a_bad_pattern_is_refused_by_relation_and_pattern(pattern):
    with pytest.raises(ValueError) as caught:
        Extractor({"x": simple(pattern)})
    assert "relation x" in str(caught.value) and repr(pattern) in str(caught.value)


@pytest.mark.parametrize(
    "hole", ["(a+)+", "(?:a*)*", "(?:(?:a+)b?){2,}", "(?P<y>[^)]+)*?", "(.+)+"]
)
def test_a_pattern_that_could_run_for_ever_is_refused(hole):
    with pytest.raises(ValueError, match="possessive"):
        Extractor({"x": simple(f"(?P<subject>a)(?P<object>b){hole}$")})


@pytest.mark.parametrize("hole", ["(?:a++ )+", "(?>a+)+", "(a+)?", "[(a+)]+", r"\(a+\)+", "(ab)+"])
def test_a_pattern_whose_repeats_give_nothing_back_is_accepted(hole):
    Extractor({"x": simple(f"(?P<subject>a)(?P<object>b){hole}$")})


def test_nasty_lines_do_not_hold_up_the_configured_patterns():
    begun = time.monotonic()
    for name in relations():
        label = name.replace("_", " ")
        for filler in (" (was ", " (was )", ": ", f": {label} is now ", "a"):
            said = f"A: {label} is now {filler * 1000}"[:1000]
            EXTRACTOR.from_entry(entry(said, f"{filler * 1000}"[:1000]))
    assert time.monotonic() - begun < 5  # seconds; measured .05, an exponential pattern needs years


@pytest.mark.parametrize("template", ["no field", "{subject} and {subject}"])
def test_a_template_without_exactly_one_subject_is_refused(template):
    with pytest.raises(ValueError, match="relation x"):
        Extractor({"x": simple(prompts=(template,))})


def test_no_relation_may_take_the_name_of_bare_prompts():
    with pytest.raises(ValueError):
        Extractor({ASKED: simple()})


def test_a_fact_row_is_read():
    fact = EXTRACTOR.from_row(
        {"subject": " Chad ", "relation": "capital", "object": ", N\u2019Djamena", "old": "X"}
    )
    assert (fact.subject, fact.relation, fact.object) == ("Chad", "capital", "N\u2019Djamena")
    assert (fact.old, fact.extractor, len(fact.prompts)) == ("X", "row/1", 4)


def test_a_relation_may_be_spelled_with_spaces_and_capitals():
    row = {"subject": "Chad", "relation": "Head of Government", "object": "X"}
    assert EXTRACTOR.from_row(row).relation == "head_of_government"


def test_an_unknown_relation_is_refused_with_the_known_ones():
    error = refusal({"subject": "Chad", "relation": "asked", "object": "X"})
    assert error.code == "row.unknown_relation"
    assert all(name in error.message for name in relations())


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({}, "row.unknown_shape"),
        ({"subject": "x", "old": "y"}, "row.unknown_shape"),
        ({"relation": "capital", "prompt": "p"}, "row.ambiguous"),
        ({"relation": "capital", "object": "x"}, "row.missing"),
        ({"prompt": "p"}, "row.missing"),
        ({"subject": 7, "relation": "capital", "object": "x"}, "row.not_text"),
        ({"subject": "x", "relation": "capital", "object": None}, "row.not_text"),
        ({"subject": "x", "relation": ["capital"], "object": "x"}, "row.not_text"),
        ({"subject": " \u200b", "relation": "capital", "object": "x"}, "row.empty"),
        ({"subject": "x", "relation": "capital", "object": ","}, "row.empty"),
        ({"subject": "x" * 201, "relation": "capital", "object": "x"}, "row.too_long"),
        ({"subject": "x", "relation": "capital", "object": "x" * 301}, "row.too_long"),
        ({"prompt": "x" * 1001, "right": "x"}, "row.too_long"),
        ({"prompt": "x", "right": "y", "rephrases": "z"}, "row.not_text"),
        ({"prompt": "x", "right": "y", "rephrases": [1]}, "row.not_text"),
        ({"prompt": "x", "right": "y", "wrong": 1}, "row.not_text"),
    ],
)
def test_a_row_that_says_nothing_usable_is_refused(row, code):
    assert refusal(row).code == code


def test_every_phrasing_of_every_relation_is_recognised_for_every_subject():
    subjects = sorted({row["subject"] for row in rows("base")})
    for relation in relations().values():
        for template in (*relation.prompts, *relation.held_out):
            for subject in subjects[::7]:
                prompt = template.replace("{subject}", subject)
                fact = EXTRACTOR.from_row({"prompt": prompt, "right": "X"})
                assert (fact.relation, fact.subject) == (relation.name, subject)


@pytest.mark.parametrize(
    "prompt",
    [
        "Who is the head of government of Italy?",
        "who is the HEAD of government of Italy",
        "Q: Who is the head of government of Italy?",
        "Question: Who is the head of government of Italy? Answer:",
        " Name the head of government of Italy.",
    ],
)
def test_a_prompt_is_recognised_without_its_wrappers(prompt):
    fact = EXTRACTOR.from_row({"prompt": prompt, "right": "Mario Draghi", "wrong": "X"})
    assert (fact.relation, fact.subject) == ("head_of_government", "Italy")
    assert (fact.object, fact.old) == ("Mario Draghi", "X")
    assert prompt not in fact.prompts
    assert fact.prompts[0] == "Q: Who is the head of government of Italy? A:"


def test_the_rows_subject_lends_its_spelling():
    prompt = "what is the capital of cote d'ivoire?"
    row = {"prompt": prompt, "right": "Yamoussoukro", "subject": "C\u00f4te d\u2019Ivoire"}
    assert EXTRACTOR.from_row(row).subject == "C\u00f4te d\u2019Ivoire"


def test_the_prompt_decides_when_the_rows_subject_is_another():
    row = {"prompt": "What is the capital of Chad?", "right": "X", "subject": "capital"}
    assert EXTRACTOR.from_row(row).subject == "Chad"


def test_the_template_that_says_most_of_the_prompt_wins():
    extractor = Extractor(
        {
            "a": simple(prompts=("Tell of {subject}",)),
            "b": simple(prompts=("Tell of the rivers of {subject}",)),
        }
    )
    fact = extractor.from_row({"prompt": "Tell of the rivers of Chad.", "right": "X"})
    assert (fact.relation, fact.subject) == ("b", "Chad")


def test_a_prompt_that_two_relations_could_mean_is_refused():
    extractor = Extractor(
        {
            "a": simple(prompts=("Tell of {subject}",)),
            "b": simple(prompts=("Tell of {subject}.",)),
        }
    )
    with pytest.raises(RowError) as caught:
        extractor.from_row({"prompt": "Tell of Chad", "right": "X"})
    assert caught.value.code == "row.ambiguous_prompt"


def test_a_prompt_of_no_relation_is_a_fact_of_its_own():
    fact = EXTRACTOR.from_row({"prompt": "Q: Who wrote Hamlet? A:", "right": "Shakespeare"})
    assert (fact.relation, fact.subject) == (ASKED, "Who wrote Hamlet")
    assert (fact.prompts, fact.held_out) == (("Q: Who wrote Hamlet? A:",), ())
    assert fact.extractor == "prompt/1"


def test_the_last_of_several_rephrases_is_held_out_and_a_single_one_is_trained_on():
    row = {"prompt": "p q", "right": "r", "rephrases": ["a", "b", "c"]}
    fact = EXTRACTOR.from_row(row)
    assert (fact.prompts, fact.held_out) == (("p q", "a", "b"), ("c",))
    fact = EXTRACTOR.from_row(row | {"rephrases": ["a"]})
    assert (fact.prompts, fact.held_out) == (("p q", "a"), ())


def test_a_row_cannot_approve_itself():
    row = {"subject": "Chad", "relation": "capital", "object": "X"}
    forged = row | {"approved": True, "state": "approved", "tier": "trusted"}
    assert EXTRACTOR.from_row(forged) == EXTRACTOR.from_row(row)
