"""How full a shard is, and which facts share one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from edits import FACTS
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_words import SENTENCES
from torch import Tensor

import wise
from wise import capacity
from wise.problem import Problem

NONE_4 = torch.zeros(0, 4)
NONE = torch.zeros(0, 6)  # unrelated inputs of which there are none
#: ten keys of four facts, in no order
FACT = torch.tensor([2, 0, 1, 1, 3, 0, 2, 2, 3, 1])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unrelated(seed: int = 1) -> Tensor:
    """30 inputs that are spread unevenly."""
    return drawn(30, 6, seed=seed) @ torch.diag(torch.tensor([4.0, 2.0, 1.0, 1.0, 0.5, 0.1]))


def moment(rows: Tensor) -> Tensor:
    """C with its ridge, (d, d) float64, one input after another."""
    size = rows.shape[1]
    total = torch.zeros(size, size, dtype=torch.float64)
    for row in rows.double():
        total += torch.outer(row, row) / len(rows)
    mean = sum(float(total[i, i]) for i in range(size)) / size
    return total + capacity.RIDGE * mean * torch.eye(size, dtype=torch.float64)


def written_out(keys: Tensor, fact: Tensor, inverse: Tensor) -> Tensor:
    """The formula with plain loops: sum over the keys of f, mean over the keys of g."""
    count = int(fact.max()) + 1
    found = torch.zeros(count, count, dtype=torch.float64)
    for f in range(count):
        for g in range(count):
            if f == g:
                continue
            onto = keys[fact == g].double()
            for one in keys[fact == f].double():
                for other in onto:
                    p = (one @ inverse @ other) / (one @ inverse @ one)
                    found[f, g] += p**2 / len(onto)
    return found


def unlike(keys: torch.Tensor, fact: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The interference where each key produces a token of its own."""
    return wise.overlap(keys, fact, torch.arange(len(keys)), others).unlike


def test_interference_is_what_the_formula_says() -> None:
    keys, others = drawn(10, 6), unrelated()
    expected = written_out(keys, FACT, torch.linalg.inv(moment(others)))
    found = unlike(keys, FACT, others)
    assert found.dtype == torch.float64
    assert float(expected.max()) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_inputs_stay_as_they_are() -> None:
    keys, others = drawn(10, 6).double(), unrelated().double()
    before = keys.clone(), others.clone()
    unlike(keys, FACT, others)
    assert torch.equal(keys, before[0]) and torch.equal(others, before[1])


@pytest.mark.parametrize("rows", [1, 3, 10, 11])
def test_how_many_keys_are_compared_at_once_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    keys, others = drawn(10, 6), unrelated()
    whole = unlike(keys, FACT, others)
    monkeypatch.setattr(capacity, "ROWS", rows)
    found = unlike(keys, FACT, others)
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-14)  # sums in another order


def test_keys_that_are_orthogonal_where_they_are_whitened_do_not_interfere() -> None:
    """k' C^-1 (C v) = k' v, which is 0 for a v that is orthogonal to k."""
    others = unrelated()
    key, v = drawn(2, 6, seed=4).double()
    v = v - (v @ key) / (key @ key) * key
    keys = torch.stack([key, moment(others) @ v])
    plain = torch.nn.functional.cosine_similarity(keys[0], keys[1], dim=0)
    assert abs(float(plain)) > 0.1  # not so where they are not whitened
    found = unlike(keys, torch.tensor([0, 1]), others)
    assert float(found.abs().max()) < 1e-20


def test_facts_of_the_same_key_interfere_by_one() -> None:
    keys = drawn(1, 6).repeat(3, 1)
    found = unlike(keys, torch.arange(3), unrelated())
    torch.testing.assert_close(found, 1 - torch.eye(3, dtype=torch.float64))


def test_a_change_shows_by_how_large_the_other_key_is_beside_its_own() -> None:
    """k and 2k: p = 2 from the small to the large one, 1/2 back, whatever C is."""
    key = drawn(1, 6)
    found = unlike(torch.cat([key, 2 * key]), torch.arange(2), unrelated())
    torch.testing.assert_close(found, torch.tensor([[0.0, 4.0], [0.25, 0.0]]).double())


