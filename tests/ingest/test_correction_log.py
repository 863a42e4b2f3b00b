"""Tailing a correction log."""

import hashlib
import json
import os
import tracemalloc
from datetime import UTC, datetime

import pytest
from ingest_world import relations

from ingest import log
from ingest.errors import LogError
from ingest.extract import Extractor

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EXTRACTOR = Extractor(relations())


def row(subject, **more):
    return {"subject": subject, "relation": "capital", "object": "X", **more}


def lines(*subjects):
    return b"".join(json.dumps(row(subject)).encode() + b"\n" for subject in subjects)


def subjects(poll):
    return [item.candidates[0].subject for item in poll.items]


def codes(poll):
    return [dead.code for dead in poll.dead]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "corrections.jsonl"


def read(path, position=None, **more):
    return log.read(path, position, EXTRACTOR, now=NOW, **more)


def test_a_log_is_read_from_where_it_was_left(path):
    path.write_bytes(lines("A", "B"))
    first = read(path)
    assert subjects(first) == ["A", "B"]
    assert first.position.offset == len(lines("A", "B"))
    assert first.position.fingerprint == hashlib.sha256(lines("A", "B")).hexdigest()
    assert subjects(read(path, first.position)) == []
    with path.open("ab") as file:
        file.write(lines("C"))
    second = read(path, first.position)
    assert (subjects(second), second.notes, second.more) == (["C"], (), False)


def test_a_line_without_its_newline_waits_for_the_rest(path):
    whole = lines("A", "B")
    path.write_bytes(whole[:-5])
    first = read(path)
    assert subjects(first) == ["A"]
    path.write_bytes(whole)
    assert subjects(read(path, first.position)) == ["B"]


def test_a_poll_stops_at_its_rows_and_says_that_more_are_left(path):
    path.write_bytes(lines("A", "B", "C"))
    first = read(path, max_rows=2)
    assert (subjects(first), first.more) == (["A", "B"], True)
    second = read(path, first.position, max_rows=2)
    assert (subjects(second), second.more) == (["C"], False)


def test_a_poll_stops_at_its_bytes_too(path, monkeypatch):
    monkeypatch.setattr(log, "_POLL_BYTES", len(lines("A")) + 1)
    path.write_bytes(lines("A", "B", "C"))
    first = read(path)
    assert (subjects(first), first.more) == (["A", "B"], True)


def test_exactly_the_rows_of_a_poll_leave_no_more(path):
    path.write_bytes(lines("A", "B"))
    assert not read(path, max_rows=2).more


def test_a_row_is_keyed_by_its_content_and_not_by_its_spelling(path):
    path.write_bytes(
        b'{"subject":"A","relation":"capital","object":"\\u00e9"}\n'
        b'{ "object": "\xc3\xa9", "subject": "A", "relation": "capital" }\n'
    )
    one, two = read(path).items
    canonical = '{"object":"\u00e9","relation":"capital","subject":"A"}'.encode()
    assert one.entry.key == two.entry.key == hashlib.sha256(canonical).hexdigest()
    assert one.entry.raw != two.entry.raw


@pytest.mark.parametrize("rewritten", [b"", lines("Z"), lines("Z", "Y", "X", "W")])
def test_a_truncated_or_replaced_log_is_read_from_its_start(path, rewritten):
    path.write_bytes(lines("A", "B", "C"))
    position = read(path).position
    path.write_bytes(rewritten)
    poll = read(path, position)
    assert poll.notes == ("log.rotated",)
    assert poll.position.offset == len(rewritten)
    assert len(poll.items) == rewritten.count(b"\n")


def test_a_log_rewritten_under_the_same_head_is_noticed_by_its_line_ends(path):
    head = lines(*("A" * 8 for _ in range(30)))
    assert len(head) > 1024
    path.write_bytes(head + lines("B"))
    position = read(path).position
    path.write_bytes(head + lines("BB", "C"))
    assert read(path, position).notes == ("log.rotated",)


