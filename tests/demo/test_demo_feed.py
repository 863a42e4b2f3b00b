"""The demo's feed, read over HTTP as any feed is."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterator

import httpx2
import pytest

from demo.feed import served


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False) as opened:
        yield opened


def test_what_is_published_later_is_served_with_other_validators(client: httpx2.Client) -> None:
    with served(b"<feed>one</feed>") as feed:
        first = client.get(feed.url)
        again = client.get(feed.url)
        feed.publish(b"<feed>and two</feed>")
        second = client.get(feed.url)
    assert [one.status_code for one in (first, again, second)] == [200, 200, 200]
    assert first.content == again.content == b"<feed>one</feed>"
    assert second.content == b"<feed>and two</feed>"
    assert second.headers["Content-Length"] == "20"
    assert second.headers["Content-Type"] == "application/atom+xml"
    assert first.headers["ETag"] == again.headers["ETag"] != second.headers["ETag"]
    assert first.headers["ETag"].startswith('"') and first.headers["ETag"].endswith('"')


def test_what_was_seen_is_not_sent_again_until_something_else_is_published(
    client: httpx2.Client,
) -> None:
    with served(b"<feed>one</feed>") as feed:
        seen = {"If-None-Match": client.get(feed.url).headers["ETag"]}
        same = client.get(feed.url, headers=seen)
        feed.publish(b"<feed>two</feed>")
        other = client.get(feed.url, headers=seen)
        newer = {"If-None-Match": other.headers["ETag"]}
        fresh = client.get(feed.url, headers=newer)
        feed.publish(b"<feed>one</feed>")
        back = client.get(feed.url, headers=newer)
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["ETag"] == seen["If-None-Match"]
    assert (other.status_code, other.content) == (200, b"<feed>two</feed>")
    assert (fresh.status_code, fresh.content) == (304, b"")
    assert (back.status_code, back.content) == (200, b"<feed>one</feed>")
    assert back.headers["ETag"] == seen["If-None-Match"]  # the same document has the same


def test_it_says_when_it_was_published(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 UTC
    monkeypatch.setattr(time, "time", lambda: at)
    with served(b"<feed/>") as feed:
        first = client.get(feed.url).headers["Last-Modified"]
        at += 3600
        unchanged = client.get(feed.url).headers["Last-Modified"]
        feed.publish(b"<feed>two</feed>")
        second = client.get(feed.url).headers["Last-Modified"]
    assert first == unchanged == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert second == "Tue, 14 Nov 2023 23:13:20 GMT"
    assert email.utils.parsedate_to_datetime(second).timestamp() == at


def test_each_feed_has_an_address_of_its_own_and_ends_with_its_block(
    client: httpx2.Client,
) -> None:
    with served(b"one") as one, served(b"two") as two:
        assert one.url != two.url
        assert (client.get(one.url).content, client.get(two.url).content) == (b"one", b"two")
    with pytest.raises(httpx2.ConnectError):
        client.get(one.url)
