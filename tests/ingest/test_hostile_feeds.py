"""Documents that are broken, careless or meant to do harm.

F1 to F6 and F16 to F19 are in test_hostile_polls.py, the others up to F20 in
test_hostile_fetches.py.

Whatever a feed does, the next one is polled, and the error stands in the status with its code.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from datetime import UTC
from pathlib import Path

import pytest
from feed_documents import NOW, atom, codes, entries, json_feed, keys, only, rss
from hostile_world import START
from ingest_world import relations

from daemon import cli, polling
from daemon.store import facts
from ingest import isolated, ladder, slot_key
from ingest.errors import FeedError
from ingest.extract import Extractor
from ingest.isolated import ParseLimits

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024


def story(capital, guid="1", extra=""):
    return rss(f"<guid>{guid}</guid><title>Chad: capital is now {capital}</title>{extra}")


def refused(body, content_type=None, limits=None):
    """Return the error of a document that is refused where the daemon parses it."""
    with pytest.raises(FeedError) as caught:
        isolated.parse(body, content_type, NOW, limits=limits)
    return caught.value.code


def assert_survived(world, body, code):
    """Poll a hostile document: the error is shown by its code, the good feed is read."""
    world.fails(code, body)
    assert world.health().failures == 1
    assert len(world.facts("good")) == 1


ENTITIES = {
    "billion laughs": '<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>',
    "quadratic blow-up": f'<!DOCTYPE r [<!ENTITY a "{"x" * 50_000}">]>',
    "external entity": '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    "parameter entity": '<!DOCTYPE r [<!ENTITY % x SYSTEM "http://127.0.0.1/x"> %x;]>',
}


@pytest.mark.parametrize("head", ENTITIES.values(), ids=ENTITIES.keys())
def test_f21_declared_entities_are_refused(world, head):
    assert_survived(world, rss("<title>&a;&b;&x;</title>", head=head), "feed.entities")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-be", "cp037"])
def test_f21_declared_entities_are_refused_in_any_encoding(encoding):
    body = rss("<title>&x;</title>", head='<!DOCTYPE r [<!ENTITY x "hello">]>').decode()
    assert refused(body.replace("utf-8", encoding).encode(encoding)) == "feed.entities"


def test_f21_an_external_dtd_is_not_fetched(world):
    head = f'<!DOCTYPE rss SYSTEM "{world.site.url}/dtd">'
    assert world.poll(rss("<guid>1</guid><title>x</title>", head=head))["hostile"].entries == 1
    assert {path for path, _ in world.site.seen} == {"/feed", "/good"}


COSTLY = {
    "line breaks before the root": b"\n" * 200_000 + b'<rss version="2.0"/>',
    "100,000 attributes": rss("<x " + " ".join(f"a{n}='1'" for n in range(100_000)) + "/>"),
    "an address that nearly matches": rss(f"<author>{'a.' * 100_000}@</author>"),
}


@pytest.mark.parametrize("body", COSTLY.values(), ids=COSTLY.keys())
def test_f21_what_would_take_minutes_is_ended_at_the_limit(body):
    begun = time.monotonic()
    assert refused(body, limits=ParseLimits(seconds=1.5)) == "feed.too_costly"
    assert time.monotonic() - begun < 5


def test_f21_what_would_fill_the_memory_is_ended_at_the_limit():
    body = b'{"version": "https://jsonfeed.org/version/1", "items": [' + b"{}," * 2_000_000 + b"1]}"
    assert refused(body, limits=ParseLimits(megabytes=128)) == "feed.too_costly"


LARGE = {
    "100,000 nested elements": rss(f"<guid>1</guid>{'<b>' * 100_000}{'</b>' * 100_000}"),
    "100,000 nested in HTML": rss(f"<guid>1</guid><description>{'<b>' * 100_000}"),
    "unclosed comments in HTML": rss(
        f"<guid>1</guid><description><![CDATA[{'<!--' * 300_000}]]></description>"
    ),
    "unclosed tags in HTML": rss(
        f"<guid>1</guid><description><![CDATA[{'<a ' * 300_000}]]></description>"
    ),
    "a title of 10 MB": rss(f"<guid>1</guid><title>{'x' * 10 * MIB}</title>"),
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE.keys())
def test_f21_the_deep_and_the_long_end_within_the_limits(body):
    begun = time.monotonic()
    assert len(isolated.parse(body, None, NOW, limits=ParseLimits(megabytes=256)).entries) == 1
    assert time.monotonic() - begun < ParseLimits().seconds


def test_f21_entries_beyond_the_limit_are_one_dead_letter(world):
    found = world.poll(rss(*(f"<guid>{n}</guid>" for n in range(50_000))))
    assert (found["hostile"].entries, found["hostile"].dead) == (500, 1)
    (letter,) = world.store.rows("SELECT * FROM dead_letter")
    assert letter["code"] == "feed.too_many_entries" and "50000" in letter["message"]


def test_f21_a_parser_that_dies_is_an_error_like_any_other(world, monkeypatch):
    world.poll(story("X"))  # reads the good feed, which from then on is only asked
    monkeypatch.setattr(isolated, "_COMMAND", "import os; os.abort()")
    world.fails("feed.parser_died", story("Y"))


PAGES = {
    "empty": (b"", "feed.empty"),
    "blank": (b" \n\t", "feed.empty"),
    "a page": (b"<!doctype html><html><body>Log in</body></html>", "feed.not_a_feed"),
    "an API's error": (b'{"error": "quota exceeded"}', "feed.not_a_feed"),
}


@pytest.mark.parametrize(("body", "code"), PAGES.values(), ids=PAGES.keys())
def test_f22_what_is_no_feed_is_refused(world, body, code):
    assert_survived(world, body, code)


def test_f22_an_error_page_after_good_polls_takes_nothing_away(world):
    world.poll(story("X"))
    world.poll(PAGES["a page"][0], hours=1)
    assert world.health().last_error.startswith("feed.not_a_feed")
    assert (len(world.entries()), len(world.facts())) == (1, 1)
    assert world.poll(story("X"), hours=30)["hostile"].entries == 0
    assert world.health().failures == 0


TITLE = "caf\u00e9 \u2014 \u0413\u043e\u0440\u043e\u0434"


@pytest.mark.parametrize(
    ("declared", "encoded", "content_type"),
    [
        ("utf-8", "utf-8", "application/xml; charset=iso-8859-1"),
        ("iso-8859-1", "utf-8", "application/xml; charset=utf-8"),
        ("utf-8", "utf-8", "text/xml"),
        ("utf-8", "utf-8", "text/html; charset=us-ascii"),
        ("windows-1251", "windows-1251", "application/xml; charset=utf-8"),
        ("utf-16", "utf-16-le", None),
        ("utf-16", "utf-16-be", "application/xml"),
        ("no-such-encoding", "utf-8", None),
    ],
)
def test_f23_a_charset_that_contradicts_the_document_does_not_garble_it(
    declared, encoded, content_type
):
    title = TITLE if encoded != "windows-1251" else "\u0413\u043e\u0440\u043e\u0434"
    body = rss(f"<guid>1</guid><title>{title}</title>").decode().replace("utf-8", declared)
    (entry,) = entries(body.encode(encoded), content_type)
    assert entry.title == title


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("utf-7", "text/xml"),
        ("U7", None),
        ("unicode_escape", None),
        ("raw-unicode-escape", None),
        ("utf-8", "text/xml; charset=UTF-7"),
        ("utf-8", 'text/xml; charset="unicode-1-1-utf-7"'),
    ],
)
def test_f23_an_encoding_that_hides_markup_is_refused(name, content_type):
    body = rss("<title>x</title>").replace(b'"utf-8"', f'"{name}"'.encode())
    assert refused(body, content_type) == "feed.encoding"


def test_f23_a_name_that_looks_like_such_an_encoding_is_none():
    assert only(rss("<title>The U-7 line, and UTF-7</title>")).title == "The U-7 line, and UTF-7"


def test_f23_invalid_utf8_costs_no_other_entry():
    body = rss("<guid>1</guid><title>a\ufffdb</title>", "<guid>2</guid><title>ok</title>")
    assert entries(body.replace("\ufffd".encode(), b"\xff\xfe"))[1].title == "ok"


def test_f24_the_second_use_of_a_guid_is_told_apart_by_link_and_the_third_by_place():
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


def test_f24_a_guid_reused_for_a_new_story_is_that_entry_changed(world):
    world.poll(story("X"))
    found = world.poll(rss("<guid>1</guid><title>Peru: capital is now Y</title>"), hours=1)
    assert found["hostile"].entries == 1
    assert len({entry["key"] for entry in world.entries()}) == 1
    assert [fact.subject for fact in world.facts()] == ["Chad", "Peru"]


def test_f24_without_a_guid_the_link_names_an_entry_and_without_both_its_text():
    link = "<link>http://a.org/1</link>"
    assert keys(f"{link}<title>1</title>") == keys(f"{link}<title>2</title>")
    assert keys("<title>1</title>") != keys("<title>2</title>")


def test_f25_guids_differ_by_case_and_not_by_the_space_around_them():
    assert len({*keys("<guid>a</guid>"), *keys("<guid>A</guid>")}) == 2
    assert keys("<guid>a</guid>") == keys("<guid>\n a </guid>")


def test_f25_a_guid_of_10_kb_is_a_dead_letter():
    body = rss(f"<guid>{'g' * 10_240}</guid>", "<guid>1</guid>")
    assert (len(entries(body)), codes(body)) == (1, ["entry.guid_too_long"])


@pytest.mark.parametrize("char", ["\0", "\x1b", "\ud800", "\u202e", "\uffff"])
def test_f25_a_guid_of_any_character_is_stored_and_known_again(world, char):
    body = json_feed({"id": f"a{char}b", "title": "x"})
    assert world.poll(body)["hostile"].entries == 1
    world.store.connection.execute("UPDATE source SET etag = NULL")
    assert world.poll(body, hours=1)["hostile"].entries == 0


@pytest.mark.parametrize(
    "char", ["\x00", "\x1b", "&#0;", "&#27;", "&#xD800;", "&#x110000;", "&#x;"]
)
def test_f25_a_character_that_xml_does_not_have_stops_no_other_feed(world, char):
    found = world.poll(rss(f"<guid>a{char}b</guid><title>x{char}</title>"))
    assert found["good"].facts == 1
    error = found["hostile"].error
    assert error is None or error.startswith("feed.")


def test_f26_a_changed_number_is_an_update_and_a_changed_date_is_not(world):
    def number(n, day):
        date = f"<pubDate>Mon, {day:02} Feb 2026 00:00:00 GMT</pubDate>"
        return rss(f"<guid>1</guid><title>Chad: national anthem is now {n}</title>{date}")

    world.poll(number("16,244,513", 1))
    assert world.poll(number("16,244,513", 2), hours=1)["hostile"].entries == 0
    assert world.poll(number("16,877,357", 2), hours=2)["hostile"].facts == 1
    assert [fact.object for fact in world.facts()] == ["16,244,513", "16,877,357"]


def test_f26_a_text_that_embeds_the_time_brings_the_same_fact_and_no_quarantine(world):
    """What is held already is no news, however often the entry changes."""
    for hour in range(6):
        world.poll(story("X", extra=f"<description>It is {hour}:00</description>"), hours=hour)
    assert len(world.entries()) == 6
    assert {fact.state for fact in world.facts()} == {"received"}


def test_f26_from_the_third_change_in_a_day_new_facts_of_an_entry_are_quarantined(world):
    for hour, capital in enumerate("ABCDE"):
        world.poll(story(capital), hours=hour)
    assert [fact.state for fact in world.facts()] == ["received"] * 3 + ["quarantined"] * 2
    assert world.facts()[3].reason == "the entry that says so changed 3 times in 24 hours"


def test_f26_a_day_later_an_entry_may_change_again_up_to_24_times_ever(world):
    for day in range(26):
        world.poll(story(f"City {day}"), hours=25 * day)
    assert [fact.state for fact in world.facts()] == ["received"] * 24 + ["quarantined"] * 2
    assert world.facts()[24].reason == "the entry that says so changed 24 times"


def test_f26_another_entry_of_the_same_feed_is_not_held_up(world):
    for hour, capital in enumerate("ABCD"):
        world.poll(story(capital), hours=hour)
    world.poll(story("E", guid="2"), hours=4)
    assert world.facts()[-1].state == "received"


def test_f27_order_a_smaller_window_and_a_return_bring_nothing_new(world):
    items = [f"<guid>{n}</guid><title>Land {n}: capital is now {n}</title>" for n in range(4)]
    assert world.poll(rss(*items))["hostile"].facts == 4
    for hours, shown in enumerate((items[::-1], items[:1], [], items), start=1):
        found = world.poll(rss(*shown), hours=hours)["hostile"]
        assert (found.entries, found.facts, found.error) == (0, 0, None)
    assert len(world.entries()) == 4


@pytest.mark.parametrize(
    "date", ["1970-01-01T00:00:00Z", "9999-01-01T00:00:00Z", "2026-03-02T00:00:01Z", "soon", ""]
)
def test_f28_an_absurd_date_is_no_date(date):
    assert only(atom(f"<id>1</id><published>{date}</published>")).published is None
    assert only(json_feed({"id": "1", "date_published": date})).published is None


@pytest.mark.parametrize(
    ("date", "hour"),
    [("Sat, 28 Feb 2026 12:00:00 EST", 17), ("Sat, 28 Feb 2026 12:00:00 +0330", 8)],
)
def test_f28_a_zone_is_counted_in(date, hour):
    entry = only(rss(f"<guid>1</guid><pubDate>{date}</pubDate>"))
    assert (entry.published.tzinfo, entry.published.hour) == (UTC, hour)


def test_f28_a_missing_date_is_when_it_was_received(world):
    world.store.connection.execute("UPDATE source SET tier = 'trusted'")
    world.poll(story("X", extra="<pubDate>Fri, 31 Dec 9999 00:00:00 GMT</pubDate>"))
    assert world.facts()[0].asserted_at == START


def test_f29_markup_in_texts_becomes_plain_text():
    entry = only(
        rss(
            "<guid>a</guid><title>x &lt;b&gt;bold&lt;/b&gt; y</title>"
            "<description>&lt;script&gt;evil()&lt;/script&gt;a&lt;br/&gt;b &amp;lt; c</description>"
        )
    )
    assert entry.title == "x bold y"
    assert entry.text == "a\nb < c"


def test_f29_scripts_in_any_field_reach_no_text_and_no_link():
    evil = "&lt;script&gt;alert(1)&lt;/script&gt;"
    element = "<{0}>{1}</{0}>"
    fields = ("guid", "author", "category", "comments", "description", "content:encoded")
    entry = only(rss("".join(element.format(name, evil) for name in fields) + "<title>x</title>"))
    assert (entry.title, entry.text, entry.link) == ("x", "", None)
    html = only(
        json_feed({"id": "1", "content_html": "<script>alert(1)</script>a<style>b</style>"})
    )
    assert html.text == "a"


@pytest.mark.parametrize("link", ["javascript:alert(1)", "data:text/html,x", "file:///x"])
def test_f29_a_link_that_is_not_http_is_dropped(link):
    assert only(rss(f"<guid isPermaLink='false'>a</guid><link>{link}</link>")).link is None
    assert only(atom(f"<id>a</id><link href='{link}'/>")).link is None
    assert only(json_feed({"id": "a", "url": link})).link is None


def test_f29_a_hostile_base_makes_no_link():
    entry = only(atom("<id>a</id><link xml:base='javascript:alert(1)//' href='x'/>"))
    assert entry.link is None


def test_f30_control_and_invisible_characters_reach_no_entry_and_no_fact():
    noise = "\x1b]8;;//evil.org\x07\u202e\u200b\u2066\x9b31m"
    document = json_feed({"id": "1", "title": f"Ch{noise}ad: capital is now N{noise}"})
    entry = only(document)
    ((fact,), _) = _found(entry)
    for text in (entry.title, fact.subject, fact.object, *fact.prompts):
        assert text.isprintable()
    assert (
        only(rss("<guid>a</guid><title>x\u202ey\u200b \x1b[31mred</title>")).title == "xy [31mred"
    )


def _found(entry):
    item, dead = ladder.item(entry, Extractor(relations()))
    return item.candidates, dead


def test_f30_a_subject_in_look_alike_letters_shares_the_slot_of_the_real_one():
    ((real,), _) = _found(only(rss("<title>Chad: capital is now X</title>")))
    ((spoof,), _) = _found(only(rss("<title>\u0421had: capital is now Y</title>")))
    assert real.subject != spoof.subject
    assert slot_key(real.subject, "capital") == slot_key(spoof.subject, "capital")


def test_f31_one_story_in_two_feeds_is_one_fact_with_two_provenances(world):
    world.poll(story("Bamako").replace(b"Chad", b"Mali"))
    (here,), (there,) = world.facts("hostile"), world.facts("good")
    assert here.id != there.id and here.fact_key == there.fact_key
    # What triage does with two facts of one key; test_triage.py has it in full.
    facts.share_evidence(world.store, duplicate=here.id, original=there.id)
    told = facts.evidence(world.store, there.id)
    assert {evidence.source for evidence in told} == {"hostile", "good"}


@pytest.mark.parametrize("hours", [-1, 24])
def test_f32_a_clock_that_jumps_loses_nothing_and_reads_nothing_twice(world, hours):
    world.poll(story("X"))
    jumped = world.poll(story("Y"), hours=hours)
    if hours < 0:
        assert jumped == {}  # due when the clock has caught up
    later = world.poll(hours=hours + 2)
    read = [found["hostile"].facts for found in (jumped, later) if found]
    assert sum(read) == 1
    assert [fact.object for fact in world.facts()] == ["X", "Y"]
    assert world.poll(hours=hours + 4)["hostile"].unchanged


def test_f33_bytes_that_name_a_file_or_an_address_are_never_opened():
    """The parser would open a path or a URL that it is given as such."""
    code = """
