"""What an operator does after the stream: take facts back, go back, make a release again."""

from __future__ import annotations

import random
import subprocess
import sys
import time

from bench.lifelong_stream import Stream
from bench.lifelong_world import SEED, Asked
from daemon import releases
from daemon.cli import verification
from daemon.store import facts
from daemon.store.facts import Fact

RETRACTED, OTHERS = 20, 200  #: facts that are taken back; facts that must stay as they are


def run(stream: Stream) -> None:
    """Do all of it and print what came of it."""
    _go_back(stream)
    held = facts.of_release(stream.store, releases.promoted(stream.store).number)
    drawn = random.Random(SEED).sample(held, 2 * RETRACTED + OTHERS)
    first, second, others = (
        drawn[:RETRACTED],
        drawn[RETRACTED : 2 * RETRACTED],
        drawn[2 * RETRACTED :],
    )
    before = stream.ask(_asked(others))
    print(
        "retracted with the next cycle: " + _retract(stream, first, others, before, at_once=False),
        flush=True,
    )
    print("retracted at once: " + _retract(stream, second, others, before, at_once=True))


def _go_back(stream: Stream) -> None:
    """Roll back, ask and make again what answers then, and go forward again."""
    newest = releases.promoted(stream.store).number
    older = newest - 1
    seconds = _timed(stream, "rollback", "--to", str(older))
    print(f"rolled back to release {older} in {seconds:.2f} s", flush=True)
    begun = time.monotonic()
    found = verification.verified(stream.state, older, rebuild=True, answers=True)
    seconds = time.monotonic() - begun
    print(
        f"release {older}: made again with the same bytes, {found.answers} recorded answers"
        f" given again, {seconds:.0f} s",
        flush=True,
    )
    _timed(stream, "release", "promote", str(newest))
    _timed(stream, "resume", "promote")


def _asked(some: list[Fact]) -> list[Asked]:
    return [Asked(fact.prompts[0], fact.object) for fact in some]


def _retract(
    stream: Stream,
    gone: list[Fact],
    others: list[Fact],
    before: list[tuple[str, str]],
    *,
    at_once: bool,
) -> str:
    """Take facts back; say what is answered after it, of those and of others."""
    words = ["--now"] if at_once else []
    seconds = _timed(stream, "fact", "retract", *(str(fact.id) for fact in gone), *words)
    if not at_once:
        while stream.service.work():
            pass
    bare = sum(said == old for said, old in stream.ask(_asked(gone)))
    after = stream.ask(_asked(others))
    same = sum(one == other for one, other in zip(before, after, strict=True))
    return (
        f"{bare} of {len(gone)} answered as by the bare model, {same} of {len(others)} others as"
        f" before; the command took {seconds:.2f} s"
    )


def _timed(stream: Stream, *words: str) -> float:
    """Run a wised command on the stream's state; return its seconds."""
    command = [sys.executable, "-m", "daemon.cli", "-C", str(stream.state.folder), *words]
    begun = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun
