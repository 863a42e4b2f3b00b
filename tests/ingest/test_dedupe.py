"""Same, conflicting or unrelated: pairs that embeddings call near."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingest_world import rows

from ingest.dedupe import Claim, Verdict, judge, nearest, sentence
from ingest.objects import same_object
from ingest.types import ASKED


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


def test_nearest_agrees_with_plain_search(monkeypatch):
    monkeypatch.setattr("ingest.dedupe._CHUNK_SCORES", 70)  # several chunks, one of them short
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(30, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[[3, 9, 27, 0, 14]]
    for query, found in zip(queries, nearest(vectors, queries, k=4, floor=0.2), strict=True):
        cosines = [float(vector @ query) for vector in vectors]
        above = [index for index in range(30) if cosines[index] >= 0.2]
        expected = sorted(above, key=lambda index: -cosines[index])[:4]
        assert [index for index, _ in found] == expected
        assert [score for _, score in found] == pytest.approx([cosines[i] for i in expected])


def test_nearest_of_nothing_is_nothing():
    none = np.zeros((0, 4), dtype=np.float32)
    one = np.array([[1, 0, 0, 0]], dtype=np.float32)
    assert nearest(none, one, 3, 0.0) == [[]]
    assert nearest(one, none, 3, 0.0) == []
    assert nearest(one, -one, 3, 0.5) == [[]]


def test_equal_scores_keep_the_order_of_the_vectors():
    one = np.array([[1, 0]], dtype=np.float32)
    found = nearest(np.repeat(one, 500, axis=0), one, 400, 0.5)[0]
    assert [index for index, _ in found] == list(range(400))
