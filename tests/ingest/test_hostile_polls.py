"""Servers that answer carelessly, refuse or lie: F1 to F6 and F16 to F19.

What is asked again, when, and what is believed.
"""

import logging
from datetime import timedelta
from email.utils import format_datetime

import pytest
from feed_documents import rss
from hostile_answers import conditional, in_turn, raw, reply
from hostile_world import START

from daemon import polling
from daemon.cli import registry
from ingest import networks

SECRET = "s3cret"


@pytest.fixture
def no_chance(monkeypatch):
    """The random part of a backoff is nothing: what is left is what the server asked for."""
    monkeypatch.setattr(polling.random, "random", lambda: 0.0)


def story(capital, guid="1"):
    return rss(f"<guid>{guid}</guid><title>Chad: capital is now {capital}</title>")


def validators(world):
    """What each request for the hostile feed sent back: ETag, Last-Modified."""
    names = ("If-None-Match", "If-Modified-Since")
    return [tuple(headers.get(name) for name in names) for headers in world.site.asked()]


ETAG = ("ETag", '"1"')


def test_f01_a_304_with_a_body_is_nothing_new_and_breaks_no_later_poll(world):
    body = story("Y", guid="2")
    head = f'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: {len(body)}\r\n\r\n'
    told = conditional(raw(head.encode() + body), reply(200, story("X"), ETAG))
    world.site.answers["/feed"] = told
    assert world.poll()["hostile"].facts == 1
    for hours in (1, 2):
        found = world.poll(hours=hours)["hostile"]
        assert (found.unchanged, found.entries, found.error) == (True, 0, None)
    assert [fact.object for fact in world.facts()] == ["X"]


def test_f02_a_body_under_a_strong_etag_that_is_known_is_not_read(world):
    world.site.answers["/feed"] = in_turn(
        reply(200, story("X"), ETAG), reply(200, b"not even a feed", ETAG)
    )
    world.poll()
    found = world.poll(hours=1)["hostile"]
    assert (found.unchanged, found.error) == (True, None)
    assert world.row()["etag"] == '"1"'


def test_f02_once_a_day_it_is_read_all_the_same(world):
    world.site.answers["/feed"] = in_turn(
        reply(200, story("X"), ETAG), reply(200, story("Y", guid="2"), ETAG)
    )
    facts = [world.poll(hours=hours)["hostile"].facts for hours in (0, 23.9, 24.5)]
    assert facts == [1, 0, 1]


VALIDATORS = ['W/"1"', '"a, b"', 'W/"a,b" ', '"a\\"b"', '""', "bare", '"<>\'&%20"']


def test_f03_an_etag_goes_back_as_it_came(world):
    for etag in VALIDATORS:
        told = reply(200, story("X"), ("ETag", etag))
        world.site.answers["/feed"] = conditional(reply(304), told)
        world.change(etag=None, next_poll_at=START.isoformat())
        world.poll()
        world.site.seen.clear()
        assert world.poll(hours=1)["hostile"].unchanged
        assert validators(world) == [(etag.strip(), None)]


@pytest.mark.parametrize(
    "headers",
    [[("ETag", "é")], [("ETag", '"' + "x" * 2000 + '"')], [ETAG, ("ETag", '"2"')], [("ETag", "")]],
    ids=["not ASCII", "long", "two", "empty"],
)
def test_f03_an_etag_that_could_not_go_back_as_it_came_is_not_kept(world, headers):
    world.site.answers["/feed"] = reply(200, story("X"), *headers)
    for hours in (0, 1):
        assert world.poll(hours=hours)["hostile"].error is None
    assert validators(world) == [(None, None)] * 2


def test_f03_a_body_under_the_same_weak_etag_is_read(world):
    weak = ("ETag", 'W/"1"')
    world.site.answers["/feed"] = in_turn(
        reply(200, story("X"), weak), reply(200, story("Y", guid="2"), weak)
    )
    assert [world.poll(hours=hours)["hostile"].facts for hours in (0, 1)] == [1, 1]


@pytest.mark.parametrize("expires", ["0", "-1"])
def test_f04_a_feed_that_wants_no_caching_is_read_each_time(world, expires):
    """Its ETag is often that of the cache in front of it, and never changes."""
    expired = ("Expires", expires)
    world.site.answers["/feed"] = conditional(
        reply(304, b"", ETAG, expired),
        in_turn(
            reply(200, story("X"), ETAG, expired), reply(200, story("Y", guid="2"), ETAG, expired)
        ),
    )
    assert [world.poll(hours=hours)["hostile"].facts for hours in (0, 1)] == [1, 1]
    assert validators(world) == [(None, None)] * 2


