"""Some shards of a release are rewritten; the rest of it, and what is routed, stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import handmade
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from routed import FIRST, Bench

import wise

IDS = (11, 12, 40, 41, 57, 60)
HOMES = (0, 1, 2, 2, 3, 0)  # of each fact
SOLVED = (3, 1, 4, 1)  # the first and the third shard were solved for facts that are gone


def shard(value: float, columns: tuple[int, ...] = (0, 2, 5)) -> wise.Shard:
    """A change that tells by its values which it is."""
    delta = torch.full((4, len(columns)), value, dtype=torch.bfloat16)
    return wise.Shard(torch.tensor(columns), delta)


def release() -> wise.Release:
    """Six facts in four shards, whose values are 1 to 4; a key for each fact, two for the last."""
    base = handmade.keyed()
    vectors = torch.nn.functional.normalize(torch.arange(21.0).reshape(7, 3).sin())
    memory = replace(
        base.memory,
        shards=tuple(shard(value) for value in (1.0, 2.0, 3.0, 4.0)),
        keys=wise.Keys(vectors, torch.tensor([0, 1, 2, 3, 4, 5, 5])),
        span=torch.tensor([2, 3, 1, 4, 2, 2]),
        shard_of=torch.tensor(HOMES),
    )
    return replace(base, memory=memory, fact_ids=IDS, shard_facts=SOLVED)


def values(one: wise.Release) -> list[float]:
    """What tells each shard from the others, in order."""
    return [float(shard.delta[0, 0]) for shard in one.memory.shards]


def same(one: wise.Release, other: wise.Release) -> bool:
    """Tell whether two releases are the same in every field and bit."""
    mine, theirs = one._tensors(), other._tensors()
    return (
        one._config() == other._config()
        and mine.keys() == theirs.keys()
        and all(
            tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name])
            for name, tensor in mine.items()
        )
    )


def test_shards_that_stay_come_first_and_facts_point_to_where_they_are_now() -> None:
    new = (shard(8.0, (1, 2)), shard(9.0, (0, 3)))
    made = release().rewritten([0, 2], new, {11: 1, 40: 0, 41: 1, 60: 0})
    assert values(made) == [2.0, 4.0, 8.0, 9.0]
    # 11 in the second new shard, 12 and 57 where they were, 40 and 60 in the first new one, ...
    assert made.memory.shard_of.tolist() == [3, 0, 2, 3, 1, 2]
    assert made.memory.shard_of.dtype == torch.long
    assert made.shard_facts == (1, 1, 2, 2)


@pytest.mark.parametrize("positions", [[2, 0], (0, 2), {0, 2}, frozenset({2, 0}), [0, 2, 2]])
def test_in_which_order_positions_are_named_changes_nothing(positions: Any) -> None:
    made = release().rewritten(positions, [shard(9.0)], {11: 0, 40: 0, 41: 0, 60: 0})
    assert values(made) == [2.0, 4.0, 9.0]
    assert made.memory.shard_of.tolist() == [2, 0, 2, 2, 1, 2]
    assert made.shard_facts == (1, 1, 4)


def test_all_else_stays_as_it_is_bit_for_bit() -> None:
    before, reference = release(), release()
    made = before.rewritten([1, 2], [shard(9.0)], {12: 0, 40: 0, 41: 0})
    old, new = reference.memory, made.memory
    for place, stays in enumerate((0, 3)):
        assert torch.equal(new.shards[place].delta, old.shards[stays].delta)
        assert torch.equal(new.shards[place].columns, old.shards[stays].columns)
    assert torch.equal(new.keys.vectors, old.keys.vectors)
    assert torch.equal(new.keys.fact, old.keys.fact)
    assert torch.equal(new.span, old.span)
    assert torch.equal(new.space.center, old.space.center)
    assert torch.equal(new.space.scale, old.space.scale)
    assert torch.equal(new.space.map, old.space.map)
    assert new.threshold == old.threshold
    for name in ("site", "fact_ids", "base_name", "base_sha256", "calibration"):
        assert getattr(made, name) == getattr(reference, name)
    assert same(before, reference)  # a release doesn't change


def test_a_new_shard_is_taken_as_it_is() -> None:
    new = wise.Shard(torch.tensor([1, 4]), torch.randn(4, 2).to(torch.bfloat16))
    made = release().rewritten([3], [new], {57: 0})
    assert torch.equal(made.memory.shards[-1].delta, new.delta)
    assert made.memory.shards[-1].columns.tolist() == [1, 4]


def test_a_rewritten_shard_was_solved_for_what_lives_alone() -> None:
    before = release()
    assert before.holds_dropped
    once = before.rewritten([0], [shard(9.0)], {11: 0, 60: 0})
    assert once.shard_facts == (1, 4, 1, 2)
    assert once.holds_dropped  # another shard does still
    twice = once.rewritten([1], [shard(9.5)], {40: 0, 41: 0})
    assert twice.shard_facts == (1, 1, 2, 2)
    assert not twice.holds_dropped


def test_no_position_and_no_shard_leave_the_release_as_it_was() -> None:
    assert same(release().rewritten([], [], {}), release())


def test_a_shard_that_holds_nothing_may_go_for_nothing() -> None:
    base = release()
    empty = replace(base.memory, shards=(*base.memory.shards, shard(5.0)))
    made = replace(base, memory=empty, shard_facts=(*SOLVED, 2)).rewritten([4], [], {})
    assert same(made, release())


def test_what_is_said_of_facts_that_stay_is_not_heard() -> None:
    made = release().rewritten([3], [shard(9.0)], {57: 0, 12: 0, 99: 0})
    assert made.memory.shard_of.tolist() == [0, 1, 2, 2, 3, 0]
    assert made.shard_facts == (3, 1, 4, 1)


@pytest.mark.parametrize(
    ("shards", "holds"),
    [
        (1, {40: 0}),  # 41 is in the same shard
        (1, {40: 0, 41: 1}),  # there is no second shard
        (1, {40: 0, 41: -1}),
        (0, {}),
        (0, {40: 0, 41: 0}),
    ],
)
def test_a_fact_that_would_be_in_no_shard_is_refused(shards: int, holds: dict[int, int]) -> None:
    with pytest.raises(ValueError, match=r"fact 4[01] would be in no shard"):
        release().rewritten([2], [shard(9.0)] * shards, holds)


@pytest.mark.parametrize(
    ("positions", "odd"), [([4], 4), ([0, 4], 4), ({9, 2, 7}, 7), ([-1], -1), ((9, 0, -2), -2)]
)
def test_a_position_that_there_is_no_shard_at_is_refused(positions: Any, odd: int) -> None:
    """A negative one would not be counted from the end, and leave what it means as it was."""
    base = release()
    with pytest.raises(ValueError, match=f"there is no shard {odd}$"):
        base.rewritten(positions, [shard(9.0)], {fact: 0 for fact in IDS})
    assert same(base, release())


def test_the_papers_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="paper's memory"):
        handmade.published().rewritten([0], [], {})


def test_saved_and_loaded_again_it_is_the_same(tmp_path: Path) -> None:
    made = release().rewritten([0, 2], [shard(8.0, (1, 2))], {11: 0, 40: 0, 41: 0, 60: 0})
    handmade.write(made, tmp_path / "release")
    loaded = wise.Release.load(tmp_path / "release")
    assert same(loaded, made)
    assert (loaded.fact_ids, loaded.shard_facts) == (IDS, (1, 1, 4))
    assert values(loaded) == [2.0, 4.0, 8.0]
    assert loaded.memory.shard_of.tolist() == [2, 0, 2, 2, 1, 2]


@given(st.data())
def test_each_fact_is_in_the_shard_that_it_was_put_in_or_in_its_old_one(
    data: st.DataObject,
) -> None:
    positions = data.draw(st.sets(st.integers(0, 3)))
    count = data.draw(st.integers(1, 4))
    gone = [fact for fact, home in zip(IDS, HOMES, strict=True) if home in positions]
    holds = {fact: data.draw(st.integers(0, count - 1)) for fact in gone}
    made = release().rewritten(positions, [shard(10.0 + new) for new in range(count)], holds)
    now = values(made)
    assert now == [1.0 + old for old in range(4) if old not in positions] + [
        10.0 + new for new in range(count)
    ]
    for fact, home, place in zip(IDS, HOMES, made.memory.shard_of.tolist(), strict=True):
        assert now[place] == (10.0 + holds[fact] if fact in holds else 1.0 + home)
    for value, solved in zip(now, made.shard_facts, strict=True):
        new = sum(10.0 + at == value for at in holds.values())
        assert solved == (new if value >= 10 else SOLVED[int(value) - 1])


@pytest.mark.parametrize(
    ("positions", "holds", "homes"),
    [
        ([0], {1: 0, 3: 0}, [1, 0, 1, 0]),
        ([1], {2: 0, 4: 0}, [0, 1, 0, 1]),
        ([0, 1], {1: 1, 2: 0, 3: 1, 4: 0}, [1, 0, 1, 0]),
    ],
    ids=["the first", "the second", "both"],
)
@pytest.mark.usefixtures("no_gradients")
def test_the_same_changes_in_new_places_give_the_same_logits(
    bench: Bench, positions: list[int], holds: dict[int, int], homes: list[int]
) -> None:
    """Written into other places with the very values that they had."""
    calibration = replace(handmade.CALIBRATION, threshold=bench.memory.threshold)
    before = wise.Release(
        bench.site, bench.memory, (1, 2, 3, 4), "tiny", "0" * 64, calibration, (2, 2)
    )
    copies = [
        wise.Shard(bench.memory.shards[old].columns.clone(), bench.memory.shards[old].delta.clone())
        for old in sorted(positions, reverse=len(positions) > 1)
    ]
    made = before.rewritten(positions, copies, holds)
    assert made.memory.shard_of.tolist() == homes
    assert made.shard_facts == (2, 2)
    with bench.attached() as attached, attached.watched() as seen:
        expected = bench.model(FIRST).logits
    held = bench.memory.shard_of[seen[0].nearest[seen[0].active]]
    assert held.unique().tolist() == [0, 1]  # both shards answer here
    with replace(bench, memory=made.memory).attached():
        assert torch.equal(bench.model(FIRST).logits, expected)
    assert not torch.equal(bench.model(FIRST).logits, expected)
