"""L1-L10: what happens to a log that is written, rotated and replaced while it is read."""

import json
import os
from datetime import UTC, datetime

import pytest
from ingest_world import relations

from ingest import log
from ingest.errors import LogError
from ingest.extract import Extractor
from ingest.types import LogPosition

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EXTRACTOR = Extractor(relations())


def lines(*subjects):
    rows = ({"subject": one, "relation": "capital", "object": "X"} for one in subjects)
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def many(first, count):
    """Rows of one length each, so that their lines break at the same bytes."""
    return lines(*(f"{n:05d}" for n in range(first, first + count)))


def subjects(poll):
    return [item.candidates[0].subject for item in poll.items]


def codes(poll):
    return [dead.code for dead in poll.dead]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "corrections.jsonl"


@pytest.fixture
def tail(path):
    return Tail(path)


class Tail:
    """A reader that remembers where it was left, as the daemon does."""

    def __init__(self, path):
        self.path, self.position = path, None

    def poll(self, **more):
        poll = log.read(self.path, self.position, EXTRACTOR, now=NOW, **more)
        self.position = poll.position
        return poll

    def rest(self, **more):
        """Return the subjects of polls until no more is left, as the daemon polls."""
        found = []
        while True:
            poll = self.poll(**more)
            found += subjects(poll)
            if not poll.more:
                return found


def append(path, data):
    with path.open("ab") as file:
        file.write(data)


def test_l01_a_partial_last_line_waits_for_its_rest(path, tail):
    whole = lines("A", "B")
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        poll = log.read(path, None, EXTRACTOR, now=NOW)
        assert subjects(poll) == ["A", "B"][: whole[:size].count(b"\n")]
        assert (poll.dead, poll.position.offset) == ((), whole.rfind(b"\n", 0, size) + 1)


def test_l01_a_line_written_in_pieces_is_one_row(path, tail):
    row = lines("A")
    for at in range(len(row)):
        append(path, row[at : at + 1])
        poll = tail.poll()
        assert subjects(poll) == (["A"] if at == len(row) - 1 else [])
        assert codes(poll) == []


@pytest.mark.parametrize(
    "name",
    [
        "corrections.jsonl.1",
        "corrections.jsonl-20260301",
        "corrections.jsonl.2026-03-01",
        "corrections.jsonl.2026-03-01T10:00:00Z",
        "corrections-20260301.jsonl",
        "corrections.1.jsonl",
        "corrections.jsonl.old",
    ],
)
def test_l02_rows_left_unread_by_a_rename_are_read_before_the_new_files(path, tail, name):
    path.write_bytes(lines("A", "B"))
    tail.poll(max_rows=1)
    append(path, lines("C"))
    path.rename(path.with_name(name))
    path.write_bytes(lines("D"))
    poll = tail.poll()
    assert (subjects(poll), poll.notes, poll.more) == (["B", "C", "D"], ("log.rotated",), False)
    append(path, lines("E"))
    poll = tail.poll()
    assert (subjects(poll), poll.notes) == (["E"], ())


@pytest.mark.parametrize("max_rows", [1, 2, 3, 100])
def test_l02_several_rotations_between_two_polls_lose_nothing(path, tail, max_rows):
    path.write_bytes(lines("A", "B"))
    tail.poll(max_rows=1)
    path.rename(path.with_name("corrections.jsonl.2"))
    path.write_bytes(lines("C", "D"))
    path.rename(path.with_name("corrections.jsonl.1"))
    path.write_bytes(lines("E", "F"))
    assert tail.rest(max_rows=max_rows) == ["B", "C", "D", "E", "F"]


def test_l02_files_of_one_moment_are_ordered_by_their_numbers(path, tail):
    path.write_bytes(lines("A"))
    tail.poll()
    for number in (3, 2, 1):
        path.rename(path.with_name(f"corrections.jsonl.{number}"))
        path.write_bytes(lines(f"after {number}"))
    for file in path.parent.iterdir():
        os.utime(file, ns=(10**18, 10**18))
    assert tail.rest() == ["after 3", "after 2", "after 1"]


