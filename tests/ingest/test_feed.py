"""Feed documents, friendly and hostile, to entries."""

import json
import time
from datetime import UTC, datetime
from xml.sax.saxutils import escape

import pytest
from feed_documents import NOW, atom, keys, only, rss

from ingest import feed
from ingest.html import to_text


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


def test_a_guid_names_its_entry_whatever_its_text():
    same = {*keys("<guid>a</guid><title>1</title>"), *keys("<guid> a </guid><title>2</title>")}
    assert len(same) == 1


def test_a_bad_entry_is_a_dead_letter_and_the_others_go_on():
    parsed = feed.parse(
        rss("<guid>a</guid>", f"<guid>{'g' * 1025}</guid>", "<author>x</author>", "<guid>b</guid>"),
        None,
        NOW,
    )
    assert len(parsed.entries) == 2
    assert [dead.code for dead in parsed.dead] == ["entry.guid_too_long", "entry.empty"]
    assert all(len(dead.raw.encode()) <= 4096 for dead in parsed.dead)


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


def texts(*descriptions):
    feeds = [
        f"<guid>{n}</guid><description>{escape(d)}</description>"
        for n, d in enumerate(descriptions)
    ]
    return [entry.text for entry in feed.parse(rss(*feeds), None, NOW).entries]


def test_a_marked_section_of_any_name_is_a_comment_and_stops_no_entry():
    given = ("a<![x[y]]>b", "a<![ x>b", "a<![if x]>b", "a<![CDATA[b]]>c", "a<p>b<![x")
    assert texts(*given) == ["ab", "ab", "ab", "ac", "a\nb<![x"]


def test_what_never_ends_is_text_but_for_comments_and_scripts():
    given = ("<p>a <b and", '<p>a <i x="1>b</i> c', "<p>a<!-- b > c", "<p>a<script>b > c", "AT&T")
    assert texts(*given) == ["a <b and", 'a <i x="1>b c', "a", "a", "AT&T"]


@pytest.mark.parametrize("piece", ["<a ", "<!--", "<!-- >", "<![x", "</", "<a x='", "<a x=\"'>"])
def test_unfinished_markup_costs_no_more_than_its_length(piece):
    start = time.process_time()
    to_text("<p>" + piece * (200_000 // len(piece)))
    assert time.process_time() - start < 2  # seconds; by the library's own end it is many minutes
