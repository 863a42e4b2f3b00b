"""Parsing a feed in a process of its own.

A few hundred kilobytes can keep the XML and HTML parsers busy for hours or fill the memory; the
process ends at its limits, and the daemon goes on. Starting it costs about 0.2 s.
"""

from __future__ import annotations

import json
import math
import resource
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ingest.entries import Parsed
from ingest.errors import FeedError
from ingest.types import DeadLetter, Entry, Stated

#: -I: no environment, no current folder; the packages are those that this process runs
_COMMAND = (
    "import sys; sys.path.insert(0, sys.argv[1]); from ingest.isolated import _serve; _serve()"
)
_ROOT = Path(__file__).resolve().parent.parent
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """What parsing one document may cost; 15 MB of ordinary RSS took 5 s and under 128 MB."""

    seconds: float = 30.0
    megabytes: int = 512  #: of address space


def parse(
    body: bytes,
    content_type: str | None,
    now: datetime,
    base: str | None = None,
    limits: ParseLimits | None = None,
) -> Parsed:
    """Return what `ingest.feed.parse` does, or raise its FeedError.

    Raises FeedError ``feed.too_costly`` at a limit and ``feed.parser_died`` for any other end.
    """
    limits = limits or ParseLimits()
    header = {
        "content_type": content_type,
        "now": now.isoformat(),
        "base": base,
        "seconds": limits.seconds,
        "megabytes": limits.megabytes,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _COMMAND, str(_ROOT)],
            input=json.dumps(header).encode() + b"\n" + body,
            capture_output=True,
            timeout=limits.seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise _too_costly(f"{limits.seconds:g} s") from error
    if done.returncode == -signal.SIGXCPU:
        raise _too_costly(f"{limits.seconds:g} s")
    if done.returncode != 0:
        raise _died(done.returncode, done.stderr)
    return _unpacked(json.loads(done.stdout))


def _too_costly(what: str) -> FeedError:
    return FeedError("feed.too_costly", f"parsing the document takes more than {what}")


def _died(code: int, stderr: bytes) -> FeedError:
    last = stderr.decode(errors="replace").strip().rpartition("\n")[2][:300]
    return FeedError("feed.parser_died", f"the parser ended with code {code}: {last}")


def _packed(parsed: Parsed) -> dict[str, Any]:
    entries = [asdict(entry) for entry in parsed.entries]
    for entry in entries:
        entry["published"] = entry["published"] and entry["published"].isoformat()
    return {"entries": entries, "dead": [asdict(letter) for letter in parsed.dead]}


def _unpacked(answer: dict[str, Any]) -> Parsed:
    if "error" in answer:
        raise FeedError(**answer["error"])
    dead = (DeadLetter(**letter) for letter in answer["dead"])
    return Parsed(tuple(map(_entry, answer["entries"])), tuple(dead))


def _entry(fields: dict[str, Any]) -> Entry:
    published, payload = fields["published"], fields["payload"]
    if payload is not None:
        payload = tuple(Stated(**one) for one in payload)
    at = published and datetime.fromisoformat(published)
    return Entry(**{**fields, "published": at, "payload": payload})


def _answer(header: dict[str, Any], body: bytes) -> dict[str, Any]:
    from ingest import feed

    now = datetime.fromisoformat(header["now"])
    try:
        try:
            return _packed(feed.parse(body, header["content_type"], now, header["base"]))
        except MemoryError as error:
            raise _too_costly(f"{header['megabytes']} MB") from error
    except FeedError as why:
        return {"error": {"code": why.code, "message": why.message, "hint": why.hint}}


def _serve() -> None:
    """Parse the document on stdin within its limits; the answer goes to stdout as JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's is for the daemon
    header = json.loads(sys.stdin.buffer.readline())
    seconds = math.ceil(header["seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    size = header["megabytes"] * _MIB
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    sys.stdout.write(json.dumps(_answer(header, sys.stdin.buffer.read())))
