"""The router's parts: space, key table, threshold."""

from __future__ import annotations

import pytest
import torch
from pytest import approx

import wise
from wise.router import best_match, own_matches


def unit(rows: list[list[float]]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def test_the_nearest_key_names_its_fact() -> None:
    keys = wise.Keys(unit([[1, 0], [0, 1], [1, 1]]), torch.tensor([7, 8, 9]))
    cosine, fact = best_match(unit([[2, 0], [1, 1.1]]), keys)
    assert fact.tolist() == [7, 9]
    assert cosine.tolist() == approx([1.0, 2.1 / (2**0.5 * (1 + 1.1**2) ** 0.5)])


def test_an_empty_table_matches_nothing() -> None:
    keys = wise.Keys(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    cosine, fact = best_match(unit([[1, 0]]), keys)
    assert (cosine.item(), fact.item()) == (-1.0, -1)


def test_keys_can_be_taken_away() -> None:
    keys = wise.Keys(unit([[1, 0], [0, 1], [1, 1]]), torch.tensor([0, 1, 0]))
    left = keys.without(torch.tensor([0]))
    assert left.fact.tolist() == [1]
    assert left.vectors.tolist() == [[0.0, 1.0]]


def test_keys_that_are_alike_become_their_mean_but_never_across_facts() -> None:
    vectors = unit([[1, 0], [0.8, 0.6], [0, 1], [1, 0]])
    table = wise.prototypes(vectors, torch.tensor([0, 0, 0, 1]), like=0.7)
    assert table.fact.tolist() == [0, 0, 1]
    wanted = unit([[1.8, 0.6], [0, 1], [1, 0]])
    torch.testing.assert_close(table.vectors, wanted)


def test_no_keys_give_an_empty_table() -> None:
    table = wise.prototypes(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), like=0.5)
    assert len(table) == 0 and table.vectors.shape == (0, 3)


def test_an_unseen_phrasing_is_foretold_by_the_other_phrasings() -> None:
    """Fact 0 is asked in two phrasings, one of them twice; fact 1 in a single one."""
    vectors = unit([[1, 0], [0.6, 0.8], [0, 1], [1, 1]])
    facts, phrasings = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 0])
    found = own_matches(vectors, facts, phrasings)
    mean = unit([[1.6, 0.8]])[0]  # of the first phrasing's two keys
    assert found.tolist() == approx([0.0, 0.8, float(mean[1])])


def test_the_threshold_lies_between_negatives_and_keys() -> None:
    made = wise.calibrate(torch.tensor([0.9, 0.95]), torch.tensor([0.1, 0.5]), 0.25, lean=0.75)
    # .4 is three quarters of the way from .1 to .5, and leaves .5 up to .9
    assert made.threshold == approx(0.4 + 0.75 * 0.5)
    assert (made.highest_negative, made.lowest_key) == (approx(0.5), approx(0.9))
    assert (made.false_fire, made.negatives) == (0.0, 2)
    assert made.false_fire_bound == 1.0


@pytest.mark.parametrize(("lean", "expected"), [(0.0, 0.4), (0.25, 0.5), (0.5, 0.6), (1.0, 0.8)])
def test_the_threshold_leans_from_the_quantile_of_the_negatives_to_the_lowest_key(
    lean: float, expected: float
) -> None:
    """0, .1, ..., 1: a quantile of .4 has six of eleven above."""
    negatives = torch.arange(11) / 10
    made = wise.calibrate(torch.tensor([0.95, 0.8]), negatives, false_fire=0.6, lean=lean)
    assert made.threshold == approx(expected)


def test_one_outlier_among_many_negatives_does_not_move_the_threshold() -> None:
    """A question that means a stored fact's to the model, and comes nearer than the keys do."""
    keys, negatives = torch.tensor([0.8, 0.9]), torch.full((2000,), 0.25)
    alike = wise.calibrate(keys, negatives, 0.001, lean=0.5)
    assert alike.threshold == approx(0.525)
    assert (alike.false_fire, alike.false_fire_bound) == (0.0, approx(3 / 2000))
    negatives[1234] = 0.95
    made = wise.calibrate(keys, negatives, 0.001, lean=0.5)
    assert made.threshold == alike.threshold
    assert made.highest_negative == approx(0.95)
    assert (made.false_fire, made.false_fire_bound) == (1 / 2000, approx(4 / 2000))


