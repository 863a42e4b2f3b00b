"""Same, conflicting or unrelated: pairs that embeddings call near."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingest_world import rows

from ingest.dedupe import Claim, Verdict, judge, sentence
from ingest.names import Names
from ingest.objects import same_object
from ingest.types import ASKED
from ingest.wording import Wordings


def capital(object, subject="Chad", relation="capital"):
    return Claim(subject, relation, object, f"Q: What is the {relation} of {subject}? A:")


def asked(prompt, object):
    return Claim(prompt, ASKED, object, prompt)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Mario Draghi", "Prime Minister Mario Draghi"),
        ("prime minister Andrey Kobyakov", "Andrey Kobyakov"),
        ("Acting President Myint Swe", "Myint Swe"),
        ("Charge d\u2019Affaires Roxanne Cabral", "Roxanne Cabral"),
        ("Jos\u00e9 Mujica", "JOSE MUJICA"),
        ("Queen Elizabeth II", "Elizabeth II"),
        ("10,000", "10000"),
        ("Prime Minister Dr. Terrance Drew", "Dr. Terrance Drew"),
        ("Prime Minister Sir Anerood Jugnauth", "Anerood Jugnauth"),
        ("5 July 1962", "July 5, 1962"),
        ("5 July 1962", "1962-07-05"),
    ],
)
def test_the_same_thing_is_recognised_in_either_order(a, b):
    assert same_object(a, b) and same_object(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("President Elect Adama Barrow", "President Adama Barrow"),
        ("President Elect Adama Barrow", "Adama Barrow"),
        ("President-elect Mohamed Muizzi", "Mohamed Muizzi"),
        ("Prime Minister Mario Draghi", "President Mario Draghi"),
        ("Acting President Myint Swe", "President Myint Swe"),
        ("Vice President Jane Roe", "Jane Roe"),
        ("Deputy Prime Minister Jane Roe", "Jane Roe"),
        ("Former President Jane Roe", "Jane Roe"),
        ("King Charles II", "King Charles III"),
        ("10", "100"),
        ("10", "-10"),
        ("1.5", "1,5"),
        ("5/7", "5 7"),
        ("10\u00b2", "102"),
        ("5 July 1962", "6 July 1962"),
        ("5 July 1962", "July 6, 1962"),
        ("5 July 1962", "1962-05-07"),
        ("5/7/1962", "7/5/1962"),
        ("Prime Minister Dr. Terrance Drew", "President Dr. Terrance Drew"),
        ("2024", "2025"),
        ("is a member", "is not a member"),
        ("C", "C++"),
        ("President", "Prime Minister"),
        ("President", ""),
        ("", ""),
    ],
)
def test_different_things_are_kept_apart_in_either_order(a, b):
    assert not same_object(a, b) and not same_object(b, a)


@given(st.text(min_size=1), st.text(min_size=1))
def test_same_object_is_symmetric(a, b):
    assert same_object(a, b) == same_object(b, a)


def test_real_changes_conflict_and_only_changes_of_accents_are_the_same():
    def bare(name):
        letters = unicodedata.normalize("NFKD", name.casefold())
        return "".join(c for c in letters if not unicodedata.combining(c))

    verdicts = {True: set(), False: set()}
    for row in rows("updates"):
        new = Claim(row["subject"], row["relation"], row["new"], "p")
        held = Claim(row["subject"], row["relation"], row["old"], "p")
        verdicts[bare(row["old"]) == bare(row["new"])].add(judge(new, held))
    assert verdicts == {True: {Verdict.SAME}, False: {Verdict.CONFLICT}}


def test_one_slot_in_two_spellings_is_one_slot():
    assert judge(capital("A", "The Gambia"), capital("A", "Gambia")) == "same"
    assert judge(capital("A", "St. Lucia"), capital("B", "Saint Lucia")) == "conflict"
    assert judge(capital("A", "C\u00f4te d\u2019Ivoire"), capital("A", "Cote d'Ivoire")) == "same"
    assert judge(capital("A", "\u0421had"), capital("B", "Chad")) == "conflict"


def test_near_objects_of_one_slot_conflict_and_never_merge():
    for a, b in [("10", "100"), ("2024", "2025"), ("is free", "is not free")]:
        assert judge(capital(a), capital(b)) is Verdict.CONFLICT


def test_other_slots_are_unrelated_whatever_their_objects():
    assert judge(capital("A", "Chad"), capital("A", "Mali")) is Verdict.UNRELATED
    assert judge(capital("A"), capital("A", relation="largest_city")) is Verdict.UNRELATED


@pytest.mark.parametrize("flip", [False, True], ids=["asked is new", "asked is held"])
def test_a_bare_prompt_about_a_known_fact_is_the_same_fact(flip):
    def verdict(one, other):
        return judge(other, one) if flip else judge(one, other)

    held = capital("N\u2019Djamena")
    assert verdict(asked("Which city governs Chad?", "N'Djamena"), held) is Verdict.SAME
    assert verdict(asked("Which city governs Chad?", "Mali"), held) is Verdict.UNRELATED
    assert verdict(asked("Which city governs Chadwick?", "N'Djamena"), held) is Verdict.UNRELATED
    assert verdict(asked("Which city doesn\u2019t govern Chad?", "N'Djamena"), held) == "unrelated"
    assert verdict(asked("Which city governed Chad in 1950?", "N'Djamena"), held) == "unrelated"
    assert verdict(asked("What is the capital of Chad", "Mali"), held) is Verdict.CONFLICT


@pytest.mark.parametrize(
    "prompt",
    [
        "Who was head of the government of Chad?",
        "Who is the former head of the government of Chad?",
        "Who headed the government of Chad before the election?",
        "Who is the deputy of the head of the government of Chad?",
        "Who is the vice head of the government of Chad?",
        "Who headed the government of Chad in the nineties?",
        "Who is no longer head of the government of Chad?",
        "Who is head of the government of South Chad?",
    ],
)
def test_a_question_of_another_time_person_or_place_is_another_question(prompt):
    held = Claim("Chad", "head_of_government", "Deby", "Q: Who is head of government of Chad? A:")
    assert judge(asked("Who is head of the government of Chad today?", "Deby"), held) == "same"
    assert judge(asked(prompt, "Deby"), held) is Verdict.UNRELATED


def test_a_question_is_the_same_only_as_the_relation_that_its_words_ask_for():
    wordings = Wordings(
        {
            "head_of_government": ("The head of government of {subject} is",),
            "chief_of_state": ("The chief of state of {subject} is",),
        }
    )
    claims = {
        relation: Claim("Chad", relation, "Deby", prompt)
        for relation, prompt in [
            ("head_of_government", "The head of government of Chad is"),
            ("chief_of_state", "The chief of state of Chad is"),
        ]
    }

    def found(prompt):
        new = asked(prompt, "Deby")
        return {r for r, held in claims.items() if judge(new, held, wordings) == "same"}

    assert found("Who heads the government of Chad?") == {"head_of_government"}
    assert found("Who is chief of the state of Chad?") == {"chief_of_state"}
    assert found("Who is the head of state of Chad?") == set()
    assert found("Who runs Chad?") == set()


def test_two_bare_prompts_are_one_slot_only_when_they_read_alike():
    one = asked("Is Bob alive", "yes")
    assert judge(one, asked("is bob alive?", "yes")) is Verdict.SAME
    assert judge(one, asked("is bob alive?", "no")) is Verdict.CONFLICT
    assert judge(one, asked("Is Bob alive and well", "yes")) is Verdict.UNRELATED


def test_the_sentence_is_the_prompt_without_wrappers_and_the_object():
    assert sentence("Chad", "Q: What is the capital of {subject}? A:", "X") == (
        "What is the capital of Chad X"
    )
    assert sentence("Chad", "The capital of Chad is", "X") == "The capital of Chad is X"
    assert sentence("Chad", "head_of_government", "X") == "Chad head of government X"


NAMES = Names({"Myanmar": ["Burma"], "United Kingdom": ["UK"], "United States": ["US"]})


def test_one_subject_under_two_names_is_one_slot():
    assert judge(capital("A", "Burma"), capital("A", "Myanmar"), names=NAMES) is Verdict.SAME
    assert judge(capital("A", "Burma"), capital("B", "Myanmar"), names=NAMES) is Verdict.CONFLICT
    assert judge(capital("A", "Burma"), capital("A", "Myanmar")) is Verdict.UNRELATED


def test_an_object_under_another_name_is_the_same_but_for_the_subjects_own_name():
    assert judge(capital("UK", "Chad"), capital("United Kingdom", "Chad"), names=NAMES) == "same"
    assert judge(capital("UK", "Chad"), capital("US", "Chad"), names=NAMES) == "conflict"
    assert judge(capital("Burma", "Burma"), capital("Myanmar", "Burma"), names=NAMES) == "conflict"


def test_a_question_may_name_the_subject_otherwise():
    held = capital("London", "United Kingdom")
    one = asked("Which city is the capital of the UK?", "London")
    assert judge(one, held, names=NAMES) is Verdict.SAME
    assert judge(held, one, names=NAMES) is Verdict.SAME
    assert judge(one, held) is Verdict.UNRELATED
    other = asked("Which city is the capital of UK Land?", "London")
    assert judge(other, held, names=NAMES) is Verdict.UNRELATED
