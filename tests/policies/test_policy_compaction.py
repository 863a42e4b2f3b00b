"""Which shards are rewritten together."""

import math
import random
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.compaction import ShardView, due, level

#: as config.toml has them; the levels then begin at .5, 1/6, 1/18, 1/54, ...
BOUNDS = {"most": 2, "max_dead_share": 0.5}


def shard(fullness, made_in=0, solved=100, live=None):
    """A shard; all of its facts live unless said otherwise."""
    return ShardView(made_in, solved, solved if live is None else live, fullness)


def shards(*fullness):
    """Shards all of whose facts live, each of a release of its own."""
    return [shard(one, made_in) for made_in, one in enumerate(fullness, 1)]


@pytest.mark.parametrize(
    ("most", "fullness", "expected"),
    [
        (2, 7.0, 0),  # too much for a shard by itself
        (2, 0.9, 0),
        (2, 0.5, 0),
        (2, 0.4999, 1),
        (2, 0.1667, 1),
        (2, 0.1666, 2),
        (2, 0.0556, 2),
        (2, 0.0555, 3),
        (2, 0.01, 4),  # 1/54 is .0185, 1/162 is .0062
        (1, 0.5, 0),
        (1, 0.2501, 1),
        (1, 0.2499, 2),
        (1, 0.1251, 2),
        (1, 0.1249, 3),
        (4, 0.1001, 1),
        (4, 0.0999, 2),
        (4, 0.0199, 3),
    ],
)
def test_levels_are_a_factor_of_one_more_than_may_be_apart(most, fullness, expected):
    assert level(shard(fullness), most) == expected


@pytest.mark.parametrize("most", range(1, 10))
def test_a_shard_at_the_edge_is_of_the_fuller_level(most):
    """``most`` + 1 shards of one level still make one of a level above."""
    edge = 0.5 / (most + 1)
    assert level(shard(0.5), most) == 0
    assert level(shard(math.nextafter(0.5, 0)), most) == 1
    assert level(shard(edge), most) == 1
    assert level(shard(math.nextafter(edge, 0)), most) == 2


@pytest.mark.parametrize(
    ("live", "expected"),
    [(100, 0), (50, 0), (49, 1), (17, 1), (16, 2), (6, 2), (5, 3), (1, 4)],
)
def test_a_level_is_that_of_the_facts_that_live(live, expected):
    assert level(shard(1.0, live=live), 2) == expected


@pytest.mark.parametrize("empty", [ShardView(1, 0, 0, 0.0), ShardView(1, 5, 0, 0.9), shard(0.0)])
def test_what_takes_next_to_nothing_is_on_the_lowest_level(empty):
    assert empty.taken == 0
    assert [level(one, 2) for one in (empty, shard(1e-309), shard(1e-6))] == [6, 6, 6]


@pytest.mark.parametrize(
    ("one", "taken"),
    [
        (shard(0.9), 0.9),
        (shard(0.8, solved=8, live=5), 0.5),
        (shard(0.3, live=40), 0.12),
        (shard(3.0, solved=1, live=0), 0.0),
        (ShardView(1, 0, 0, 0.0), 0.0),
    ],
)
def test_live_facts_take_their_share_of_the_fullness(one, taken):
    assert one.taken == pytest.approx(taken, abs=1e-15)


def test_the_dead_share_is_that_of_the_facts_it_was_solved_for_to_the_last_bit():
    assert ShardView(1, 0, 0, 0.0).dead_share == 0.0
    for solved in range(1, 101):
        for live in range(solved + 1):
            share = ShardView(1, solved, live, 0.5).dead_share
            assert share == float(Fraction(solved - live, solved))


@pytest.mark.parametrize(
    "counts",
    [(5, 6, 0.1), (5, -1, 0.1), (-1, -1, 0.1), (5, 5, -0.1), (5, 5, math.nan), (0, 0, math.nan)],
)
def test_counts_and_fullness_that_can_not_be_are_refused(counts):
    with pytest.raises(ValueError, match="facts"):
        ShardView(1, *counts)


def test_nothing_is_due_of_no_shards():
    assert due([], **BOUNDS) == ()


