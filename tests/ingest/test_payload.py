"""Structured facts in entries: three ways to carry them, one form, and the ladder's first step."""

import json
from xml.sax.saxutils import escape

import pytest
from feed_documents import NOW, atom, codes, entries, json_feed, only, rss
from ingest_world import relations

from ingest import feed, ladder
from ingest.extract import Extractor

EXTRACTOR = Extractor(relations())
CHAD = {"subject": "Chad", "relation": "capital", "object": "N\u2019Djamena"}


def in_rss(payload, title="x"):
    return rss(f"<guid>1</guid><title>{title}</title><wised:facts>{escape(payload)}</wised:facts>")


def in_atom(payload, title="x"):
    return atom(f"<id>1</id><title>{title}</title><wised:facts>{escape(payload)}</wised:facts>")


def in_json(payload, title="x"):
    return json_feed({"id": "1", "title": title, "_wised": {"facts": json.loads(payload)}})


def linked(payload, kind="DataFeedItem", context="https://schema.org", **more):
    """Return the JSON-LD that says of a thing what a payload does."""
    items = [
        {
            "@type": "DataFeedItem",
            "item": {
                "@type": "Thing",
                "name": one["subject"],
                "additionalProperty": {
                    "@type": "PropertyValue",
                    "name": one["relation"],
                    "value": one["object"],
                },
            },
            **more,
        }
        for one in json.loads(payload)
    ]
    if kind == "DataFeedItem":
        return json.dumps([{"@context": context, **item} for item in items])
    return json.dumps({"@context": context, "@type": "DataFeed", "dataFeedElement": items})


def in_html(payload, title="x", **more):
    script = f'<p>a</p><script type="application/ld+json">{linked(payload, **more)}</script>'
    return rss(f"<guid>1</guid><title>{title}</title><description>{escape(script)}</description>")


def in_text(payload, title="x"):
    return json_feed({"id": "1", "title": title, "content_text": linked(payload, "DataFeed")})


CARRIERS = [in_rss, in_atom, in_json, in_html, in_text]
OWN = [in_rss, in_atom, in_json]


def found(document):
    """Return the facts of a document's only entry, and its dead letters."""
    item, dead = ladder.item(only(document), EXTRACTOR)
    return item.candidates, dead


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_stated_fact_is_extracted_with_the_prompts_of_its_relation(carrier):
    ((fact,), dead) = found(carrier(json.dumps([CHAD])))
    assert (fact.subject, fact.relation, fact.object) == ("Chad", "capital", "N\u2019Djamena")
    assert fact.prompts[0] == "Q: What is the capital of Chad? A:"
    assert fact.extractor == ("payload/1" if carrier in OWN else "json-ld/1")
    assert dead == ()


@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_extracted_string_is_present_in_the_payload_and_in_the_quote(carrier):
    stated = {"subject": "A & <B> \u00fc \U0001f600", "relation": "Capital", "object": "C&amp;D"}
    ((fact,), _) = found(carrier(json.dumps([stated])))
    assert (fact.subject, fact.object) == (stated["subject"], stated["object"])
    assert json.loads(fact.quote) == stated


@pytest.mark.parametrize("carrier", OWN)
def test_the_old_value_goes_along(carrier):
    ((fact,), _) = found(carrier(json.dumps([CHAD | {"old": "Fort-Lamy"}])))
    assert fact.old == "Fort-Lamy"


@pytest.mark.parametrize("carrier", CARRIERS)
def test_where_a_payload_speaks_the_patterns_are_not_asked(carrier):
    ((fact,), _) = found(carrier(json.dumps([CHAD]), title="Mali: capital is now X"))
    assert fact.subject == "Chad"


def test_without_a_payload_they_are():
    ((fact,), _) = found(rss("<guid>1</guid><title>Mali: capital is now X</title>"))
    assert (fact.subject, fact.extractor) == ("Mali", "pattern/1")


@pytest.mark.parametrize("carrier", CARRIERS)
def test_several_facts_are_several_and_one_said_twice_is_one(carrier):
    again = CHAD | {"subject": "CHAD"}
    other = CHAD | {"relation": "currency", "object": "franc"}
    facts, _ = found(carrier(json.dumps([CHAD, again, other])))
    assert [fact.relation for fact in facts] == ["capital", "currency"]


