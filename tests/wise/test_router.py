"""The router's parts: space, key table, threshold."""

from __future__ import annotations

import torch
from pytest import approx

import wise
from wise.router import best_match


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


def test_prototypes_drop_what_a_kept_key_covers_but_never_across_facts() -> None:
    vectors = unit([[1, 0], [1, 0.01], [0, 1], [1, 0]])
    kept = wise.prototypes(vectors, torch.tensor([0, 0, 0, 1]), like=0.99)
    assert kept.fact.tolist() == [0, 0, 1]
    assert torch.equal(kept.vectors, vectors[[0, 2, 3]])


def test_the_threshold_lies_between_negatives_and_keys() -> None:
    made = wise.calibrate(torch.tensor([0.9, 0.95]), torch.tensor([0.1, 0.5]), 0.001, lean=0.25)
    assert made.threshold == approx(0.5 + 0.25 * 0.4)
    assert (made.false_fire, made.negatives) == (0.0, 2)
    assert made.false_fire_bound == approx(3 / 2)


def test_where_they_overlap_the_threshold_keeps_the_stated_rate() -> None:
    negatives = torch.linspace(0, 1, 1001)
    made = wise.calibrate(torch.tensor([0.4]), negatives, false_fire=0.01, lean=0.25)
    assert made.threshold == approx(0.99)
    assert made.false_fire == approx(11 / 1001)


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
