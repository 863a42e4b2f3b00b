"""Whose facts are dropped when there are too many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.quota import Drop, Queue, Quota, Quotas, drops, over_day, room
from policies.trust import Tier

TRUSTED, NORMAL, UNTRUSTED = Tier.TRUSTED, Tier.NORMAL, Tier.UNTRUSTED


def quotas(all_=100, source=1000, day=1000):
    return Quotas(all_, source, day)


def test_nothing_is_dropped_up_to_the_quotas():
    queues = [Queue(1, UNTRUSTED, 60), Queue(2, TRUSTED, 40)]
    assert drops(queues, quotas(100, 60)) == ()
    assert drops([], quotas()) == ()


def test_a_source_loses_what_is_over_its_own_quota_whatever_its_tier():
    queues = [Queue(1, TRUSTED, 61), Queue(2, UNTRUSTED, 60), Queue(3, NORMAL, 70)]
    assert drops(queues, quotas(1000, 60)) == (
        Drop(1, 1, Quota.SOURCE),
        Drop(3, 10, Quota.SOURCE),
    )


def test_the_least_trusted_tier_loses_first_and_the_next_only_when_that_is_not_enough():
    queues = [Queue(1, TRUSTED, 80), Queue(2, NORMAL, 50), Queue(3, UNTRUSTED, 20)]
    assert drops(queues, quotas(140)) == (Drop(3, 10, Quota.ALL),)
    assert drops(queues, quotas(100)) == (Drop(3, 20, Quota.ALL), Drop(2, 30, Quota.ALL))
    assert drops(queues, quotas(79)) == (
        Drop(3, 20, Quota.ALL),
        Drop(2, 50, Quota.ALL),
        Drop(1, 1, Quota.ALL),
    )


def test_within_a_tier_the_one_that_floods_loses_and_the_others_do_not():
    queues = [Queue(1, UNTRUSTED, 5), Queue(2, UNTRUSTED, 900), Queue(3, UNTRUSTED, 30)]
    assert drops(queues, quotas(100)) == (Drop(2, 835, Quota.ALL),)


def test_several_that_flood_are_levelled():
    """900 + 700 + 10 down to 100: 45 + 45 + 10."""
    queues = [Queue(1, UNTRUSTED, 900), Queue(2, UNTRUSTED, 10), Queue(3, UNTRUSTED, 700)]
    assert drops(queues, quotas(100)) == (Drop(1, 855, Quota.ALL), Drop(3, 655, Quota.ALL))


def test_what_cannot_be_shared_out_evenly_is_taken_from_the_source_added_last():
    queues = [Queue(2, NORMAL, 10), Queue(1, NORMAL, 10)]
    assert drops(queues, quotas(19)) == (Drop(2, 1, Quota.ALL),)


def test_the_own_quota_comes_first_so_that_a_flood_pushes_out_nobody():
    queues = [Queue(1, UNTRUSTED, 95), Queue(2, UNTRUSTED, 5), Queue(3, TRUSTED, 40)]
    assert drops(queues, quotas(100, 50)) == (Drop(1, 45, Quota.SOURCE),)


@given(
    st.lists(st.tuples(st.sampled_from(list(Tier)), st.integers(0, 60)), max_size=8),
    st.integers(1, 150),
    st.integers(1, 50),
)
def test_as_many_are_dropped_as_needed_and_no_more_and_never_a_tier_too_high(sizes, most, each):
    queues = [Queue(place, tier, count) for place, (tier, count) in enumerate(sizes, 1)]
    lost = dict.fromkeys(range(1, len(queues) + 1), 0)
    capped = dict(lost)
    for drop in drops(queues, quotas(most, each)):
        assert drop.facts > 0
        lost[drop.source] += drop.facts
        if drop.quota is Quota.SOURCE:
            capped[drop.source] += drop.facts
    left = {q.source: q.undecided - lost[q.source] for q in queues}
    assert all(0 <= count <= each for count in left.values())
    assert capped == {q.source: max(0, q.undecided - each) for q in queues}
    assert sum(left.values()) == min(most, sum(min(q.undecided, each) for q in queues))
    for hit in queues:
        if lost[hit.source] > capped[hit.source]:
            for other in queues:
                if other.tier.rank < hit.tier.rank:
                    assert left[other.source] == 0
                if other.tier is hit.tier:  # nobody is left with more than one who was cut
                    assert left[other.source] <= left[hit.source] + 1


@pytest.mark.parametrize(
    ("brought", "new", "late"), [(0, 10, 0), (5, 5, 0), (5, 6, 1), (10, 4, 4), (12, 3, 3)]
)
def test_what_comes_over_a_days_quota_is_too_late(brought, new, late):
    assert over_day(brought, new, quotas(day=10)) == late


@pytest.mark.parametrize(
    ("brought", "untriaged", "expected"),
    [
        (0, 0, (4, None)),
        (0, 3, (1, None)),
        (0, 4, (0, None)),
        (0, 9, (0, None)),
        (8, 0, (2, None)),
        (10, 0, (0, Quota.DAY)),
        (11, 9, (0, Quota.DAY)),
    ],
)
def test_a_log_is_read_as_far_as_its_day_and_triage_have_room(brought, untriaged, expected):
    assert room(brought, untriaged, quotas(day=10), per_poll=4) == expected


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_a_quota_that_lets_nothing_in_is_refused(numbers):
    with pytest.raises(ValueError, match="at least 1"):
        Quotas(*numbers)


def test_each_quota_is_named_as_its_key():
    assert [quotas(1, 2, 3).of(one) for one in Quota] == [1, 2, 3]