def test_more_outliers_than_may_fire_raise_the_threshold() -> None:
    negatives = torch.full((2000,), 0.25)
    negatives[:20] = 0.75  # 1 %
    made = wise.calibrate(torch.tensor([0.85]), negatives, 0.001, lean=0.5)
    assert made.threshold == approx(0.8)
    assert wise.calibrate(torch.tensor([0.85]), negatives, 0.1, 0.5).threshold == approx(0.55)


@pytest.mark.parametrize("lean", [0.0, 0.5, 1.0])
def test_where_they_overlap_the_threshold_keeps_the_stated_rate(lean: float) -> None:
    """However low the keys are: it is never below the quantile."""
    negatives = torch.linspace(0, 1, 1001)
    made = wise.calibrate(torch.tensor([0.4]), negatives, false_fire=0.01, lean=lean)
    assert made.threshold == approx(0.99)
    assert made.false_fire == approx(11 / 1001)


@pytest.mark.parametrize(("lean", "expected"), [(0.0, 0.0), (0.5, 0.4), (0.25, 0.2), (1.0, 0.8)])
def test_without_negatives_the_threshold_is_a_share_of_the_lowest_key(
    lean: float, expected: float
) -> None:
    made = wise.calibrate(torch.tensor([0.9, 0.8]), torch.zeros(0), 0.001, lean=lean)
    assert made.threshold == approx(expected)
    assert (made.negatives, made.false_fire, made.highest_negative) == (0, 0.0, 0.0)


def test_without_keys_it_leans_to_a_perfect_match() -> None:
    made = wise.calibrate(torch.zeros(0), torch.tensor([0.2, 0.2]), 0.001, lean=0.5)
    assert made.threshold == approx(0.6)
    assert made.lowest_key == 1.0


def test_the_space_lets_no_dimension_drown_the_others() -> None:
    """One input swings ten thousand times as far as those that tell the questions apart."""
    generator = torch.Generator().manual_seed(0)
    meaning = torch.randn(60, 8, generator=generator).repeat_interleave(6, 0)
    swing = 10_000 * torch.randn(360, 1, generator=generator)
    rows = torch.cat([meaning, swing + 1e5], dim=1)
    label = torch.arange(60).repeat_interleave(6)

    def same_question_nearest(vectors: torch.Tensor) -> float:
        near = (vectors @ vectors.T).fill_diagonal_(-1).argmax(1)
        return float((label[near] == label).float().mean())

    plain = torch.nn.functional.normalize(rows - rows.mean(0), dim=-1)
    assert same_question_nearest(plain) < 0.5
    assert same_question_nearest(wise.fit_space(rows)(rows)) > 0.9


def test_an_input_that_never_moves_does_not_break_the_space() -> None:
    rows = torch.randn(20, 5)
    rows[:, 2] = 3.0
    assert torch.isfinite(wise.fit_space(rows)(rows)).all()


def test_a_map_is_learned_where_enough_questions_teach_it() -> None:
    """Questions differ in few directions of many; unseen ones are told apart in the map."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(24, 400, generator=generator)

    def asked(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        meaning = torch.randn(count, 24, generator=generator).repeat_interleave(4, 0)
        noise = torch.randn(4 * count, 400, generator=generator)
        return meaning @ mix + 7 * noise, torch.arange(count).repeat_interleave(4)

    rows, question = asked(200)
    space = wise.fit_space(rows, question)
    assert space.map is not None and space.width == 128 == space(rows).shape[1]
    again = wise.fit_space(rows, question)
    assert again.map is not None and torch.equal(space.map, again.map)
    unseen, label = asked(100)

    def told_apart(where: wise.Space) -> float:
        """Share of keys nearer to all phrasings of their question than to any other's."""
        near = (where(unseen) @ where(unseen).T).fill_diagonal_(2)
        same = label[:, None] == label[None]
        worst = near.masked_fill(~same, 2).amin(1)
        return float((worst > near.masked_fill(same, -2).amax(1)).float().mean())

    plain = wise.fit_space(rows)
    assert plain.map is None and plain.width == 400
    assert told_apart(space) > max(0.9, told_apart(plain))
    assert wise.fit_space(rows[:80], question[:80]).map is None  # 20 questions teach too little