@pytest.mark.parametrize("carrier", CARRIERS)
def test_an_unknown_relation_is_a_dead_letter_that_names_the_known_and_other_facts_go_on(carrier):
    unknown = {"subject": "Chad", "relation": "mascot", "object": "goat"}
    facts, (dead,) = found(carrier(json.dumps([unknown, CHAD])))
    assert [fact.relation for fact in facts] == ["capital"]
    assert dead.code == "payload.unknown_relation"
    assert "'mascot'" in dead.message and all(name in dead.message for name in relations())
    assert json.loads(dead.raw) == unknown


@pytest.mark.parametrize(
    ("part", "value", "code"),
    [
        ("object", "", "payload.empty"),
        ("subject", "\u200b", "payload.empty"),
        ("relation", " ", "payload.empty"),
        ("object", "x" * 301, "payload.too_long"),
        ("relation", "asked", "payload.unknown_relation"),
    ],
)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_fact_that_cannot_be_used_is_a_dead_letter_alone(carrier, part, value, code):
    facts, (dead,) = found(carrier(json.dumps([CHAD | {part: value}, CHAD])))
    assert len(facts) == 1
    assert dead.code == code


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("{", "payload.bad_json"),
        ("", "payload.bad_json"),
        ('[{"a": NaN}]', "payload.not_a_number"),
        ('[{"subject": "a", "subject": "b"}]', "payload.duplicate_key"),
        ("{}", "payload.bad_shape"),
        ('"text"', "payload.bad_shape"),
        ("[1]", "payload.bad_shape"),
        ('[{"subject": "a", "relation": "capital"}]', "payload.bad_shape"),
        ('[{"subject": "a", "relation": "capital", "object": 7}]', "payload.bad_shape"),
        ('[{"subject": ["a"], "relation": "capital", "object": "b"}]', "payload.bad_shape"),
        (json.dumps([CHAD | {"old": 7}]), "payload.bad_shape"),
        (json.dumps([CHAD] * 101), "payload.too_many_facts"),
        (json.dumps([CHAD | {"object": "x" * 65536}]), "payload.too_long"),
        ("[" * 1000, "payload.bad_json"),
    ],
)
def test_a_malformed_payload_is_a_dead_letter_for_its_entry_and_others_go_on(payload, code):
    element = f"<wised:facts>{payload}</wised:facts>"
    document = rss(f"<guid>1</guid>{element}", "<guid>2</guid>")
    assert len(entries(document)) == 1
    assert codes(document) == [code]


@pytest.mark.parametrize("extension", [7, [], {}, {"facts": {}}, {"facts": [CHAD | {"old": 1}]}])
def test_a_malformed_extension_is_one_too(extension):
    document = json_feed({"id": "1", "_wised": extension}, {"id": "2", "_wised": None})
    assert len(entries(document)) == 1
    assert codes(document) == ["payload.bad_shape"]


def test_keys_that_mean_nothing_change_nothing():
    forged = CHAD | {"approved": True, "tier": "trusted", "extractor": "x", "prompts": []}
    assert found(in_json(json.dumps([forged]))) == found(in_json(json.dumps([CHAD])))


def test_an_explicit_empty_list_states_nothing_and_the_patterns_stay_silent():
    assert found(in_json("[]", title="Mali: capital is now X")) == ((), ())


@pytest.mark.parametrize("carrier", CARRIERS)
def test_the_payload_is_part_of_the_content_hash(carrier):
    one, other = (only(carrier(json.dumps([CHAD | {"object": o}]))) for o in ("X", "Y"))
    assert one.key == other.key
    assert one.content_hash != other.content_hash
    assert json.loads(one.raw)["facts"] == [CHAD | {"object": "X"}]


def test_the_same_payload_has_the_same_hash_whichever_format_carries_it():
    assert len({only(carrier(json.dumps([CHAD]))).content_hash for carrier in OWN}) == 1