def modified(after):
    return ("Last-Modified", format_datetime(START + after, usegmt=True))


def test_f05_validators_from_the_future_are_not_sent_back(world):
    ahead = modified(timedelta(hours=24, seconds=1))
    world.site.answers["/feed"] = conditional(
        reply(304),
        in_turn(reply(200, story("X"), ETAG, ahead), reply(200, story("Y", guid="2"), ETAG, ahead)),
    )
    assert [world.poll(hours=hours)["hostile"].facts for hours in (0, 1)] == [1, 1]
    assert validators(world) == [(None, None)] * 2


def test_f05_a_clock_that_is_hours_ahead_is_believed(world):
    ahead = modified(timedelta(hours=24))
    world.site.answers["/feed"] = conditional(reply(304), reply(200, story("X"), ETAG, ahead))
    world.poll()
    assert world.poll(hours=1)["hostile"].unchanged
    assert validators(world)[1] == ('"1"', ahead[1])


def test_f05_new_entries_behind_a_304_that_never_ends_are_seen_within_a_day(world):
    world.site.answers["/feed"] = conditional(
        reply(304), in_turn(reply(200, story("X"), ETAG), reply(200, story("Y", guid="2"), ETAG))
    )
    facts = [world.poll(hours=hours)["hostile"].facts for hours in range(26)]
    assert facts == [1] + [0] * 23 + [1, 0]
    full = [hours for hours, sent in enumerate(validators(world)) if sent == (None, None)]
    assert full == [0, 24]


def test_f06_a_304_to_a_request_without_conditions_is_an_error(world):
    world.site.answers["/feed"] = reply(304, b"", ETAG)
    world.fails("fetch.status_304")
    assert (world.row()["etag"], world.row()["last_full_at"]) == (None, None)


def test_f06_what_was_stored_before_stays(world):
    world.poll(story("X"))
    world.site.answers["/feed"] = reply(304)
    assert world.poll(hours=1)["hostile"].unchanged
    world.fails("fetch.status_304", hours=25)
    assert [fact.object for fact in world.facts()] == ["X"]
    assert world.poll(hours=50)["hostile"].error.startswith("fetch.status_304")


IN_TEN_MINUTES = format_datetime(START + timedelta(minutes=10), usegmt=True)
YESTERDAY = format_datetime(START - timedelta(days=1), usegmt=True)


WAITS = {
    "120": 120,
    IN_TEN_MINUTES: 600,
    YESTERDAY: 60,
    "-5": 60,
    "1000000000": 86_400,
    "9" * 5000: 86_400,
    "1e9": 60,  # neither a number nor a date: the shortest backoff
    "soon": 60,
}


@pytest.mark.parametrize("status", [429, 503])
def test_f16_a_busy_feed_is_asked_again_when_it_says_within_a_minute_and_a_day(
    world, no_chance, status
):
    for value, seconds in WAITS.items():
        world.site.answers["/feed"] = reply(status, b"busy", ("Retry-After", value))
        world.fails(f"fetch.status_{status}")
        assert world.wait() == seconds, value[:40]


def test_f16_a_good_answer_may_ask_for_more_time_and_not_for_less(world, no_chance):
    world.site.answers["/feed"] = in_turn(
        reply(200, story("X"), ("Retry-After", "7200")), reply(200, b"", ("Retry-After", "60"))
    )
    world.poll()
    assert world.wait() == 7200
    world.site.answers["/feed"] = reply(200, story("X"), ("Retry-After", "60"))
    world.poll(hours=3)
    assert world.wait(hours=3) == 1800


def test_f17_a_503_leaves_the_hosts_other_feeds_alone(world, monkeypatch, no_chance):
    monkeypatch.setattr(networks, "is_public", lambda _: True)
    world.site.answers["/feed"] = reply(503, b"", ("Retry-After", "86400"))
    world.fails("fetch.status_503")
    assert (world.wait(), world.wait("good")) == (86_400, 1800)
    assert set(world.poll(hours=1)) == {"good"}


