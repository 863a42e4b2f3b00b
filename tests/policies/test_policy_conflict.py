"""Two facts for one slot."""

from datetime import UTC, datetime

import pytest

from policies.conflict import BELIEVED, Outcome, Standing, resolve
from policies.trust import Tier

OLD, NEW = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)


def outcome(new_tier, new_time, held_tier, held_time, held_state="promoted"):
    new = Standing(new_tier, new_time, "received")
    return resolve(new, Standing(held_tier, held_time, held_state)).outcome


@pytest.mark.parametrize(
    ("new", "held", "expected"),
    [
        (Tier.TRUSTED, Tier.TRUSTED, Outcome.SUPERSEDE),
        (Tier.TRUSTED, Tier.UNTRUSTED, Outcome.SUPERSEDE),
        (Tier.NORMAL, Tier.NORMAL, Outcome.SUPERSEDE),
        (Tier.NORMAL, Tier.TRUSTED, Outcome.CONFLICTING),
        (Tier.UNTRUSTED, Tier.NORMAL, Outcome.CONFLICTING),
    ],
)
def test_a_newer_fact_needs_an_equal_or_higher_tier(new, held, expected):
    assert outcome(new, NEW, held, OLD) is expected


@pytest.mark.parametrize("held", Tier)
@pytest.mark.parametrize("new", Tier)
def test_an_older_fact_is_stale_whatever_its_tier(new, held):
    assert outcome(new, OLD, held, NEW) is Outcome.STALE


@pytest.mark.parametrize("held", Tier)
@pytest.mark.parametrize("new", Tier)
def test_two_objects_of_the_same_time_need_a_person(new, held):
    assert outcome(new, NEW, held, NEW) is Outcome.CONFLICTING


@pytest.mark.parametrize("state", ["received", "pending", "quarantined", "conflicting"])
def test_a_claim_that_nobody_accepted_does_not_silence_a_better_tier_by_its_date(state):
    assert outcome(Tier.TRUSTED, OLD, Tier.UNTRUSTED, NEW, state) is Outcome.CONFLICTING
    assert outcome(Tier.NORMAL, OLD, Tier.NORMAL, NEW, state) is Outcome.STALE


@pytest.mark.parametrize("state", sorted(BELIEVED))
def test_an_accepted_fact_stands_against_older_ones(state):
    assert outcome(Tier.TRUSTED, OLD, Tier.UNTRUSTED, NEW, state) is Outcome.STALE


@pytest.mark.parametrize("state", ["superseded", "retracted", "rejected", "failed", "duplicate"])
def test_a_fact_that_gave_up_its_slot_cannot_conflict(state):
    with pytest.raises(ValueError, match=state):
        outcome(Tier.NORMAL, NEW, Tier.NORMAL, OLD, state)


def test_the_reason_names_the_dates():
    resolution = resolve(
        Standing(Tier.NORMAL, NEW, "received"), Standing(Tier.NORMAL, OLD, "promoted")
    )
    assert "2021-01-01" in resolution.reason and "2020-01-01" in resolution.reason
