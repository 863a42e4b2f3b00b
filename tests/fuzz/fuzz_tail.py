"""Fuzz target: the tail of a correction log that is written, rotated and rewritten between reads.

An input is a history, a step a byte; the low half names the step, the high half is its number.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import promises

from ingest import lines, log
from ingest.errors import LogError

_EXTRACTOR = promises.extractor()
_MAX_STEPS = 64
#: instead of 1 MiB, so that lines over the limit are in reach
_MAX_LINE_BYTES = 600
_JUNK = (
    b"not json\n",
    b"\n \r\n",
    b"[1]\n",
    b"x" * 700 + b"\n",
    b'{"prompt":\0"a"}\n',
    b'{"prompt":"p","right":"\xff"}\n',
    b"\xef\xbb\xbf",
    b"{" * 40 + b"\n",
)


class _World:
    """A log in a folder, what was written to it and what was read of it."""

    def __init__(self, folder):
        self.path = Path(folder) / "log.jsonl"
        self.position = None
        self.seen = []  #: numbers of the rows that were read, in order
        self.due = []  #: numbers of the rows that a first read must bring, then those written
        self.written = 0
        self.rotations = 0
        self.is_rewritten = False  #: a row may be read again, and one not read yet may be gone
        self.is_broken = False  #: what the file ends in is no row, and spoils the next

    def _append(self, data, path=None):
        with open(path or self.path, "ab") as file:
            file.write(data)

    def row(self, number, end=b"\n"):
        """Write rows with numbers of their own."""
        for _ in range(1 + number % 4):
            fact = {"prompt": f"Question {self.written}?", "right": f"answer {self.written}"}
            data = json.dumps(fact | {"note": "n" * (number * 16)}).encode()
            self._append(data + end)
            if not self.is_broken:
                self.due.append(self.written)
            self.is_broken = False
            self.written += 1

    def row_with_carriage_return(self, number):
        self.row(number, b"\r\n")

    def junk(self, number):
        """Write what is no row; most of it ends its line."""
        data = _JUNK[number % len(_JUNK)]
        is_mark = data == _JUNK[6] and not self._size()  # allowed at the start, and nothing there
        self._append(data)
        self.is_broken = not data.endswith(b"\n") and not is_mark

    def part(self, number):
        """Write the beginning of a line."""
        self._append(b'{"prompt": "never'[: 1 + number])
        self.is_broken = True

    def rotate(self, number):
        """Rename the log to a number, and the older ones up; the new one comes with its rows."""
        if not self.path.exists():
            return
        self._make_room()
        os.rename(self.path, self._numbered(1))
        if number % 2:
            self.path.touch()

    def copy_and_cut(self, _number):
        """Copy the log to a number and truncate it, as logrotate's copytruncate does."""
        if not self.path.exists():
            return
        if self._is_at(self.path) and self.position is not None:
            read = self.path.read_bytes()[: self.position.offset]
            # Rows are told apart by their numbers; what has none can be written again as it was,
            # and then nothing shows that the log is another.
            self.is_rewritten |= b"Question" not in read
        self._make_room()
        shutil.copy(self.path, self._numbered(1))
        os.truncate(self.path, 0)

    def write_late(self, number):
        """Write a row to the file that the log was rotated to, while nothing follows it."""
        if self.rotations and not self._size() and not self._is_at(self.path):
            last = self._numbered(1)
            if last.read_bytes()[-1:] in (b"", b"\n"):
                fact = {"prompt": f"Question {self.written}?", "right": "late"}
                self._append(json.dumps(fact).encode() + b"\n", last)
                self.due.append(self.written)
                self.written += 1

    def cut(self, number):
        """Truncate the log to a part of its size."""
        if self.path.exists():
            os.truncate(self.path, self._size() * (number % 4) // 4)
            self._rewritten()

    def replace(self, number):
        """Put another log in its place under the same name, with rows of its own."""
        other = self.path.with_name("new")
        other.write_bytes(b"")
        os.replace(other, self.path)
        self._rewritten()
        self.row(number)

    def read(self, number):
        """Read on, a few rows at most."""
        before = self.position
        try:
            poll = log.read(self.path, before, _EXTRACTOR, 1 + number, promises.NOW)
        except LogError as why:
            promises.refusal(why, "log.missing", "log.array")
            return None
        assert poll.position is not None
        self.position = poll.position
        self._judge_position(poll.position)
        assert len(poll.items) + len(poll.dead) <= 1 + number
        for item in poll.items:
            promises.entry(item.entry)
            promises.candidate(item.candidates[0])
            prompt = json.loads(item.entry.raw)["prompt"]
            self.seen.append(int(prompt.removeprefix("Question ").removesuffix("?")))
        for letter in poll.dead:
            promises.dead_letter(letter, "row.")
        return poll

    def drain(self):
        """Read until nothing is left; that takes no more reads than there are lines."""
        for _ in range(self.written + _MAX_STEPS * 4 + 8):
            before = self.position
            poll = self.read(3)
            if poll is None or (not poll.more and poll.position == before):
                return
        raise AssertionError("the log never ends")

    def left(self):
        """Return the numbers of the rows that stand complete in the log now."""
        found = set()
        data = self.path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        for line in data.split(b"\n")[:-1]:
            try:
                prompt = json.loads(line.decode())["prompt"]
                found.add(int(prompt.removeprefix("Question ").removesuffix("?")))
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
        return found

    def _make_room(self):
        """Rename the older files up, for the log to become the first of them."""
        for older in range(self.rotations, 0, -1):
            os.rename(self._numbered(older), self._numbered(older + 1))
        self.rotations += 1
        self.is_broken = False
        if self.position is None:
            self.due.clear()  # what was rotated before the first read is history

    def _numbered(self, number):
        return self.path.with_name(f"{self.path.name}.{number}")

    def _size(self):
        return self.path.stat().st_size if self.path.exists() else 0

    def _rewritten(self):
        self.is_rewritten = True
        data = self.path.read_bytes()
        self.is_broken = bool(data) and not data.endswith(b"\n")

    def _is_at(self, path):
        """Tell whether reading goes on in a file, or has not begun."""
        if self.position is None:
            return True
        return path.exists() and str(path.stat().st_ino) == self.position.inode

    def _judge_position(self, position):
        """It is within its file and just after a line, unless that file is finished."""
        files = [self.path, *map(self._numbered, range(1, self.rotations + 1))]
        at = [file for file in files if self._is_at(file)]
        assert len(at) == 1, position
        data = at[0].read_bytes()
        assert 0 <= position.offset <= len(data), position
        is_end = at[0] != self.path and position.offset == len(data)
        assert (
            position.offset == 0 or is_end or data[position.offset - 1 : position.offset] == b"\n"
        )


_STEPS = (
    _World.row,
    _World.read,
    _World.rotate,
    _World.part,
    _World.junk,
    _World.write_late,
    _World.row_with_carriage_return,
    _World.read,
    _World.row,
    _World.read,
    _World.copy_and_cut,
    _World.row,
    _World.read,
    _World.row,
    _World.cut,
    _World.replace,
)


def check(data):
    """Live through one history, then read what is left, and assert what came of each row."""
    with (
        mock.patch.object(lines, "MAX_LINE_BYTES", _MAX_LINE_BYTES),
        tempfile.TemporaryDirectory() as folder,
    ):
        world = _World(folder)
        for step in data[:_MAX_STEPS]:
            _STEPS[step & 15](world, step >> 4)
        # A line at the end shows the log that what went before is complete.
        world._append(b"\n")
        world.is_broken = False
        world.row(0)
        world.drain()
        assert set(world.seen) <= set(range(world.written))
        assert world.left() <= set(world.seen), (world.left() - set(world.seen), world.seen)
        if not world.is_rewritten:
            assert world.seen == world.due, (world.seen, world.due)
