"""What a sample says about the whole it was drawn from."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.sampling import interval

Z = 1.959963984540054  # 97.5 % of the standard normal distribution lie below


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_of_the_textbook(right, asked, low, high):
    assert interval(right, asked) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("right", [0, 3, 7, 10])
def test_a_sample_of_all_leaves_no_doubt(right):
    assert interval(right, 10, whole=10) == (right / 10, right / 10)


def test_nothing_asked_leaves_everything_possible():
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(0, 0, whole=430) == (0.0, 1.0)
    assert interval(0, 0, whole=0) == (0.0, 1.0)


def test_100_of_430_say_as_much_as_130_of_many():
    """The correction is (430 - 1) / (430 - 100) = 1.3, and 90 of 100 is 117 of 130."""
    assert interval(90, 100, whole=430) == pytest.approx(interval(117, 130), abs=1e-12)


def test_one_of_a_whole_says_as_much_as_one_of_many():
    assert interval(1, 1, whole=7) == pytest.approx(interval(1, 1), abs=1e-12)


def test_the_larger_the_part_that_was_asked_the_narrower():
    widths = []
    for whole in (None, 10**6, 1000, 430, 200, 110, 101, 100):
        low, high = interval(97, 100, whole)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == len(widths)
    assert widths[-1] == 0


@pytest.mark.parametrize(
    "counts", [(11, 10), (-1, 10), (0, -1), (-2, -1), (5, 10, 9), (0, 1, 0), (0, 0, -1)]
)
def test_counts_that_can_not_be_are_refused(counts):
    with pytest.raises(ValueError, match="cannot be"):
        interval(*counts)


@given(st.data())
def test_the_ends_are_where_the_share_is_just_z_deviations_away(data):
    """That is Wilson's definition: (p - t)^2 = z^2 t (1 - t) / n, n as the whole corrects it."""
    asked = data.draw(st.integers(1, 500))
    whole = data.draw(st.none() | st.integers(asked + 1, 5000))
    right = data.draw(st.integers(0, asked))
    low, high = interval(right, asked, whole)
    share = right / asked
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    left_over = 1.0 if whole is None else (whole - asked) / (whole - 1)
    for end in (low, high):
        deviation = math.sqrt(end * (1 - end) / asked * left_over)
        assert abs(share - end) == pytest.approx(Z * deviation, abs=1e-6)


@given(st.integers(0, 300), st.integers(0, 300))
def test_right_and_wrong_mirror_each_other(right, wrong):
    low, high = interval(right, right + wrong)
    assert interval(wrong, right + wrong) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_the_true_share_is_within_the_interval_of_most_samples():
    """Every sample of 100 of 430, weighed by how often it is drawn, for every true share.

    417 of 430, 97 %, is the worst: a sample without a wrong one puts the share above .971.
    """
    found = [interval(right, 100, whole=430) for right in range(101)]
    covered = []
    for true in range(431):
        ways = sum(
            math.comb(true, right) * math.comb(430 - true, 100 - right)
            for right, (low, high) in enumerate(found)
            if low <= true / 430 <= high
        )
        covered.append(ways / math.comb(430, 100))
    assert sorted(range(431), key=covered.__getitem__)[:2] in ([13, 417], [417, 13])
    assert min(covered) > 0.91
    assert sorted(covered)[2] > 0.93
    assert sum(covered) / 431 > 0.95


@pytest.mark.parametrize("right", [418, 416, 215])  # 97 % and half
def test_samples_that_are_drawn_bear_that_out(right):
    whole = [True] * right + [False] * (430 - right)
    rng = random.Random(7)
    covered = 0
    for _ in range(1000):
        low, high = interval(sum(rng.sample(whole, 100)), 100, whole=430)
        covered += low <= right / 430 <= high
    assert covered / 1000 >= 0.92