def test_the_keys_of_one_fact_add_up_and_those_of_the_other_are_averaged() -> None:
    """Without unrelated inputs C is the identity, so that e1, e2 and e1 + e2 say it all."""
    e1, e2, _ = torch.eye(3)
    found = unlike(torch.stack([e1, e2, e1 + e2]), torch.tensor([0, 0, 1]), torch.zeros(0, 3))
    # p = 1 from e1 and from e2 to e1 + e2, and 1/2 from that to each of them
    torch.testing.assert_close(found, torch.tensor([[0.0, 2.0], [0.25, 0.0]]).double())


def test_without_unrelated_inputs_nothing_is_whitened() -> None:
    keys = drawn(10, 6)
    expected = written_out(keys, FACT, torch.eye(6, dtype=torch.float64))
    found = unlike(keys, FACT, NONE)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_unrelated_inputs_of_nothing_but_zeros_whiten_nothing_either() -> None:
    keys = drawn(10, 6)
    found = unlike(keys, FACT, torch.zeros(5, 6))
    torch.testing.assert_close(found, unlike(keys, FACT, NONE))


def test_a_key_of_zeros_neither_gives_nor_takes() -> None:
    keys = torch.stack([torch.zeros(6), drawn(6)])
    assert not unlike(keys, torch.arange(2), unrelated()).any()


@pytest.mark.parametrize("keys", [1, 2, 7])
def test_a_fact_does_not_interfere_with_itself_however_many_keys_it_has(keys: int) -> None:
    alone = unlike(drawn(keys, 6), torch.zeros(keys, dtype=torch.long), unrelated())
    assert alone.tolist() == [[0.0]]
    two = torch.arange(2).repeat_interleave(keys)
    found = unlike(drawn(2 * keys, 6), two, unrelated())
    assert found.diagonal().tolist() == [0.0, 0.0]
    assert found[0, 1] > 0 and found[1, 0] > 0


def test_no_facts_interfere_with_nothing_and_fill_nothing() -> None:
    found = unlike(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long), unrelated())
    assert found.shape == (0, 0)
    assert wise.fullness(found, 2.0) == 0
    assert wise.packed(found, 2.0) == []


def filled(between: Tensor, group: list[int], room: float) -> float:
    """`fullness` of some facts with plain loops."""
    put = [sum(float(between[f, g]) for f in group) for g in group]
    return sum(put) / len(put) / room


def test_a_shard_is_full_when_the_interference_put_on_its_facts_is_the_room_on_average() -> None:
    between = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 4.0], [5.0, 6.0, 0.0]])
    assert wise.fullness(between, 2.0) == 3.5  # (8 + 7 + 6) / 3 / 2
    assert wise.fullness(between[:1, :1], 2.0) == 0
    assert wise.fullness(between, 7.0) == 1


def matrix(size: int, seed: int, scale: float) -> Tensor:
    """Interference of any facts: some alike, most not, and not symmetric."""
    uniform = torch.rand(size, size, generator=torch.Generator().manual_seed(seed))
    found: Tensor = scale * uniform.double() ** 4
    return found.fill_diagonal_(0)


@given(st.integers(1, 12), st.integers(0, 999), st.floats(0, 3), st.floats(0.1, 3))
@settings(deadline=None)
def test_every_fact_is_in_one_group_and_no_group_is_over_full(
    size: int, seed: int, scale: float, room: float
) -> None:
    between = matrix(size, seed, scale)
    groups = wise.packed(between, room)
    assert sorted(index for group in groups for index in group) == list(range(size))
    assert all(groups)
    for group in groups:
        assert len(group) == 1 or filled(between, group, room) <= 1 + 1e-9
    if filled(between, list(range(size)), room) <= 1 - 1e-9:
        assert groups == [list(range(size))]
    assert wise.packed(between.clone(), room) == groups


def test_what_just_fits_stays_together() -> None:
    between = torch.ones(5, 5).fill_diagonal_(0)  # 4 put on each fact
    assert wise.packed(between, 4.0) == [[0, 1, 2, 3, 4]]
    assert len(wise.packed(between, 3.99)) == 2


