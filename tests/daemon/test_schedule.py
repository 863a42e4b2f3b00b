"""When a source is polled next: pure arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from daemon.schedule import Move, after_failure, after_success, is_full_due, move, next_move

HALF_AN_HOUR = timedelta(minutes=30)
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("more", "retry_after", "minutes"),
    [(False, None, 30), (False, 60, 30), (False, 7200, 120), (True, None, 0), (True, 7200, 0)],
)
def test_after_a_good_poll_the_interval_or_what_the_server_asks(
    more: bool, retry_after: float | None, minutes: float
) -> None:
    assert after_success(HALF_AN_HOUR, more, retry_after) == timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("failures", "minutes"),
    [(0, 30), (1, 60), (2, 120), (5, 960), (6, 1440), (7, 1440), (10**9, 1440)],
)
def test_the_backoff_doubles_up_to_a_day(failures: int, minutes: float) -> None:
    assert after_failure(HALF_AN_HOUR, failures, None, 1.0) == timedelta(minutes=minutes)


def test_the_backoff_is_spread_over_its_whole_length_but_for_a_minute() -> None:
    waits = [after_failure(HALF_AN_HOUR, 1, None, chance) for chance in (0.0, 0.25, 0.5, 1.0)]
    assert [wait.total_seconds() / 60 for wait in waits] == [1, 15, 30, 60]


def test_a_failure_waits_at_least_as_long_as_the_server_asks() -> None:
    assert after_failure(HALF_AN_HOUR, 0, 7200, 1.0) == timedelta(hours=2)
    assert after_failure(HALF_AN_HOUR, 0, 60, 1.0) == HALF_AN_HOUR


def test_an_interval_of_more_than_a_day_backs_off_to_a_day() -> None:
    assert after_failure(timedelta(days=7), 3, None, 1.0) == timedelta(days=1)


@pytest.mark.parametrize(
    ("hours", "due"), [(None, True), (0, False), (23.99, False), (24, True), (-1, True)]
)
def test_a_whole_document_is_due_after_a_day_and_when_the_clock_was_set_back(
    hours: float | None, due: bool
) -> None:
    last = None if hours is None else NOW - timedelta(hours=hours)
    assert is_full_due(last, NOW) == due


def test_a_move_is_proposed_when_three_polls_in_a_row_say_the_same() -> None:
    seen = ["a", "a", "b", "b", "b", "b", None, "b"]
    found: list[Move | None] = []
    last: Move | None = None
    for url in seen:
        last = next_move(last, url)
        found.append(last)
    assert [one and (one.url, one.polls) for one in found] == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
        ("b", 2),
        ("b", 3),
        ("b", 4),
        None,
        ("b", 1),
    ]
    assert [one is not None and one.is_proposed for one in found] == [False] * 4 + [
        True,
        True,
        False,
        False,
    ]


def test_a_move_hides_its_url() -> None:
    assert "s3cret" not in repr(move("http://me:s3cret@a.org/", 3))
    assert move(None, 0) is None