def test_f17_a_429_of_a_public_host_holds_up_its_other_feeds_and_no_others(
    world, monkeypatch, no_chance
):
    """Loopback is taken for public here: there is no other address to be had in a test."""
    monkeypatch.setattr(networks, "is_public", lambda _: True)
    world.add("elsewhere", f"http://localhost:{world.site.port}/good")
    world.site.answers["/feed"] = reply(429, b"", ("Retry-After", "7200"))
    assert set(world.poll()) == {"hostile", "elsewhere"}  # not even in the same round
    assert world.health().last_error.startswith("fetch.status_429: ")
    assert (world.wait("good"), world.wait("elsewhere")) == (7200, 1800)
    assert world.health("good").failures == 0
    assert set(world.poll(hours=1)) == {"elsewhere"}
    order = list(world.poll(hours=2.1))
    assert order.index("good") < order.index("hostile")  # before it is held up again


def test_f17_a_429_shortens_no_wait(world, monkeypatch, no_chance):
    monkeypatch.setattr(networks, "is_public", lambda _: True)
    world.change("good", next_poll_at=(START + timedelta(hours=5)).isoformat())
    world.site.answers["/feed"] = reply(429, b"", ("Retry-After", "60"))
    world.poll()
    assert world.wait("good") == 5 * 3600


def test_f17_a_429_of_a_private_host_is_meant_for_the_feed_alone(world, no_chance):
    world.site.answers["/feed"] = reply(429, b"", ("Retry-After", "7200"))
    world.fails("fetch.status_429")
    assert (world.wait(), world.wait("good")) == (7200, 1800)


def test_f18_a_feed_that_is_gone_stays_gone_until_the_operator_resumes_it(world):
    world.poll(story("X"))
    world.site.answers["/feed"] = reply(410)
    world.fails("fetch.gone", hours=1)
    assert world.health().state == "gone"
    (event,) = world.events("source.gone")
    assert event["subject"] == f"source:{world.row()['id']}"
    assert "source hostile is gone" in world.wised("status")
    world.site.answers["/feed"] = reply(200, story("Y", guid="2"))
    for days in (1, 30):
        assert set(world.poll(hours=24 * days)) == {"good"}
    assert world.health().state == "gone"
    later = START + timedelta(days=31)
    assert registry.change(world.store, "hostile", "resume", "", later) == "active"
    assert world.poll(hours=24 * 31)["hostile"].facts == 1
    assert (world.health().state, world.health().last_error) == ("active", None)


def test_f18_a_resumed_feed_that_is_still_gone_is_gone_again(world):
    world.site.answers["/feed"] = reply(410)
    world.fails("fetch.gone")
    registry.change(world.store, "hostile", "resume", "", START + timedelta(hours=1))
    world.fails("fetch.gone", hours=1)
    assert (world.health().state, len(world.events("source.gone"))) == ("gone", 2)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_f19_a_refused_password_is_sent_to_the_server_and_shown_nowhere(world, caplog, status):
    caplog.set_level(logging.DEBUG)
    host = world.site.url.removeprefix("http://")
    world.change(location=f"http://me:{SECRET}@{host}/feed?token={SECRET}")
    world.site.answers["/feed"] = reply(status, SECRET.encode())
    found = world.fails(f"fetch.status_{status}")
    (headers,) = world.site.asked()
    assert headers["Authorization"].startswith("Basic ")
    assert world.site.seen[0][0] == f"/feed?token={SECRET}"
    assert_hidden(world, caplog.text, repr(found), repr(world.health()))


def test_f19_a_good_poll_with_a_password_shows_it_nowhere(world, caplog):
    caplog.set_level(logging.DEBUG)
    host = world.site.url.removeprefix("http://")
    world.change(location=f"http://me:{SECRET}@{host}/feed?token={SECRET}")
    found = world.poll(story("X"))["hostile"]
    assert found.facts == 1
    assert_hidden(world, caplog.text, repr(found), repr(polling.due(world.store, START)))


def assert_hidden(world, *texts):
    """Assert that the secret stands in the source's location and in no other place."""
    commands = (["status"], ["source", "list"], ["source", "show", "hostile"], ["audit", "list"])
    texts += tuple(world.wised(*words, *more) for words in commands for more in ([], ["--json"]))
    for table in ("entry", "fact", "evidence", "dead_letter", "event"):
        texts += tuple(repr(tuple(row)) for row in world.store.rows(f"SELECT * FROM {table}"))
    shown = dict(world.row()) | {"location": ""}
    for text in (*texts, repr(shown)):
        assert SECRET not in text