def test_a_bad_line_is_a_dead_letter_at_its_offset_and_the_next_is_read(path):
    path.write_bytes(b"nonsense\n" + lines("A"))
    poll = read(path)
    assert subjects(poll) == ["A"]
    (dead,) = poll.dead
    assert (dead.location, dead.code, dead.raw) == ("offset 0", "row.bad_json", "nonsense")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"a": NaN}', "row.not_a_number"),
        (b'{"a": -Infinity}', "row.not_a_number"),
        (b'{"prompt": "p", "right": "r", "a": 1e999}', "row.not_a_number"),
        (b'{"prompt": "p", "prompt": "q", "right": "r"}', "row.duplicate_key"),
        (b'{"prompt": "p", "right": "r", "x": {"a": 1, "a": 2}}', "row.duplicate_key"),
        (b'{"prompt": "\\ud800", "right": "r"}', "row.surrogate"),
        (b'{"prompt": "a\\u0000b", "right": "r"}', "row.nul"),
        (b'{"prompt": "a\x00b", "right": "r"}', "row.nul"),
        (b"\x00\x00\x00", "row.nul"),
        (b'["a"]', "row.not_an_object"),
        (b"7", "row.not_an_object"),
        (b'{"prompt": "\xff", "right": "r"}', "row.bad_encoding"),
        (b'{"a": ' + b"9" * 5000 + b"}", "row.bad_json"),
        (b"[" * 100_000, "row.bad_json"),
        (b'{"relation": "nope", "subject": "a", "object": "b"}', "row.unknown_relation"),
    ],
)
def test_hostile_lines_are_dead_letters(path, line, code):
    path.write_bytes(lines("A") + line + b"\n" + lines("B"))
    poll = read(path)
    assert (subjects(poll), codes(poll)) == (["A", "B"], [code])
    assert poll.dead[0].location == f"offset {len(lines('A'))}"
    assert len(poll.dead[0].raw.encode()) <= 4096


def test_an_overlong_line_is_skipped_without_being_held(path):
    with path.open("wb") as file:
        file.write(lines("A"))
        for _ in range(24):
            file.write(b"x" * 1024 * 1024)
        file.write(b"\n" + lines("B"))
    tracemalloc.start()
    poll = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 1024 * 1024
    assert codes(poll) == ["row.too_long"]
    assert len(poll.dead[0].raw) == 4096
    # The line filled this poll's bytes; the next one goes on behind it.
    assert subjects(poll) + subjects(read(path, poll.position)) == ["A", "B"]


def test_a_line_of_just_the_limit_is_read(path):
    head = json.dumps(row("A", pad="")).encode()
    limit = 1024 * 1024
    fits = json.dumps(row("A", pad="x" * (limit - len(head)))).encode()
    path.write_bytes(fits + b"\n" + fits[:-2] + b'x"}\n')
    assert len(fits) == limit
    poll = read(path)
    assert (subjects(poll), codes(poll)) == (["A"], ["row.too_long"])


def test_an_overlong_line_that_is_still_being_written_waits(path):
    path.write_bytes(lines("A") + b"x" * (2 * 1024 * 1024))
    poll = read(path)
    assert (subjects(poll), codes(poll)) == (["A"], [])
    assert poll.position.offset == len(lines("A"))


def test_a_byte_order_mark_carriage_returns_and_blank_lines_are_no_trouble(path):
    path.write_bytes(
        b"\xef\xbb\xbf" + lines("A").replace(b"\n", b"\r\n") + b"\r\n  \n" + lines("B")
    )
    poll = read(path)
    assert (subjects(poll), codes(poll)) == (["A", "B"], [])


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"date": "2017-03-28"}, datetime(2017, 3, 28, tzinfo=UTC)),
        ({"ts": "2017-03-28T10:00:00+02:00"}, datetime(2017, 3, 28, 8, tzinfo=UTC)),
        (
            {"ts": "2017-03-28T10:00:00Z", "date": "2000-01-01"},
            datetime(2017, 3, 28, 10, tzinfo=UTC),
        ),
        ({"ts": "9999-12-31"}, None),
        ({"ts": "0001-01-01T00:00:00+14:00"}, None),
        ({"ts": 12}, None),
        ({}, None),
    ],
)
def test_a_rows_date_is_kept_when_credible(path, more, expected):
    path.write_text(json.dumps(row("A", **more)) + "\n")
    assert read(path).items[0].entry.published == expected


def test_a_missing_log_is_an_error_worth_another_attempt(path):
    with pytest.raises(LogError) as caught:
        read(path)
    assert (caught.value.code, caught.value.retryable) == ("log.missing", True)


def make_link(path):
    target = path.with_name("target")
    target.write_bytes(lines("A"))
    path.symlink_to(target)


@pytest.mark.parametrize("make", [make_link, os.mkfifo, os.mkdir], ids=["link", "pipe", "folder"])
def test_anything_but_a_regular_file_is_refused_at_once(path, make):
    make(path)
    with pytest.raises(LogError) as caught:
        read(path)
    assert caught.value.code == "log.not_regular"


def test_ten_thousand_equal_lines_have_one_key(path):
    path.write_bytes(lines("A") * 10_000)
    poll = read(path, max_rows=20_000)
    assert len(poll.items) == 10_000
    assert len({item.entry.key for item in poll.items}) == 1