@pytest.mark.parametrize(
    ("fullness", "expected"),
    [
        ((0.3,), ()),
        ((0.3, 0.3), ()),  # exactly as many as may be
        ((0.3, 0.9, 0.3), ()),
        ((0.3, 0.3, 0.3), (0, 1, 2)),
        ((0.3, 0.9, 0.3, 0.5, 0.3), (0, 2, 4)),
        ((0.9, 0.9, 0.5, 0.5, 0.5), ()),  # however many are full enough
        ((0.4, 0.2, 0.4), (0, 1, 2)),  # between 1/6 and 1/2 all are alike
        ((0.4, 0.1, 0.4), ()),
        ((0.4, 0.1, 0.4, 0.1, 0.05, 0.05), ()),  # two a level
        ((0.1, 0.1, 0.1), (0, 1, 2)),
    ],
)
def test_a_level_is_due_when_it_holds_more_than_may_be(fullness, expected):
    assert due(shards(*fullness), **BOUNDS) == expected


@pytest.mark.parametrize(("most", "expected"), [(1, (0, 1, 2)), (2, (0, 1, 2)), (3, ()), (9, ())])
def test_how_many_there_may_be_is_an_argument(most, expected):
    assert due(shards(0.3, 0.4, 0.3, 0.9), most, 0.5) == expected


@pytest.mark.parametrize(
    ("fullness", "expected"),
    [
        ((0.4, 0.1, 0.1, 0.9, 0.1), (1, 2, 4)),
        ((0.4, 0.1, 0.1, 0.1, 0.03), (1, 2, 3, 4)),
        ((0.03, 0.1, 0.3, 0.3, 0.9, 0.3), (0, 1, 2, 3, 5)),
        ((0.3, 0.03, 0.03, 0.1, 0.03), (1, 2, 4)),
        # two levels are crowded: the fuller one says how far it goes
        ((0.03, 0.03, 0.03, 0.1, 0.1, 0.1, 0.3), (0, 1, 2, 3, 4, 5)),
        ((0.03, 0.03, 0.03, 0.1, 0.3, 0.3, 0.3), (0, 1, 2, 3, 4, 5, 6)),
    ],
)
def test_a_crowded_level_takes_the_emptier_ones_with_it_but_not_the_fuller(fullness, expected):
    assert due(shards(*fullness), **BOUNDS) == expected


def test_shards_of_which_nothing_lives_go_with_any_crowded_level_and_are_one_of_their_own():
    none = [shard(0.9, made_in, live=0) for made_in in (7, 8, 9)]
    assert due([none[0], *shards(0.9, 0.3)], 2, 1.0) == ()
    assert due([none[0], *shards(0.3, 0.3, 0.3)], 2, 1.0) == (0, 1, 2, 3)
    assert due([*none, *shards(0.3, 0.9)], 2, 1.0) == (0, 1, 2)


@pytest.mark.parametrize("fullness", [0.3, 0.1, 0.0])
def test_shards_that_all_come_from_one_release_are_left_alone(fullness):
    """One release had to spread its facts over them: they don't fit together."""
    spread = [shard(fullness, made_in=4) for _ in range(5)]
    assert due(spread, **BOUNDS) == ()
    assert due([shard(0.9, made_in=3), *spread], **BOUNDS) == ()


def test_one_shard_of_another_release_is_enough_for_all_to_go():
    spread = [shard(0.3, made_in=4) for _ in range(3)]
    assert due([shard(0.4, made_in=5), *spread], **BOUNDS) == (0, 1, 2, 3)
    assert due([*spread, shard(0.01, made_in=5)], **BOUNDS) == (0, 1, 2, 3)
    assert due([*spread, shard(0.9, made_in=5)], **BOUNDS) == ()


@pytest.mark.parametrize(
    ("live", "expected"), [(100, ()), (51, ()), (50, ()), (49, (1,)), (1, (1,)), (0, (1,))]
)
def test_a_shard_is_due_when_more_than_half_of_its_facts_are_dead(live, expected):
    assert due([shard(0.9, 1), shard(0.9, 2, live=live)], **BOUNDS) == expected


@pytest.mark.parametrize(
    ("solved", "most_dead"),
    [(8, 0.25), (10, 0.2), (10, 0.3), (10, 0.7), (20, 0.15), (100, 0.29), (100, 0.5), (100, 0.57)],
)
def test_a_share_that_is_exactly_the_bound_is_not_past_it(solved, most_dead):
    at = solved - round(solved * most_dead)
    assert due([shard(1.0, solved=solved, live=at - 1)], 2, most_dead) == (0,)
    assert due([shard(1.0, solved=solved, live=at)], 2, most_dead) == ()