def test_l02_a_writer_that_keeps_the_renamed_file_open_loses_nothing(path, tail):
    """It reopens the log only when told so; the new file is empty, or not there, until then."""
    path.write_bytes(lines("A"))
    with path.open("ab", buffering=0) as writer:
        tail.poll()
        path.rename(path.with_name("corrections.jsonl.1"))
        writer.write(lines("B"))
        assert subjects(tail.poll()) == ["B"]
        with pytest.raises(LogError, match="does not exist"):
            tail.poll()
        path.touch()
        writer.write(lines("C"))
        assert subjects(tail.poll()) == ["C"]
        assert subjects(tail.poll()) == []
        writer.write(lines("D"))
    append(path, lines("E"))
    assert tail.rest() == ["D", "E"]
    assert tail.poll().notes == ()


def test_l02_the_last_line_of_a_finished_file_needs_no_newline(path, tail):
    path.write_bytes(lines("A") + lines("B").rstrip())
    assert subjects(tail.poll()) == ["A"]
    path.rename(path.with_name("corrections.jsonl.1"))
    assert subjects(log.read(path.with_name("corrections.jsonl.1"), None, EXTRACTOR)) == ["A"]
    path.write_bytes(lines("C"))
    assert tail.rest() == ["B", "C"]


def test_l02_half_a_line_at_the_end_of_a_finished_file_is_a_dead_letter(path, tail):
    path.write_bytes(lines("A") + lines("B")[:-9])
    tail.poll()
    path.rename(path.with_name("corrections.jsonl.1"))
    path.write_bytes(lines("C"))
    poll = tail.poll()
    assert (subjects(poll), codes(poll)) == (["C"], ["row.bad_json"])
    assert poll.dead[0].location == f"corrections.jsonl.1 offset {len(lines('A'))}"


def test_l02_a_file_that_was_empty_when_last_read_is_known_by_its_inode(path, tail):
    path.touch()
    tail.poll()
    append(path, lines("A"))
    path.rename(path.with_name("corrections.jsonl.1"))
    path.write_bytes(lines("B"))
    assert tail.rest() == ["A", "B"]


def test_l02_a_rotated_file_with_the_same_rows_is_known_by_its_inode(path, tail):
    path.write_bytes(lines("A") * 100)
    assert len(tail.rest()) == 100
    append(path, lines("B"))
    path.rename(path.with_name("corrections.jsonl.1"))
    path.write_bytes(lines("A") * 100 + lines("C"))
    assert tail.rest() == ["B", *["A"] * 100, "C"]


def test_l02_backups_and_what_rotation_never_names_are_left_alone(path, tail):
    """An operator who edits a log keeps the rows that were cut out in such files."""
    path.write_bytes(lines("A", "B"))
    tail.poll(max_rows=1)
    for name in (
        "corrections.jsonl.bak",
        "corrections.jsonl~",
        "x.jsonl.1",
        "corrections.jsonl.gz",
    ):
        path.with_name(name).write_bytes(path.read_bytes())
    path.with_name("corrections.jsonl.2").symlink_to(path)
    os.mkfifo(path.with_name("corrections.jsonl.3"))
    path.write_bytes(lines("C"))
    assert tail.rest() == ["C"]


@pytest.mark.parametrize("after", [b"", lines("C"), lines("C", "D", "E", "F", "G", "H")])
def test_l03_what_a_copytruncate_took_while_nobody_read_is_in_the_copy(path, tail, after):
    path.write_bytes(lines("A", "B"))
    tail.poll()
    append(path, lines("X"))
    path.with_name("corrections.jsonl.1").write_bytes(path.read_bytes())
    os.truncate(path, 0)
    append(path, after)
    assert tail.rest() == ["X", *(json.loads(row)["subject"] for row in after.splitlines())]
    # Elastic's beats #38070: an offset beyond the file must not begin anew at each start.
    assert tail.rest() == []


def test_l03_a_truncation_without_a_copy_is_read_from_the_start_once(path, tail):
    path.write_bytes(lines("A", "B"))
    tail.poll()
    path.write_bytes(lines("C"))
    poll = tail.poll()
    assert (subjects(poll), poll.notes) == (["C"], ("log.rotated",))
    assert tail.rest() == []