@given(st.permutations(range(6)))
@settings(deadline=None)
def test_twins_come_apart_when_two_shards_are_needed(order: list[int]) -> None:
    """0 and 3, 1 and 4, 2 and 5 are twins; all together 1.8 is put on each, apart .4."""
    between = torch.full((6, 6), 0.2, dtype=torch.float64).fill_diagonal_(0)
    for one in range(3):
        between[one, one + 3] = between[one + 3, one] = 1.0
    groups = wise.packed(between[order][:, order], 1.0)
    assert len(groups) == 2
    for group in groups:
        assert sorted(order[index] % 3 for index in group) == [0, 1, 2]


def test_facts_of_the_same_key_come_apart() -> None:
    keys = torch.eye(6)[[0, 0, 1, 1, 2, 2]]
    between = unlike(keys, torch.arange(6), NONE)
    assert wise.packed(between, 1.0) == [[0, 1, 2, 3, 4, 5]]  # 1 is put on each: just full
    assert wise.packed(between, 0.9) == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("back", [False, True], ids=["on the later", "on the earlier"])
def test_it_does_not_matter_which_of_two_facts_disturbs_the_other(back: bool) -> None:
    between = torch.zeros(4, 4)
    between[0, 1] = between[2, 3] = 3.0
    assert wise.packed(between.T if back else between, 1.0) == [[0, 2], [1, 3]]


def test_shards_that_no_fact_needs_are_not_made() -> None:
    """Three pairs of twins are 5 times too much for one shard, and nothing in two."""
    between = torch.zeros(6, 6)
    for one in (0, 2, 4):
        between[one, one + 1] = between[one + 1, one] = 10.0
    assert wise.packed(between, 2.0) == [[0, 2, 4], [1, 3, 5]]


def test_where_as_many_shards_as_it_seems_do_not_do_there_are_more() -> None:
    """All is 1.4 full; of two shards 2 and 3 come into one, and these are 1.2; three do."""
    between = torch.zeros(4, 4)
    for one, other, size in ((0, 2, 0.1), (1, 2, 0.1), (0, 3, 0.7), (1, 3, 0.7), (2, 3, 1.2)):
        between[one, other] = between[other, one] = size
    assert filled(between, [0, 1, 2, 3], 1.0) == pytest.approx(1.4)
    assert wise.packed(between, 1.0) == [[0, 1], [2], [3]]


def test_no_more_shards_are_made_than_twins_need() -> None:
    """Two pairs of twins: 10 is put on each fact together, 0 where the pairs are apart."""
    between = torch.zeros(4, 4)
    for one, other in ((0, 1), (2, 3)):
        between[one, other] = between[other, one] = 10.0
    assert len(wise.packed(between, 2.0)) == 2


@pytest.fixture
def captured(llama: Any, tokenizer: Any) -> tuple[Any, wise.Site, list[wise.Example]]:
    """FACTS in their phrasings and within running text, at the first layer; one has fewer."""
    contexts = wise.Contexts(passages=tuple(SENTENCES))
    made = wise.examples(FACTS, tokenizer, contexts, max_tokens=64, seed=0)
    made = [e for e in made if (e.fact, e.phrasing) != (12, 1)]
    assert any(example.shared for example in made)
    return llama, wise.locate(llama, 0), made


def gathered(model: Any, site: wise.Site, made: list[wise.Example]) -> dict[tuple[int, int], Any]:
    """By fact id and answer token: the inputs that produce it, each sequence run by itself."""
    found: dict[tuple[int, int], list[Tensor]] = {}
    for example in made:
        (batch,) = wise.capture(model, site, [example.inputs])
        for nth in range(len(example.answer)):
            place = len(example.prompt) - 1 + nth
            found.setdefault((example.fact, nth), []).append(batch.inputs[0, place])
    return found


def check(problem: Problem, by_hand: dict[tuple[int, int], list[Tensor]], ids: list[int]) -> None:
    """Compare ``fact_inputs``; ids: of the facts by their place."""
    inputs, fact, token = problem.fact_inputs()
    answers = {e.fact: e.answer for e in problem.examples}
    nth = [int((fact[:row] == fact[row]).sum()) for row in range(len(fact))]
    rows = {(ids[int(f)], n): row for f, n, row in zip(fact, nth, inputs, strict=True)}
    assert inputs.dtype == torch.float32 and len(rows) == len(inputs)
    produced = [answers[ids[int(f)]][n] for f, n in zip(fact, nth, strict=True)]
    assert token.tolist() == produced
    assert set(rows) == set(by_hand)
    for name, row in rows.items():
        mean = torch.stack(by_hand[name]).mean(0)
        torch.testing.assert_close(row, mean, rtol=1e-4, atol=1e-5)  # batched, so summed otherwise


