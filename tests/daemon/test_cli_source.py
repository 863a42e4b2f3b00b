import json

import pytest
from cli_world import NOW, add_entry, add_fact, add_source, dump, events, new_state, wised

from daemon.polling import due


@pytest.fixture
def state(tmp_path):
    return new_state(tmp_path)


def one(state, name="world"):
    return wised(state, "source", "show", name, "--json").json["source"]


def test_an_added_feed_is_due_at_once(state):
    url = "https://example.org/feed"
    ran = wised(state, "source", "add", "feed", url, "--name", "world", "--tier", "trusted")
    assert (ran.code, ran.rows[0]) == (0, ["source world", "active"])
    assert one(state)["tier"] == "trusted"
    with state.store() as store:
        assert [s.location for s in due(store, NOW.replace(year=9999))] == [url]
        assert events(store)[-1][1:] == ("source.add", "source:1")
        assert events(store)[-1][0].startswith("operator:")


def test_what_could_not_be_read_is_shown_with_its_place_and_reason(state, tmp_path):
    log = tmp_path / "fixes.jsonl"
    log.write_text("".join(f"{{{number}\n" for number in range(7)))
    wised(state, "source", "add", "log", str(log))
    assert wised(state, "run", "--once", "--stages", "ingest").code == 0
    found = one(state, "fixes")
    assert found["dead_letters"] == 7
    assert [x["location"] for x in found["latest_dead_letters"]] == [
        f"offset {3 * number}" for number in (6, 5, 4, 3, 2)
    ]
    assert found["latest_dead_letters"][0]["code"] == "row.bad_json"
    assert "row.bad_json: not JSON" in wised(state, "source", "show", "fixes").out


def test_a_log_is_stored_by_its_absolute_path_and_named_after_its_file(state, tmp_path):
    ran = wised(state, "source", "add", "log", "fixes.jsonl")
    assert (ran.code, "fixes.jsonl is not there yet" in ran.err) == (0, True)
    assert one(state, "fixes")["location"] == str(tmp_path / "fixes.jsonl")
    assert one(state, "fixes")["tier"] == "normal"


def test_adding_twice_says_so_and_another_source_of_that_name_conflicts(state):
    add = ("source", "add", "feed", "https://example.org/feed", "--name", "world")
    wised(state, *add)
    assert wised(state, *add).rows == [["source world", "already_active"]]
    ran = wised(state, "source", "add", "feed", "https://other.org/", "--name", "world")
    assert ran.code == 4


@pytest.mark.parametrize("url", ["ftp://example.org/x", "https://", "not a url"])
def test_a_feed_needs_an_http_address(state, url):
    assert wised(state, "source", "add", "feed", url).code == 2


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65, "-x"])
def test_a_name_is_letters_digits_and_little_else(state, name):
    ran = wised(state, "source", "add", "log", "/x/../.jsonl", f"--name={name}")
    assert ran.code == 2


def test_passwords_and_query_values_are_never_shown(state):
    url = "https://user:hunter2@example.org/feed?key=s3cret"
    wised(state, "source", "add", "feed", url, "--name", "world")
    for command in (["list"], ["show", "world"], ["list", "--json"], ["show", "world", "--json"]):
        ran = wised(state, "source", *command)
        assert "https://***@example.org/feed?key=***" in ran.out
        assert "hunter2" not in ran.out + ran.err
        assert "s3cret" not in ran.out + ran.err
    recorded = wised(state, "audit", "list").out
    assert "https://***@example.org/feed?key=***" in recorded
    assert "hunter2" not in recorded
    with state.store() as store:
        assert due(store, NOW.replace(year=9999))[0].location == url


def test_pausing_and_resuming_repeat_without_harm(state):
    add_source(state)
    results = [
        wised(state, "source", verb, "world").rows[0][1]
        for verb in ("pause", "pause", "resume", "resume")
    ]
    assert results == ["paused", "already_paused", "active", "already_active"]


def test_a_source_that_was_gone_can_be_resumed_but_not_paused(state):
    add_source(state, "x", state="gone", failures=5, last_error="fetch.gone: 410")
    assert wised(state, "source", "pause", "x").code == 4
    assert wised(state, "source", "resume", "x").code == 0
    assert (one(state, "x")["state"], one(state, "x")["failures"]) == ("active", 0)