import sys
from datetime import UTC, datetime
from ingest import feed
from ingest.errors import FeedError

seen, said = [], []
sys.addaudithook(lambda event, args: seen.append((event, str(args))))
bodies = [b"/etc/passwd", b"file:///etc/passwd", b"http://127.0.0.1:9/feed", b"feed:x", b"<rss"]
for turn in range(2):  # the first loads codecs and the parser itself
    seen.clear()
    for body in bodies:
        try:
            feed.parse(body, "application/xml", datetime.now(UTC), base="http://127.0.0.1:9/")
            said.append("parsed")
        except FeedError as why:
            said.append(why.code)
reaching = ("open", "os.open", "socket.", "subprocess.", "urllib.", "os.system", "ftplib.")
print([one for one in seen if one[0].startswith(reaching)], said[:5])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"[] {['feed.not_a_feed'] * 5}"


def test_f34_after_a_crash_before_the_commit_the_next_poll_is_unconditional(world):
    """Validators stored before the entries would make a 304 of what was never stored."""
    world.site.pages["/feed"] = story("X")
    pid = os.fork()
    if pid == 0:  # dies inside the transaction, with the entries written
        polling._note_success = lambda *_: os._exit(137)
        world.store = world.state.store()
        world.poll()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 137
    assert world.entries() == []
    world.site.seen.clear()
    assert world.poll()["hostile"].facts == 1
    asked = [headers for path, headers in world.site.seen if path == "/feed"]
    assert [headers.get("If-None-Match") for headers in asked] == [None]