def test_keys_of_one_token_help_each_other_and_others_interfere() -> None:
    """Two facts of two keys each: the first keys produce one token, the second ones two."""
    keys, fact = torch.eye(4)[[0, 1, 0, 1]] + 0.5 * torch.eye(4)[[2, 2, 3, 3]], [0, 0, 1, 1]
    found = wise.overlap(keys, torch.tensor(fact), torch.tensor([7, 8, 7, 9]), NONE_4)
    # p is 1 / 1.25 from a key to its twin, and 0 to the other fact's second key
    toward = (1 / 1.25) ** 2 / 2
    expected = torch.tensor([[0.0, toward], [toward, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found.like, expected)
    torch.testing.assert_close(found.unlike, expected)
    both = torch.arange(2)
    assert found.contested(both[:1], both[1:]).tolist() == pytest.approx([0.5])
    assert found.contested(both[:0], both).tolist() == [0.0, 0.0]  # nothing is put on them


def test_all_that_comes_from_other_tokens_is_contested() -> None:
    keys = drawn(6, 6)
    found = wise.overlap(keys, torch.arange(6), torch.arange(6), unrelated())
    share = found.contested(torch.tensor([0, 1]), torch.tensor([2, 3, 4]))
    assert share.tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert not found.like.any()


@pytest.mark.parametrize("layer", [0, -1], ids=["first layer", "last layer"])
def test_a_facts_inputs_are_the_means_over_its_phrasings_and_contexts(
    captured: tuple[Any, wise.Site, list[wise.Example]], layer: int
) -> None:
    """The last layer's positions are kept one by one, others in whole sequences."""
    model, _, made = captured
    site = wise.locate(model, layer)
    by_hand = gathered(model, site, made)
    # Mario Draghi, Ada Lovelace and Oslo, each with its end
    answers = {11: 3, 12: 3, 13: 2}
    assert set(by_hand) == {(one, n) for one, tokens in answers.items() for n in range(tokens)}
    assert min(len(rows) for rows in by_hand.values()) > 2
    check(Problem(model, site, made), by_hand, [11, 12, 13])


def test_a_facts_place_is_where_its_first_example_stands(
    captured: tuple[Any, wise.Site, list[wise.Example]],
) -> None:
    model, site, made = captured
    turned = made[::-1]
    check(Problem(model, site, turned), gathered(model, site, made), [13, 12, 11])


def test_a_part_of_the_examples_has_the_inputs_of_its_facts_alone(
    captured: tuple[Any, wise.Site, list[wise.Example]],
) -> None:
    model, site, made = captured
    problem = Problem(model, site, made).part(torch.tensor([e.fact != 12 for e in made]))
    by_hand = gathered(model, site, [e for e in made if e.fact != 12])
    check(problem, by_hand, [11, 12, 13])  # places among all


def test_no_examples_have_no_inputs(llama: Any) -> None:
    inputs, fact, token = Problem(llama, wise.locate(llama), []).fact_inputs()
    assert inputs.shape == (0, 96) and fact.shape == token.shape == (0,)


def test_facts_on_a_model_interfere_and_fit_one_shard(
    captured: tuple[Any, wise.Site, list[wise.Example]],
) -> None:
    """The whole way from examples to groups; a room of next to nothing gives each its own."""
    model, site, made = captured
    asked = [e.prompt for e in made]
    inputs, fact, _ = Problem(model, site, made).fact_inputs()
    others = torch.cat([batch.inputs[:, 0] for batch in wise.capture(model, site, asked)])
    between = unlike(inputs, fact, others)
    expected = written_out(inputs, fact, torch.linalg.inv(moment(others)))
    torch.testing.assert_close(between, expected, rtol=1e-8, atol=1e-10)
    assert math.isclose(wise.fullness(between, 5.0), filled(between, [0, 1, 2], 5.0))
    assert wise.packed(between, 100.0) == [[0, 1, 2]]
    assert wise.packed(between, 1e-9) == [[0], [1], [2]]
