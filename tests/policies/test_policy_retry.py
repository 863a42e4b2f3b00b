from datetime import timedelta

import pytest

from policies.retry import wait_after

TEN = timedelta(minutes=10)


@pytest.mark.parametrize(
    ("failures", "chance", "minutes"),
    [(1, 0, 10), (2, 0, 20), (3, 0, 40), (3, 1, 20), (3, 0.5, 30), (9, 0, 1440), (500, 0, 1440)],
)
def test_the_wait_doubles_up_to_a_day_and_chance_takes_up_to_half(failures, chance, minutes):
    assert wait_after(failures, TEN, chance) == timedelta(minutes=minutes)


def test_no_wait_stays_none():
    assert wait_after(7, timedelta(0), 0.5) == timedelta(0)