STATED = '[{"subject": "Chad", "relation": "currency", "object": "franc"}]'
FORMATS = {
    "RSS": rss(
        "<guid>tag:a.org,2020:1</guid><title>Chad: capital is now X</title>"
        "<link>http://a.org/1</link><description>&lt;p&gt;a&lt;/p&gt;b</description>",
        f"<guid>2</guid><title>x</title><wised:facts>{STATED}</wised:facts>",
    ),
    "Atom": atom(
        "<id>tag:a.org,2020:1</id><title>Chad: capital is now X</title>"
        '<link href="http://a.org/1"/><content type="html">&lt;p&gt;a&lt;/p&gt;b</content>',
        f"<id>2</id><title>x</title><wised:facts>{STATED}</wised:facts>",
    ),
    "JSON Feed": json_feed(
        {
            "id": "tag:a.org,2020:1",
            "url": "http://a.org/1",
            "title": "Chad: capital is now X",
            "content_html": "<p>a</p>b",
        },
        {"id": 2, "title": "x", "_wised": {"facts": json.loads(STATED)}},
    ),
}


def test_f35_a_feed_that_changes_its_format_keeps_its_entries_and_brings_no_new_facts(world):
    found = [
        world.poll(body, hours=hours)["hostile"]
        for hours, body in enumerate([*FORMATS.values(), *FORMATS.values()])
    ]
    assert [(one.entries, one.facts, one.dead) for one in found] == [(2, 2, 0)] + [(0, 0, 0)] * 5
    assert len({tuple(e.key for e in entries(body)) for body in FORMATS.values()}) == 1


@pytest.mark.parametrize("body", [story("X"), b"", rss("<guid>1</guid><link>/x</link>")])
def test_f36_a_secret_in_a_sources_url_is_shown_nowhere(world, body):
    secret = "s3cret"
    host = world.site.url.removeprefix("http://")
    world.add("hidden", f"http://me:{secret}@{host}/feed?token={secret}")
    found = world.poll(body)
    found |= world.poll(body, hours=1)
    assert secret not in repr(found) + repr(world.health("hidden"))
    for table in ("entry", "fact", "evidence", "dead_letter", "event"):
        rows = world.store.rows(f"SELECT * FROM {table}")
        assert secret not in repr([tuple(row) for row in rows]), table
    kept = world.store.rows("SELECT last_error, name FROM source")
    assert secret not in repr([tuple(row) for row in kept])
    for command in (["status"], ["source", "list"], ["source", "show", "hidden"]):
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            cli.run(["-C", str(world.state.folder), *command, "--json"])
        assert '"hidden"' in shown.getvalue() and secret not in shown.getvalue()