def test_removing_keeps_the_evidence_and_adding_again_revives_the_row(state):
    source = add_source(state, etag='"1"', failures=4)
    fact = add_fact(state, entry=add_entry(state, source, "a title"))
    assert wised(state, "source", "remove", "world").rows[0] == ["source world", "removed"]
    assert wised(state, "source", "remove", "world").rows == [["source world", "already_removed"]]
    assert wised(state, "source", "list", "--json").json["sources"] == []
    shown = wised(state, "fact", "show", str(fact), "--json").json["fact"]
    assert shown["evidence"][0]["source"] == "world"
    assert wised(state, "source", "resume", "world").code == 4
    ran = wised(state, "source", "add", "feed", "https://new.org/", "--name", "world")
    assert ran.code == 0
    revived = one(state)
    assert (revived["state"], revived["location"]) == ("active", "https://new.org/")
    assert (revived["failures"], revived["entries"], revived["facts"]) == (0, 1, 1)
    with state.store() as store:
        row = store.one("SELECT id, etag FROM source WHERE name = 'world'")
        assert tuple(row) == (source, None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "feed", "https://example.org/2", "--name", "second"),
        ("pause", "world"),
        ("remove", "world"),
    ],
    ids=lambda a: a[0],
)
def test_a_dry_run_says_what_would_change_and_changes_nothing(state, arguments):
    add_source(state)
    before = dump(state)
    ran = wised(state, "source", *arguments, "--dry-run")
    assert ran.code == 0
    assert f"source.{arguments[0]}" in ran.out
    assert "Nothing was changed" in ran.err
    assert dump(state) == before


def test_there_is_nothing_to_show_of_an_unknown_source(state):
    for verb in ("show", "pause", "resume", "remove"):
        assert wised(state, "source", verb, "nobody").code == 3


def test_the_operators_own_source_cannot_be_changed_or_taken(state):
    wised(state, "fact", "add", "Chad", "capital", "Abéché")
    for verb in ("pause", "resume", "remove"):
        assert wised(state, "source", verb, "operator").code == 5
    assert wised(state, "source", "add", "log", "operator.jsonl").code == 5
    with state.store() as store:
        assert due(store, NOW.replace(year=9999)) == []


ROWS = (
    '{"subject": "Chad", "relation": "capital", "object": "Abéché"}\n'
    '{"subject": "Mali", "relation": "no such", "object": "x"}\n'
    "not json\n"
)


def test_testing_a_log_shows_facts_and_dead_letters_and_stores_nothing(state, tmp_path):
    (tmp_path / "fixes.jsonl").write_text(ROWS, "utf-8")
    before = dump(state)
    found = wised(state, "source", "test", "fixes.jsonl", "--json").json
    assert [(f["subject"], f["object"]) for f in found["facts"]] == [("Chad", "Abéché")]
    assert [d["code"] for d in found["dead_letters"]] == ["row.unknown_relation", "row.bad_json"]
    assert dump(state) == before
    ran = wised(state, "source", "test", "fixes.jsonl")
    assert ran.rows[1][:3] == ["Chad", "capital", "Abéché"]
    assert "1 entries, 1 facts (1 shown), 2 dead letters" in ran.err


EDITS = (
    '{"prompt": "The capital of Chad is", "target_new": "Abéché", "ground_truth": "N\'Djamena"}\n'
    '{"prompt": "The capital of Mali is", "target_new": "x", "chosen": "x", "rejected": "y"}\n'
)


def test_a_log_has_a_format_and_a_feed_has_none(state):
    wised(state, "source", "add", "log", "fixes.jsonl")
    wised(state, "source", "add", "log", "edits.jsonl", "--format", "easyedit")
    wised(state, "source", "add", "feed", "https://example.org/feed", "--name", "world")
    shown = wised(state, "source", "list", "--json").json["sources"]
    assert {one["name"]: one["format"] for one in shown} == {
        "fixes": "auto",
        "edits": "easyedit",
        "world": None,
    }
    with state.store() as store:
        assert {s.name: s.format for s in due(store, NOW.replace(year=9999))}["edits"] == "easyedit"


def test_a_source_of_that_name_and_another_format_conflicts(state):
    add = ("source", "add", "log", "edits.jsonl", "--format")
    assert wised(state, *add, "easyedit").rows[0] == ["source edits", "active"]
    assert wised(state, *add, "easyedit").rows == [["source edits", "already_active"]]
    assert wised(state, *add, "trl").code == 4


@pytest.mark.parametrize("verb", [("add", "log"), ("test",)], ids=lambda verb: verb[0])
def test_an_unknown_format_is_refused_with_the_known_ones(state, verb):
    ran = wised(state, "source", *verb, "edits.jsonl", "--format", "csv")
    assert ran.code == 2
    assert "auto, native, easyedit" in ran.err


@pytest.mark.parametrize("verb", [("add", "feed"), ("test",)], ids=lambda verb: verb[0])
def test_a_feed_takes_no_format(state, verb):
    ran = wised(state, "source", *verb, "https://example.org/feed", "--format", "trl")
    assert (ran.code, "--format is for correction logs" in ran.err) == (2, True)


def test_testing_tells_the_format_by_the_keys_or_takes_the_one_that_is_named(state, tmp_path):
    log = tmp_path / "edits.jsonl"
    log.write_text(EDITS, "utf-8")
    test = ("source", "test", "--json")
    by_keys = wised(state, *test, "edits.jsonl").json
    assert [fact["old"] for fact in by_keys["facts"]] == ["N'Djamena"]
    (dead,) = by_keys["dead_letters"]
    assert dead["code"] == "row.ambiguous_format"
    assert "easyedit and trl" in dead["message"]
    named = wised(state, *test, "edits.jsonl", "--format", "easyedit").json
    assert [fact["object"] for fact in named["facts"]] == ["Abéché", "x"]
    wised(state, "source", "add", "log", "edits.jsonl", "--format", "easyedit")
    assert wised(state, *test, "edits").json == named
    assert wised(state, *test, "edits", "--format", "auto").json == by_keys


