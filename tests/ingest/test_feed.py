"""Feed documents, friendly and hostile, to entries."""

import json
from datetime import UTC, datetime

import pytest

from ingest import feed
from ingest.errors import FeedError

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def rss(*items, head=""):
    body = "".join(f"<item>{item}</item>" for item in items)
    return (
        f'<?xml version="1.0" encoding="utf-8"?>{head}<rss version="2.0"><channel>'
        f"<title>t</title>{body}</channel></rss>"
    ).encode()


def atom(*entries):
    body = "".join(f"<entry>{entry}</entry>" for entry in entries)
    return f'<feed xmlns="http://www.w3.org/2005/Atom"><title>t</title>{body}</feed>'.encode()


def entries(document):
    return feed.parse(document, "application/xml", NOW).entries


def only(document):
    (entry,) = entries(document)
    return entry


def keys(*items):
    return [entry.key for entry in entries(rss(*items))]


def test_an_atom_entry_becomes_an_entry():
    entry = only(
        atom(
            "<id>urn:1</id><title>Chad: capital is now N&#8217;Djamena</title>"
            '<link href="http://a.org/1"/><published>2020-05-06T07:08:09+02:00</published>'
            '<summary type="html">&lt;p&gt;One&lt;/p&gt;&lt;p&gt;Two &amp;amp; three&lt;/p&gt;'
            "</summary>"
        )
    )
    assert entry.title == "Chad: capital is now N\u2019Djamena"
    assert entry.text == "One\nTwo & three"
    assert entry.link == "http://a.org/1"
    assert entry.published == datetime(2020, 5, 6, 5, 8, 9, tzinfo=UTC)
    assert json.loads(entry.raw)["id"] == "urn:1"
    assert len(entry.key) == len(entry.content_hash) == 64


