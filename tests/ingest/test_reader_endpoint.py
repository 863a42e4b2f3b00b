"""The reader behind HTTP, against a real server on loopback."""

import gzip
import socket
import threading
import time

import pytest
from reader_server import completion, drip, hang, raw, says, serving, stated, status
from test_reading import ASKED, EXTRACT

from ingest import ReaderError
from ingest.endpoint import MAX_BODY_BYTES, Endpoint
from ingest.reading import read, schema


def reader(server, **values):
    return Endpoint(server.url, "a-model", **{"timeout_seconds": 10, **values})


def error(act, **values):
    with serving(act) as server, pytest.raises(ReaderError) as caught:
        reader(server, **values).read(ASKED)
    return caught.value


def test_an_honest_endpoint_is_asked_with_the_schema_and_its_facts_are_kept():
    with serving(says(stated(("Chad", "capital", "Abéché")))) as server:
        found = read(ASKED, reader(server), EXTRACT)
        ((path, headers, body),) = server.seen
    assert [(c.subject, c.object, c.extractor) for c in found.candidates] == [
        ("Chad", "Abéché", "reader-endpoint/1:a-model")
    ]
    assert path == "/v1/chat/completions"
    assert body["model"] == "a-model"
    assert body["temperature"] == 0
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "facts", "strict": True, "schema": schema(ASKED)},
    }
    assert body["messages"] == [{"role": "user", "content": ASKED.prompt}]
    assert "Authorization" not in headers


def test_a_compressed_answer_is_read():
    packed = gzip.compress(completion(stated(("Mali", "capital", "Bamako"))))
    with serving(raw(packed, Content_Encoding="gzip")) as server:
        assert len(read(ASKED, reader(server), EXTRACT).candidates) == 1


def test_the_key_goes_into_the_header_and_nowhere_else():
    with serving(status(401)) as server:
        asked = reader(server, key="sk-very-secret")
        with pytest.raises(ReaderError) as caught:
            asked.read(ASKED)
        ((_, headers, body),) = server.seen
    assert headers["Authorization"] == "Bearer sk-very-secret"
    assert "sk-very-secret" not in f"{body} {asked!r} {caught.value} {caught.value.hint}"
    assert caught.value.code == "reader.status_401"
    assert not caught.value.is_entrys_own


@pytest.mark.parametrize("key", ["two\r\nX-Evil: 1", "a b", "schlüssel"])
def test_a_key_that_is_no_header_is_refused_without_being_shown(key):
    why = error(says(""), key=key)
    assert why.code == "reader.bad_key"
    assert key not in str(why)
    assert why.__cause__ is None


@pytest.mark.parametrize(
    "act",
    [
        says("Sure! Here are the facts."),
        says('{"facts": "all of them"}'),
        says('{"facts": []} and more'),
    ],
    ids=["prose", "wrong shape", "more"],
)
def test_a_message_that_is_not_the_form_is_a_bad_answer(act):
    with serving(act) as server, pytest.raises(ReaderError) as caught:
        read(ASKED, reader(server), EXTRACT)
    assert caught.value.code == "reader.bad_answer"


@pytest.mark.parametrize(
    "act",
    [
        says(None),
        says(["a", "list"]),
        raw(b"<html>"),
        raw(b"\xff\xfe"),
        raw(b"[]"),
        raw(b'{"choices": []}'),
        raw(b'{"choices": [7]}'),
        raw(b'{"choices": {"0": {}}}'),
        raw(b'{"choices": [{"message": {"content": "a"}}], "choices": []}'),
        raw(b"[" * 100_000),
    ],
)
def test_an_envelope_that_is_none_is_a_bad_answer(act):
    why = error(act)
    assert (why.code, why.is_entrys_own) == ("reader.bad_answer", True)


def test_facts_that_are_not_in_the_text_are_dropped_whoever_says_them():
    lies = stated(("Chad", "capital", "Moscow"), ("Chad", "ruler", "Abéché"))
    with serving(says(lies)) as server:
        found = read(ASKED, reader(server), EXTRACT)
    assert found.candidates == ()
    assert found.dropped == {"read.not_in_text": 1, "read.unknown_relation": 1}


@pytest.mark.parametrize(("code", "own"), [(400, True), (404, False), (429, False), (500, True)])
def test_a_status_says_whether_the_entry_may_be_to_blame(code, own):
    why = error(status(code))
    assert (why.code, why.is_entrys_own) == (f"reader.status_{code}", own)


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_is_refused_and_the_text_goes_nowhere_else(code):
    with serving(says(stated())) as other, serving(status(code, Location=other.url)) as server:
        with pytest.raises(ReaderError) as caught:
            reader(server, key="sk-x").read(ASKED)
        assert (caught.value.code, other.seen) == ("reader.redirect", [])


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "bomb"])
def test_a_huge_answer_is_cut_off(packed):
    body = b" " * (MAX_BODY_BYTES + 1)
    act = raw(gzip.compress(body), Content_Encoding="gzip") if packed else raw(body)
    assert error(act).code == "reader.too_large"


@pytest.mark.parametrize("act", [drip, hang], ids=["drip", "silence"])
def test_a_slow_answer_ends_at_the_deadline_of_the_whole(act):
    began = time.monotonic()
    assert error(act, timeout_seconds=0.6).code == "reader.timeout"
    assert time.monotonic() - began < 5


def test_a_server_that_is_not_there_is_no_entrys_fault():
    with pytest.raises(ReaderError) as caught:
        Endpoint("http://127.0.0.1:9/v1", "m", 5).read(ASKED)
    why = caught.value
    assert (why.code, why.is_entrys_own) == ("reader.connect", False)


def test_a_connection_that_breaks_off_is_no_entrys_fault():
    def leave(handler, body):
        handler.connection.shutdown(socket.SHUT_RDWR)

    assert error(leave).code == "reader.broken"


def test_a_daemon_that_stops_does_not_wait_for_the_answer():
    stop = threading.Event()
    with serving(hang) as server:
        threading.Timer(0.3, stop.set).start()
        began = time.monotonic()
        with pytest.raises(ReaderError) as caught:
            reader(server, stop=stop, timeout_seconds=30).read(ASKED)
        assert time.monotonic() - began < 5
    assert caught.value.code == "reader.stopped"