PAYLOAD = '[{"subject": "Chad", "relation": "currency", "object": "franc"}]'
RSS = (
    '<?xml version="1.0"?><rss version="2.0" xmlns:w="https://wised.dev/ns/1"><channel>'
    "<title>t</title><item><title>Chad: capital is now Abéché</title></item>"
    f"<item><title>x</title><w:facts>{PAYLOAD}</w:facts></item></channel></rss>"
)
JSON_FEED = json.dumps(
    {
        "version": "https://jsonfeed.org/version/1.1",
        "items": [
            {"id": "1", "title": "Chad: capital is now Abéché"},
            {"id": "2", "title": "x", "_wised": {"facts": json.loads(PAYLOAD)}},
        ],
    }
)


@pytest.mark.parametrize(("name", "document"), [("feed.xml", RSS), ("feed.json", JSON_FEED)])
def test_testing_a_feed_in_a_file_shows_its_facts_and_what_found_them(
    state, tmp_path, name, document
):
    (tmp_path / name).write_text(document, "utf-8")
    before = dump(state)
    found = wised(state, "source", "test", name, "--json").json
    assert [(f["subject"], f["object"], f["extractor"]) for f in found["facts"]] == [
        ("Chad", "Abéché", "pattern/1"),
        ("Chad", "franc", "payload/1"),
    ]
    assert dump(state) == before
    shown = wised(state, "source", "test", name).rows[2]
    assert (*shown[:3], shown[-1]) == ("Chad", "currency", "franc", "payload/1")


def test_testing_an_error_page_in_a_file_says_what_it_is(state, tmp_path):
    (tmp_path / "page.html").write_text("<!doctype html><title>404</title>", "utf-8")
    ran = wised(state, "source", "test", "page.html")
    assert ran.code == 1 and "neither RSS, Atom, JSON Feed" in ran.err


def test_testing_by_name_reads_from_the_start_again(state, tmp_path):
    log = tmp_path / "fixes.jsonl"
    log.write_text(ROWS, "utf-8")
    size = log.stat().st_size
    add_source(state, kind="log", location=str(log), log_offset=size, log_fingerprint="0" * 64)
    assert wised(state, "source", "test", "world", "--json").json["facts_found"] == 1


def test_testing_what_cannot_be_read_fails_with_the_sources_code(state):
    ran = wised(state, "source", "test", "missing.jsonl", "--json")
    assert (ran.code, ran.out) == (1, "")
    assert json.loads(ran.err)["error"]["code"] == "log.missing"


def test_testing_does_not_reach_private_addresses_unasked(state):
    ran = wised(state, "source", "test", "http://127.0.0.1:9/feed", "--json")
    assert ran.code == 1
    assert json.loads(ran.err)["error"]["code"] == "fetch.refused_address"


def test_the_noun_alone_lists(state):
    add_source(state)
    assert wised(state, "source").out == wised(state, "source", "list").out
    assert wised(state, "source").rows[1][0] == "world"


def test_private_networks_are_listed_one_by_one(state):
    add = ("source", "add", "feed", "https://example.org/feed", "--name", "world")
    wised(state, *add, "--allow-private", "fd00::/8", "--allow-private", "10.0.0.0/8")
    assert one(state)["allow_private"] == ["10.0.0.0/8", "fd00::/8"]
    assert "10.0.0.0/8,fd00::/8" in wised(state, "audit", "list", "--json").out
    again = wised(state, *add, "--allow-private", "10.0.0.0/8,fd00::/8")
    assert again.rows == [["source world", "already_active"]]
    assert wised(state, *add, "--allow-private", "any").code == 4
    wised(state, *add[:-1], "inside", "--allow-private", "any")
    assert one(state, "inside")["allow_private"] == ["any"]
    wised(state, *add[:-1], "outside")
    assert one(state, "outside")["allow_private"] == []


@pytest.mark.parametrize("verb", [("add", "feed"), ("test",)], ids=lambda verb: verb[0])
@pytest.mark.parametrize("network", ["10.0.0.1/8", "0.0.0.0/0", "inside"])
def test_what_is_no_network_is_refused(state, verb, network):
    url = "https://example.org/feed"
    ran = wised(state, "source", *verb, url, "--allow-private", network)
    assert (ran.code, "--allow-private" in ran.err) == (2, True)


def test_testing_reaches_the_networks_that_are_listed(state):
    url = "http://127.0.0.1:9/feed"
    for networks, code in (("127.0.0.0/8", "fetch.connect"), ("10.0.0.0/8", "fetch.refused_addre")):
        ran = wised(state, "source", "test", url, "--allow-private", networks, "--json")
        assert json.loads(ran.err)["error"]["code"].startswith(code)
