"""JSON Feed 1.0 and 1.1, and DataFeeds that are documents of their own."""

import json
from datetime import UTC, datetime

import pytest
from feed_documents import NOW, codes, entries, json_feed, only

from ingest import feed
from ingest.errors import FeedError


def refusal(body):
    with pytest.raises(FeedError) as caught:
        feed.parse(body, "application/feed+json", NOW)
    return caught.value


def test_an_item_becomes_an_entry():
    entry = only(
        json_feed(
            {
                "id": "urn:1",
                "url": "http://a.org/1",
                "title": "Chad: capital is now N\u2019Djamena",
                "content_html": "<p>One</p><p>Two &amp; three</p>",
                "date_published": "2020-05-06T07:08:09+02:00",
                "date_modified": "2020-05-07T00:00:00Z",
            }
        )
    )
    assert entry.title == "Chad: capital is now N\u2019Djamena"
    assert entry.text == "One\nTwo & three"
    assert entry.link == "http://a.org/1"
    assert entry.published == datetime(2020, 5, 7, tzinfo=UTC)
    assert json.loads(entry.raw)["date_published"] == "2020-05-06T07:08:09+02:00"


@pytest.mark.parametrize("content_type", [None, "text/xml", "application/rss+xml; charset=utf-7"])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\n "])
def test_the_content_tells_the_format_whatever_the_server_says(content_type, before):
    body = before + json_feed({"id": "1", "content_text": "<!ENTITY x> is XML's"})
    (entry,) = entries(body, content_type)
    assert entry.text == "<!ENTITY x> is XML's"


def test_a_number_as_an_id_may_have_any_size():
    ids = ["7", "-1.5", "1" + "0" * 400]  # the last is too large for a float
    items = ",".join(f'{{"id": {one}}}' for one in [*ids, "1e999"])
    version = "https://jsonfeed.org/version/1"
    parsed = feed.parse(f'{{"version": "{version}", "items": [{items}]}}'.encode(), None, NOW)
    assert [json.loads(entry.raw)["id"] for entry in parsed.entries] == ids
    assert [letter.code for letter in parsed.dead] == ["entry.empty"]


@pytest.mark.parametrize("version", ["1", "1.0", "1.1", "1.2"])
def test_every_version_of_the_format_is_read(version):
    assert only(json_feed({"id": "1"}, version=f"https://jsonfeed.org/version/{version}"))


def test_an_id_may_be_a_number_as_version_1_0_allowed():
    assert only(json_feed({"id": 17})).key == only(json_feed({"id": "17"})).key
    assert only(json_feed({"id": 17})).key != only(json_feed({"id": 18})).key


@pytest.mark.parametrize("useless", [True, None, [], {}, ""])
def test_without_a_usable_id_the_url_names_the_entry(useless):
    named = json_feed({"id": useless, "url": "http://a.org/1", "title": "x"})
    assert only(named).key == only(json_feed({"id": "http://a.org/1"})).key


def test_plain_text_goes_before_html_and_html_before_the_summary():
    item = {"id": "1", "content_text": "a < b\nc", "content_html": "<p>d</p>", "summary": "e"}
    assert only(json_feed(item)).text == "a < b\nc"
    del item["content_text"]
    assert only(json_feed(item)).text == "d"
    del item["content_html"]
    assert only(json_feed(item)).text == "e"


@pytest.mark.parametrize(
    ("url", "link"),
    [("/x", "http://a.org/x"), ("javascript:alert(1)", None), ("http://[", None), (7, None)],
)
def test_a_relative_url_is_resolved_and_one_that_is_not_http_is_dropped(url, link):
    body = json_feed({"id": "1", "url": url})
    (entry,) = feed.parse(body, None, NOW, base="http://a.org/feed.json").entries
    assert entry.link == link


@pytest.mark.parametrize("date", ["soon", 7, None, "9999-01-01T00:00:00Z", "0001-01-01"])
def test_an_absurd_date_is_no_date(date):
    assert only(json_feed({"id": "1", "date_published": date})).published is None


def test_a_bad_item_is_a_dead_letter_and_the_others_go_on():
    body = json_feed({"id": "1"}, "not an item", {"id": "g" * 1025}, {}, {"id": "2"})
    assert len(entries(body)) == 2
    assert codes(body) == ["entry.empty", "entry.guid_too_long", "entry.empty"]


def test_items_beyond_the_limit_are_one_dead_letter():
    body = json_feed(*({"id": n} for n in range(503)))
    assert len(entries(body)) == 500
    assert codes(body) == ["feed.too_many_entries"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"version": "https://jsonfeed.org/version/1.1"}', "feed.bad_shape"),
        (b'{"version": "https://jsonfeed.org/version/1.1", "items": {}}', "feed.bad_shape"),
        (b'{"version": "https://jsonfeed.org.evil/version/1", "items": []}', "feed.not_a_feed"),
        (b'{"version": 1, "items": []}', "feed.not_a_feed"),
        (b'{"error": "not found"}', "feed.not_a_feed"),
        (b'{"version": ', "feed.bad_json"),
        (b'{"a": NaN}', "feed.not_a_number"),
        (b'{"items": [], "items": []}', "feed.duplicate_key"),
        (b'{"a": "\xff"}', "feed.bad_encoding"),
        (b'{"a": ' * 100_000, "feed.bad_json"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "feed.bad_json"),
        ("{}".encode("utf-16-le"), "feed.bad_json"),
    ],
)
def test_what_is_not_strict_json_or_not_a_feed_is_refused_by_code(body, code):
    assert refusal(body).code == code


def test_a_data_feed_is_read_as_a_document_of_its_own():
    def element(name, capital, **more):
        fact = {"@type": "PropertyValue", "name": "capital", "value": capital}
        thing = {"@type": "Country", "name": name, "additionalProperty": [fact], **more}
        return {"@type": "DataFeedItem", "dateModified": "2021-02-03", "item": thing}

    body = json.dumps(
        {
            "@context": "https://schema.org",
            "@type": "DataFeed",
            "dataFeedElement": [
                element("Chad", "X", url="http://a.org/chad"),
                element("Mali", "Y"),
                element("Peru", 1.5),
                "text",
            ],
        }
    ).encode()
    chad, mali = entries(body)
    assert (chad.title, chad.link) == ("Chad", "http://a.org/chad")
    assert chad.published == datetime(2021, 2, 3, tzinfo=UTC)
    assert [(f.subject, f.relation, f.object) for f in mali.payload] == [("Mali", "capital", "Y")]
    assert codes(body) == ["payload.bad_shape"]
    changed = body.replace(b'"Y"', b'"Z"')
    assert entries(changed)[1].key == mali.key
    assert entries(changed)[1].content_hash != mali.content_hash
