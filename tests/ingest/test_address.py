"""The connect-time guard's clocks and counts; what it refuses is in test_hostile_fetches.py."""

import httpcore2
import pytest

from ingest import address
from ingest.address import Deadline, HeadBudget, resolve
from ingest.errors import FetchError


def test_a_resolver_that_never_answers_ends_in_a_timeout(monkeypatch):
    monkeypatch.setattr(address, "_lookup", lambda *_: None)
    with pytest.raises(httpcore2.ConnectTimeout):
        resolve("slow.example", 80, timeout=0.05)


def test_an_overlong_label_does_not_resolve_rather_than_crash():
    with pytest.raises(httpcore2.ConnectError):
        resolve("a" * 70 + ".example", 80, timeout=5)


def test_the_deadline_clips_timeouts_and_then_ends():
    time = [0.0]
    deadline = Deadline(10, clock=lambda: time[0])
    assert deadline.clip(None) == 10
    assert deadline.clip(3) == 3
    time[0] = 8
    assert deadline.clip(3) == 2
    time[0] = 10
    with pytest.raises(httpcore2.ReadTimeout):
        deadline.clip(3)


def test_the_head_of_an_answer_has_a_budget_and_its_body_has_none():
    head = HeadBudget(10)
    assert head.clip(64) == 64
    head.begin()
    assert head.clip(64) == 10
    head.spend(7)
    assert head.clip(64) == 3
    head.spend(3)
    with pytest.raises(FetchError) as caught:
        head.clip(64)
    assert caught.value.code == "fetch.headers_too_large"
    head.end()
    assert head.clip(64) == 64
    head.begin()
    assert head.clip(64) == 10