DEAD = ShardView(9, 100, 40, 0.9)  # its live facts take .36


def test_a_shard_that_is_dead_goes_alone_while_its_level_is_not_crowded():
    assert due([shard(0.3, 1), DEAD, shard(0.9, 2)], **BOUNDS) == (1,)


def test_a_shard_that_is_dead_crowds_the_level_of_its_live_facts():
    assert due([shard(0.3, 1), DEAD, shard(0.9, 2), shard(0.3, 3)], **BOUNDS) == (0, 1, 3)


def test_a_shard_that_is_dead_but_full_enough_goes_with_a_crowded_level():
    dead = shard(0.9, 9, live=70)  # its live facts take .63
    some = shards(0.3, 0.9, 0.3, 0.3)
    assert due([some[0], dead, *some[1:]], 2, 0.25) == (0, 1, 3, 4)


def test_dead_shards_go_even_if_all_come_from_one_release():
    spread = [shard(0.3, made_in=4), shard(0.9, made_in=4), shard(0.9, made_in=4, live=40)]
    assert due(spread, **BOUNDS) == (2,)


def test_shards_of_one_release_are_no_longer_left_alone_when_one_of_their_facts_has_died():
    spread = [shard(0.3, made_in=4), shard(0.3, made_in=4), shard(0.3, made_in=4, live=99)]
    assert due(spread, **BOUNDS) == (0, 1, 2)


@st.composite
def views(draw):
    solved = draw(st.integers(0, 200))
    fullness = draw(st.just(0.0) | st.floats(1e-9, 3))
    return ShardView(draw(st.integers(0, 3)), solved, draw(st.integers(0, solved)), fullness)


@given(st.lists(views()), st.integers(1, 6), st.floats(0, 1))
def test_positions_rise_and_hold_all_that_is_dead_but_nothing_else_that_is_full_enough(
    held, most, most_dead
):
    found = due(held, most, most_dead)
    assert list(found) == sorted(set(found))
    assert all(0 <= position < len(held) for position in found)
    for position, one in enumerate(held):
        if one.solved - one.live > (most_dead + 1e-9) * one.solved:
            assert position in found
        elif one.solved and one.fullness * one.live >= (0.5 + 1e-9) * one.solved:
            assert position not in found


@given(st.data())
def test_levels_are_rewritten_from_the_fullest_crowded_one_on(data):
    """Each shard is drawn into a level, off its edges, so that the level is known."""
    most = data.draw(st.integers(1, 5))
    levels = data.draw(st.lists(st.integers(0, 4), max_size=20))
    within = st.floats(0.1, 0.9).map(lambda way: (most + 1) ** -way)
    fullness = [0.5 * (most + 1) ** (1 - one) * data.draw(within) for one in levels]
    crowded = [one for one, count in Counter(levels).items() if one > 0 and count > most]
    found = due(shards(*fullness), most, 0.5)
    assert found == tuple(i for i, one in enumerate(levels) if crowded and one >= min(crowded))


@given(st.lists(views()), st.integers(1, 6))
def test_shards_of_one_release_of_which_all_live_are_never_due(held, most):
    assert due([ShardView(1, v.solved, v.solved, v.fullness) for v in held], most, 0.5) == ()


@dataclass
class Solved:
    """A shard of the simulated stream."""

    made_in: int
    live: set[int]
    solved: int
    fullness: float

    def view(self):
        return ShardView(self.made_in, self.solved, len(self.live), self.fullness)

    @property
    def taken(self):
        """What its live facts take, as each takes the same."""
        return self.fullness * len(self.live) / self.solved


