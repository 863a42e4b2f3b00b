from datetime import UTC, datetime, timedelta

import pytest

from policies.probation import Probation

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
RULE = Probation(HOUR, timedelta(minutes=10), 0.9)


@pytest.mark.parametrize(
    ("minutes", "last", "due"),
    [
        (0, None, True),
        (60, None, True),
        (61, None, False),
        (30, 25, False),
        (30, 20, True),
        (30, 31, True),  # the clock was set back
    ],
)
def test_a_check_is_due_each_period_of_the_window(minutes, last, due):
    before = None if last is None else AT + timedelta(minutes=last)
    assert RULE.is_due(AT, before, AT + timedelta(minutes=minutes)) is due


def test_without_a_window_nothing_is_checked():
    assert not Probation(timedelta(0), timedelta(minutes=1), 0.9).is_due(AT, None, AT)


@pytest.mark.parametrize(
    ("same", "asked", "failed"), [(9, 10, False), (8, 10, True), (0, 0, False), (0, 1, True)]
)
def test_too_few_answers_as_recorded_fail(same, asked, failed):
    assert RULE.is_failed(same, asked) is failed