def test_l04_a_rewrite_of_the_same_size_is_read_from_the_start(path, tail):
    path.write_bytes(lines("A", "B"))
    tail.poll()
    inode = path.stat().st_ino
    path.write_bytes(lines("C", "D"))
    assert (path.stat().st_ino, path.stat().st_size) == (inode, tail.position.offset)
    assert tail.rest() == ["C", "D"]


@pytest.mark.parametrize("changed", [199, 190])
def test_l04_a_rewrite_of_the_same_size_under_the_same_head_is_noticed_at_its_end(
    path, tail, changed
):
    path.write_bytes(many(0, 200))
    assert len(tail.rest()) == 200
    path.write_bytes(many(0, changed) + lines("00777") + many(changed + 1, 199 - changed))
    assert path.stat().st_size == tail.position.offset
    assert "00777" in tail.rest()


def test_l04_a_replacement_by_rename_under_the_same_head_and_end_is_noticed(path, tail):
    """As `sed -i` and most editors write: another file takes the log's place."""
    path.write_bytes(many(0, 200))
    tail.poll()
    path.with_name("new").write_bytes(many(0, 100) + lines("00777") + many(101, 99))
    path.with_name("new").replace(path)
    assert "00777" in tail.rest()


def test_l05_an_inode_used_again_by_another_file_is_no_continuation(path, tail):
    path.write_bytes(lines("A", "B"))
    tail.poll()
    path.unlink()
    path.write_bytes(lines("C", "D", "E"))
    tail.position = LogPosition(
        tail.position.offset,
        tail.position.fingerprint,
        tail.position.tail,
        str(path.stat().st_ino),  # as file systems do it at will
    )
    assert tail.rest() == ["C", "D", "E"]


@pytest.mark.parametrize("by", ["link", "pipe"])
def test_l06_a_log_replaced_by_a_link_or_a_pipe_is_refused_and_read_on_when_back(path, tail, by):
    path.write_bytes(lines("A"))
    tail.poll()
    kept = path.with_name("kept")
    path.rename(kept)
    path.symlink_to(kept) if by == "link" else os.mkfifo(path)
    with pytest.raises(LogError) as caught:
        tail.poll()
    assert caught.value.code == "log.not_regular"
    path.unlink()
    append(kept, lines("B"))
    kept.rename(path)
    assert tail.rest() == ["B"]


@pytest.mark.parametrize("is_ended", [True, False])
def test_l07_a_line_of_two_megabytes_costs_that_line_only(path, tail, is_ended):
    long = b'{"subject": "' + b"x" * 2 * 1024 * 1024 + b'"}'
    path.write_bytes(lines("A") + long + (b"\n" + lines("B") if is_ended else b""))
    poll = tail.poll()
    assert subjects(poll) == (["A", "B"] if is_ended else ["A"])
    assert codes(poll) == (["row.too_long"] if is_ended else [])
    append(path, b"" if is_ended else b"\n")
    append(path, lines("C"))
    assert subjects(tail.poll()) == ["C"]


def test_l08_nul_bytes_cost_their_line_only(path, tail):
    """File systems leave them at the end of a file when the machine loses power."""
    path.write_bytes(lines("A") + b"\0" * 5000 + b"\n" + lines("B"))
    poll = tail.poll()
    assert (subjects(poll), codes(poll)) == (["A", "B"], ["row.nul"])
    assert len(poll.dead[0].raw) == 4096
    append(path, b"\0" * 10)
    append(path, lines("C", "D"))
    poll = tail.poll()
    assert (subjects(poll), codes(poll)) == (["D"], ["row.nul"])


def test_l09_carriage_returns_change_nothing(path, tail):
    path.write_bytes(lines("A", "B").replace(b"\n", b"\r\n") + b"\r\n")
    crlf = tail.poll()
    assert (subjects(crlf), codes(crlf)) == (["A", "B"], [])
    path.with_name("lf").write_bytes(lines("A", "B"))
    lf = log.read(path.with_name("lf"), None, EXTRACTOR, now=NOW)
    assert [item.entry for item in crlf.items] == [item.entry for item in lf.items]
    append(path, lines("C").replace(b"\n", b"\r"))
    assert subjects(tail.poll()) == []
    append(path, b"\n")
    assert subjects(tail.poll()) == ["C"]