class Stream:
    """Batches of facts; some facts die; what is due is rewritten until nothing is."""

    def __init__(self, batch, most, most_dead=0.5, seed=0, facts=10):
        self.batch, self.most, self.most_dead, self.facts = batch, most, most_dead, facts
        self.rng = random.Random(seed)
        self.shards: list[Solved] = []
        self.added = self.died = self.releases = 0
        self.rewritten: Counter[int] = Counter()  # how often each fact was

    def step(self, deaths=0.0):
        """Let each fact die with a probability of ``deaths``, add a batch and compact."""
        for one in self.shards:
            gone = {fact for fact in sorted(one.live) if self.rng.random() < deaths}
            one.live -= gone
            self.died += len(gone)
        self.shards = [one for one in self.shards if one.live]  # as in Release.without
        new = set(range(self.added, self.added + self.facts))
        self.shards.append(Solved(self.release(), new, self.facts, self.batch))
        self.added += self.facts
        # A round leaves one small shard of several, or none; or makes a dead one whole.
        for _ in range(3 * len(self.shards)):
            if not self.compact():
                return
        raise AssertionError("compaction does not end")

    def release(self):
        self.releases += 1
        return self.releases

    def compact(self):
        """Rewrite what is due; False when nothing is."""
        positions = due([s.view() for s in self.shards], self.most, self.most_dead)
        if not positions:
            return False
        old = [self.shards[position] for position in positions]
        held = sorted(fact for one in old for fact in one.live)
        self.rewritten.update(held)
        taken = sum(one.taken for one in old)
        count, made_in = math.ceil(taken), self.release()
        parts = [set(held[start::count]) for start in range(count)]
        kept = [one for i, one in enumerate(self.shards) if i not in positions]
        made = (Solved(made_in, part, len(part), taken / count) for part in parts)
        self.shards = [*kept, *made]
        return True

    def small(self):
        return [one for one in self.shards if one.taken < 0.5 - 1e-9]


def test_batches_of_a_third_are_rewritten_once():
    stream = Stream(0.3, most=2)
    for _ in range(100):
        stream.step()
    assert set(stream.rewritten.values()) == {1}
    # 33 times three batches in a shard that is .9 full, and the newest
    assert [one.solved for one in stream.shards] == [30] * 33 + [10]


def test_batches_of_a_tenth_are_rewritten_twice():
    """Three make a shard that is .3 full, three of these one that is .9 full."""
    stream = Stream(0.1, most=2)
    for _ in range(100):
        stream.step()
    assert set(stream.rewritten.values()) == {2}
    assert [one.solved for one in stream.shards] == [90] * 11 + [10]
    assert sum(stream.rewritten.values()) == 2 * 990


#: levels below the full one that a batch may be on, by how full it is and how many a level may
#: hold: at 2 they begin at .5, .167, .056 and .0185
LEVELS = {
    (1, 0.3): 1,
    (1, 0.1): 3,
    (1, 0.03): 5,
    (1, 0.01): 6,
    (2, 0.3): 1,
    (2, 0.1): 2,
    (2, 0.03): 3,
    (2, 0.01): 4,
    (5, 0.3): 1,
    (5, 0.1): 1,
    (5, 0.03): 2,
    (5, 0.01): 3,
}


@pytest.mark.parametrize(("most", "batch"), LEVELS)
def test_without_deaths_a_fact_is_rewritten_once_a_level_at_most(most, batch):
    levels = LEVELS[most, batch]
    assert levels <= 1 + math.log(0.5 / batch, most + 1) < levels + 1
    stream = Stream(batch, most)
    for _ in range(300):
        stream.step()
        assert len(stream.small()) <= most * levels
    assert stream.rewritten.most_common(1)[0][1] <= levels
    assert sum(one.taken for one in stream.shards) == pytest.approx(300 * batch)
    assert sum(len(one.live) for one in stream.shards) == 3000


@given(st.sampled_from(sorted(LEVELS)), st.floats(0.5, 1), st.floats(0, 0.6), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_change_costs_the_same_however_much_is_held(at, most_dead, deaths, seed):
    """Each fact pays for a rewrite a level when it comes, and for as many of others when it dies.

    A shard is rewritten for its dead when they are as many as the living, and falls by a level
    when a part of it has died that doesn't depend on what the others hold.
    """
    most, batch = at
    stream = Stream(batch, most, most_dead, seed)
    for _ in range(60):
        stream.step(deaths)
        assert stream.rewritten.total() <= (LEVELS[at] + 1) * (stream.added + stream.died)


@given(st.sampled_from(sorted(LEVELS)), st.floats(0, 1), st.floats(0, 0.6), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_after_compaction_no_shard_has_more_dead_than_may_be(at, most_dead, deaths, seed):
    """Even where none may be dead compaction ends, see `Stream.step`."""
    most, batch = at
    stream = Stream(batch, most, most_dead, seed)
    for _ in range(30):
        stream.step(deaths)
        for one in stream.shards:
            assert one.solved - len(one.live) <= (most_dead + 1e-9) * one.solved
    assert sum(len(one.live) for one in stream.shards) == stream.added - stream.died