def test_the_element_is_told_by_its_namespace_and_not_by_its_prefix():
    text = escape(json.dumps([CHAD]))
    ours = f'<W:facts xmlns:W="https://wised.dev/ns/1">{text}</W:facts>'
    default = f'<facts xmlns="https://wised.dev/ns/1">{text}</facts>'
    for element in (ours, default):
        assert only(atom(f"<id>1</id>{element}")).payload[0].subject == "Chad"
    other = '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:wised="http://other.org/">'
    entry = f"<entry><id>1</id><wised:facts>{text}</wised:facts></entry></feed>"
    assert only((other + entry).encode()).payload is None


def test_an_element_in_cdata_says_what_it_shows():
    stated = json.dumps([CHAD | {"object": "a &amp; <b>"}])
    document = rss(f"<guid>1</guid><wised:facts><![CDATA[{stated}]]></wised:facts>")
    assert only(document).payload[0].object == "a &amp; <b>"


@pytest.mark.parametrize(
    "document",
    [
        rss("<guid>1</guid><title>&broken;</title><wised:facts>[]</wised:facts>"),
        rss('<guid>1</guid><wised:facts type="json">[]</wised:facts>'),
    ],
    ids=["ill-formed XML", "attributes"],
)
def test_an_element_whose_text_the_parser_loses_is_a_dead_letter_that_says_why(document):
    parsed = feed.parse(document, "application/xml", NOW)
    assert [letter.code for letter in parsed.dead] == ["payload.unreadable"]
    assert parsed.entries == ()


@pytest.mark.parametrize(
    "context",
    [
        "http://schema.org/",
        {"@vocab": "https://schema.org/"},
        ["https://www.schema.org", {"x": "http://x.org/"}],
    ],
)
@pytest.mark.parametrize("kind", ["DataFeed", "DataFeedItem"])
def test_a_data_feed_may_spell_its_context_in_several_ways(context, kind):
    ((fact,), _) = found(in_html(json.dumps([CHAD]), context=context, kind=kind))
    assert fact.object == "N\u2019Djamena"


def test_an_item_of_a_graph_and_a_whole_number_are_read():
    value = {"@type": "PropertyValue", "name": "currency", "value": 12}
    item = {"name": "Chad", "additionalProperty": [value]}
    node = {"@type": ["DataFeedItem"], "item": item}
    script = json.dumps({"@context": "https://schema.org", "@graph": [node, "x"]})
    html = f'<SCRIPT TYPE="application/ld+json; charset=utf-8">{script}</SCRIPT>'
    ((fact,), _) = found(json_feed({"id": "1", "content_html": html}))
    assert (fact.relation, fact.object) == ("currency", "12")


@pytest.mark.parametrize(
    "script",
    [
        "{broken",
        '{"@context": "https://schema.org", "@type": "NewsArticle", "headline": "x"}',
        '{"@context": "https://evil.org", "@type": "DataFeed", "dataFeedElement": []}',
        '{"@context": "https://schema.org", "@type": "DataFeed", "dataFeedElement": [{"item": 7}]}',
    ],
)
def test_json_ld_that_states_no_fact_leaves_the_entry_to_the_patterns(script):
    html = escape(f'<script type="application/ld+json">{script}</script>')
    title = "<title>Mali: capital is now X</title>"
    ((fact,), dead) = found(rss(f"<guid>1</guid>{title}<description>{html}</description>"))
    assert (fact.subject, dead) == ("Mali", ())


def test_a_broken_data_feed_is_a_dead_letter():
    html = escape('<script type="application/ld+json">{"@type": "DataFeed", </script>')
    assert codes(rss(f"<guid>1</guid><description>{html}</description>")) == ["payload.bad_json"]


def test_what_a_feed_takes_back_is_a_dead_letter_that_says_what_to_do():
    facts, (dead,) = found(in_html(json.dumps([CHAD]), dateDeleted="2021-01-01"))
    assert facts == ()
    assert dead.code == "payload.withdrawn"
    assert "wised fact retract" in dead.message


def test_scripts_are_no_text():
    assert only(in_html(json.dumps([CHAD]))).text == "a"