def test_an_update_asserts_its_text_at_the_later_date():
    dates = "<published>2020-01-01T00:00:00Z</published><updated>2021-01-01T00:00:00Z</updated>"
    assert only(atom(f"<id>1</id>{dates}")).published == datetime(2021, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("body", [b"", b" \n\t"])
def test_an_empty_document_is_refused(body):
    with pytest.raises(FeedError) as caught:
        feed.parse(body, None, NOW)
    assert caught.value.code == "feed.empty"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-be"])
def test_declared_entities_are_refused_in_any_encoding(encoding):
    head = '<!DOCTYPE rss [<!ENTITY x "hello">]>'
    body = rss("<title>&x;</title>", head=head).decode().replace("utf-8", encoding)
    with pytest.raises(FeedError) as caught:
        feed.parse(body.encode(encoding), None, NOW)
    assert caught.value.code == "feed.entities"


@pytest.mark.parametrize("content_type", ["text/xml; charset=UTF-7", "text/xml"])
def test_utf7_is_refused_because_it_hides_markup(content_type):
    body = rss("<title>x</title>").replace(b'"utf-8"', b'"utf-7"')
    with pytest.raises(FeedError) as caught:
        feed.parse(body, content_type, NOW)
    assert caught.value.code == "feed.encoding"


@pytest.mark.parametrize(
    "body",
    [
        b"<!doctype html><html><body>Not found</body></html>",
        b"/etc/passwd",
        b"file:///etc/passwd",
        b"http://127.0.0.1:1/feed",
        b'{"version": "https://jsonfeed.org/version/1.1"}',
    ],
)
def test_what_is_not_a_feed_is_refused_and_never_opened(body, monkeypatch):
    def touched(*_, **__):
        raise AssertionError("the parser reached out")

    entries(rss())  # its modules are loaded: from here on nothing needs to be opened
    monkeypatch.setattr("builtins.open", touched)
    monkeypatch.setattr("socket.socket.connect", touched)
    with pytest.raises(FeedError) as caught:
        feed.parse(body, None, NOW)
    assert caught.value.code == "feed.not_a_feed"


def test_a_guid_names_its_entry_whatever_its_text():
    same = {*keys("<guid>a</guid><title>1</title>"), *keys("<guid> a </guid><title>2</title>")}
    assert len(same) == 1


def test_the_second_use_of_a_guid_is_told_apart_by_link_and_the_third_by_place():
    first, second, third, fourth = keys(
        "<guid>a</guid><title>1</title>",
        "<guid>a</guid><link>http://a.org/2</link>",
        "<guid>a</guid><link>http://a.org/2</link>",
        "<guid>a</guid><title>4</title>",
    )
    assert len({first, second, third, fourth}) == 4
    assert [first] == keys("<guid>a</guid>")
    # With its link the second keeps its key when the first leaves the feed's window.
    assert keys("<guid>a</guid>", "<guid>a</guid><link>http://a.org/2</link>")[1] == second


def test_without_a_guid_the_link_names_an_entry_and_without_both_its_text():
    link = "<link>http://a.org/1</link>"
    assert keys(f"{link}<title>1</title>") == keys(f"{link}<title>2</title>")
    assert keys("<title>1</title>") != keys("<title>2</title>")


def test_the_content_hash_follows_the_content_and_not_the_dates():
    def content(date, title):
        item = f"<guid>a</guid><title>{title}</title><pubDate>{date}</pubDate>"
        return only(rss(item)).content_hash

    monday, tuesday = "Mon, 06 Jan 2020 00:00:00 GMT", "Tue, 07 Jan 2020 00:00:00 GMT"
    assert content(monday, "x") == content(tuesday, "x")
    assert content(monday, "x") != content(monday, "y")


@pytest.mark.parametrize(
    "date", ["1970-01-01T00:00:00Z", "9999-01-01T00:00:00Z", "2026-03-02T00:00:01Z", "soon", ""]
)
def test_an_absurd_date_is_no_date(date):
    assert only(atom(f"<id>1</id><published>{date}</published>")).published is None


def test_markup_in_texts_becomes_plain_text():
    entry = only(
        rss(
            "<guid>a</guid><title>x &lt;b&gt;bold&lt;/b&gt; y</title>"
            "<description>&lt;script&gt;evil()&lt;/script&gt;a&lt;br/&gt;b &amp;lt; c</description>"
        )
    )
    assert entry.title == "x bold y"
    assert entry.text == "a\nb < c"


def test_control_characters_do_not_reach_an_entry():
    entry = only(rss("<guid>a</guid><title>x\u202ey\u200b \x1b[31mred</title>"))
    assert entry.title == "xy [31mred"


@pytest.mark.parametrize("link", ["javascript:alert(1)", "data:text/html,x", "file:///x"])
def test_a_link_that_is_not_http_is_dropped(link):
    assert only(rss(f"<guid isPermaLink='false'>a</guid><link>{link}</link>")).link is None


def test_a_bad_entry_is_a_dead_letter_and_the_others_go_on():
    parsed = feed.parse(
        rss("<guid>a</guid>", f"<guid>{'g' * 1025}</guid>", "<author>x</author>", "<guid>b</guid>"),
        None,
        NOW,
    )
    assert len(parsed.entries) == 2
    assert [dead.code for dead in parsed.dead] == ["entry.guid_too_long", "entry.empty"]
    assert all(len(dead.raw.encode()) <= 4096 for dead in parsed.dead)


def test_entries_beyond_the_limit_are_one_dead_letter():
    parsed = feed.parse(rss(*(f"<guid>{n}</guid>" for n in range(503))), None, NOW)
    assert len(parsed.entries) == 500
    assert [dead.code for dead in parsed.dead] == ["feed.too_many_entries"]
    assert "503" in parsed.dead[0].message


def test_an_overlong_text_loses_whole_lines_only():
    lines = [f"line {n:05}" for n in range(9000)]  # 11 bytes each with the break: 99,000 bytes
    text = only(rss(f"<guid>a</guid><description>{'&lt;br/&gt;'.join(lines)}</description>")).text
    kept = text.split("\n")
    assert kept == lines[: len(kept)]
    assert 64 * 1024 - 11 <= len(text.encode()) <= 64 * 1024


def test_relative_links_are_resolved_against_the_base():
    parsed = feed.parse(
        atom('<id>1</id><link href="/x"/>'), "application/xml", NOW, base="http://a.org/feed"
    )
    assert parsed.entries[0].link == "http://a.org/x"


def test_deep_nesting_and_broken_markup_end_quickly():
    feed.parse(rss("<guid>a</guid><description>" + "<b>" * 20000), None, NOW)