def test_l10_ten_thousand_equal_lines_are_read_in_turn_and_have_one_key(path, tail):
    path.write_bytes(lines("A") * 10_000)
    keys, polls = [], 0
    while True:
        poll = tail.poll(max_rows=500)
        keys += [item.entry.key for item in poll.items]
        polls += 1
        if not poll.more:
            break
    assert (len(keys), len(set(keys)), polls) == (10_000, 1, 20)


@pytest.mark.parametrize(
    "text", [b"[\n", b'[{"subject": "A"},\n', b'[{"subject": "A"}]\n', b" [\n"]
)
def test_a_line_that_begins_an_array_says_how_to_make_lines_of_it(path, tail, text):
    path.write_bytes(lines("A") + text)
    (dead,) = tail.poll().dead
    assert dead.code in ("row.bad_json", "row.not_an_object")
    assert "one JSON object a line" in dead.message and "jq -c '.[]'" in dead.message


def test_a_log_that_is_one_array_without_a_newline_is_refused_rather_than_waited_for(path, tail):
    """So Label Studio and Argilla export; no newline will ever come."""
    path.write_bytes(b"\xef\xbb\xbf" + b'[{"id": 1, "data": {}, "annotations": []}]')
    with pytest.raises(LogError) as caught:
        tail.poll()
    assert (caught.value.code, caught.value.retryable) == ("log.array", True)
    assert "jq -c '.[]'" in caught.value.hint
    path.write_bytes(b"[" + b"x" * 2 * 1024 * 1024 + b"]\n")
    assert "jq -c '.[]'" in tail.poll().dead[0].message


def test_a_position_of_before_inodes_were_kept_goes_on(path, tail):
    path.write_bytes(lines("A"))
    first = tail.poll().position
    tail.position = LogPosition(first.offset, first.fingerprint)
    append(path, lines("B"))
    poll = tail.poll()
    assert (subjects(poll), poll.notes) == (["B"], ())


def refused(tail):
    with pytest.raises(LogError) as caught:
        tail.poll()
    return caught.value


def test_a_folder_that_can_not_be_listed_at_a_rotation_costs_no_row(path, tail, monkeypatch):
    """Taken for a log without a past, the new file would be read, and the old one's rest lost."""
    path.write_bytes(lines("A", "B"))
    tail.poll(max_rows=1)
    path.rename(path.with_name("corrections.jsonl.1"))
    path.write_bytes(lines("C"))

    def unlistable(folder):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.iterdir", unlistable)
        why = refused(tail)
        assert why.code == "log.unreadable" and "list" in why.hint
    assert tail.rest() == ["B", "C"]


def test_a_rotated_file_that_can_not_be_opened_costs_no_row(path, tail, monkeypatch):
    path.write_bytes(lines("A", "B"))
    tail.poll(max_rows=1)
    old = path.with_name("corrections.jsonl.1")
    path.rename(old)
    path.write_bytes(lines("C"))
    opened = os.open

    def closed(name, *more, **named):
        if str(name) == str(old):
            raise PermissionError(13, "Permission denied")
        return opened(name, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", closed)
        why = refused(tail)
        assert why.code == "log.unreadable" and str(old) in str(why)
    assert tail.rest() == ["B", "C"]


def test_a_log_whose_folder_is_gone_is_missing_and_goes_on_when_it_is_back(path, tail):
    path.write_bytes(lines("A"))
    tail.poll()
    away = path.parent.with_name("away")
    path.parent.rename(away)
    assert refused(tail).code == "log.missing"
    away.rename(path.parent)
    path.write_bytes(lines("A", "B"))
    assert tail.rest() == ["B"]


def test_a_disk_that_fails_in_the_middle_is_an_error_of_the_log(path, tail, monkeypatch):
    path.write_bytes(lines("A"))

    def broken(*of, **how):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("ingest.log.complete", broken)
        assert refused(tail).code == "log.unreadable"
    assert tail.rest() == ["A"]
