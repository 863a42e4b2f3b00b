"""Which releases may go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.retention import ReleaseView, prunable

STATES = ["promoted", "previous", "refused", "building", "candidate", "verified", "retired"]


def test_old_releases_go_and_the_newest_stay():
    releases = [ReleaseView(number, "refused") for number in (3, 1, 4, 2, 5)]
    assert prunable(releases, keep=2) == [1, 2, 3]
    assert prunable(releases, keep=9) == []


def test_what_is_in_use_in_reserve_pinned_or_unfinished_stays():
    releases = [
        ReleaseView(0, "refused"),
        ReleaseView(1, "promoted"),
        ReleaseView(2, "previous"),
        ReleaseView(3, "refused", pinned=True),
        ReleaseView(4, "refused"),
        ReleaseView(5, "building"),
        ReleaseView(6, "candidate"),
        ReleaseView(7, "verified"),
    ]
    assert prunable(releases, keep=0) == [4]


def test_a_negative_number_to_keep_is_refused():
    with pytest.raises(ValueError):
        prunable([], keep=-1)


@given(
    st.lists(
        st.builds(ReleaseView, st.integers(0, 40), st.sampled_from(STATES), st.booleans()),
        unique_by=lambda one: one.number,
    ),
    st.integers(0, 10),
)
def test_pruning_never_touches_what_is_needed_and_keeps_enough(releases, keep):
    gone = set(prunable(releases, keep))
    left = [one for one in releases if one.number not in gone]
    for one in releases:
        if one.number == 0 or one.pinned or one.state in ("promoted", "previous"):
            assert one in left
    newest = sorted((one.number for one in releases if one.number), reverse=True)[:keep]
    assert not gone & set(newest)
