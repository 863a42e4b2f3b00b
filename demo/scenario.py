"""``wised demo``: the demo world end to end, through the same commands an operator types."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon import releases
from daemon.child import Worker
from daemon.errors import Conflict, Unhealthy, WisedError
from daemon.messages import Answers, Ask, Said
from daemon.render import print_json, safe_text
from daemon.state import State, init
from daemon.store import Store, facts
from daemon.store.facts import Fact
from demo import feed, story

SHOWN = 8  #: answers shown before and after
SHOWN_LINES = 4  #: of what a command prints
MEASURES = ("reliability", "generalisation", "locality_near", "locality_far", "retention")


@dataclass
class Demo:
    """A running demo: where it runs, how it talks, what it has checked."""

    state: State
    say: Callable[[str], None]
    started: float = field(default_factory=time.monotonic)
    broken: list[str] = field(default_factory=list)

    def check(self, good: bool, what: str) -> None:
        """Note and print a promise that was not kept."""
        if not good:
            self.broken.append(what)
            self.say(f"  NOT KEPT: {what}")

    def wised(self, *words: str) -> None:
        """Run a command as an operator does; raises when it fails."""
        self.say(f"\n$ wised {shlex.join(words)}")
        command = [sys.executable, "-m", "daemon.cli", "--state", str(self.state.folder), *words]
        out = None if sys.stderr.isatty() else subprocess.PIPE
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=out, text=True, check=False)
        lines = done.stdout.splitlines()
        for line in lines[:SHOWN_LINES]:
            self.say(f"  {line}")
        if len(lines) > SHOWN_LINES:
            self.say(f"  ... and {len(lines) - SHOWN_LINES} lines more")
        if done.returncode:
            raise WisedError(f"wised {words[0]} ended with {done.returncode}: {done.stderr}")


def run(folder: Path | None, json_only: bool) -> int:
    """Run the demo in ``folder`` (default: a temporary one); return the exit code."""
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wised-")))
        if (place / "state" / "wised.db").exists():
            raise Conflict(f"{place}: holds a state already", hint="name a fresh folder")
        say = (lambda line: None) if json_only else (lambda line: print(line, flush=True))
        demo = Demo(init(place / "state", datetime.now(UTC)), say)
        told = story.story()
        url = stack.enter_context(feed.served(feed.document(told.feed))).url
        log = place / "corrections.jsonl"
        log.write_text(told.log, "utf-8")
        summary = _play(demo, told, url, log)
    if json_only:
        print_json(summary)
    else:
        print(_closing(demo, summary))
    return Unhealthy.exit_code if demo.broken else 0


def _play(demo: Demo, told: story.Story, url: str, log: Path) -> dict[str, Any]:
    demo.say(f"A model of 2017, kept current. State: {demo.state.folder}")
    private = ("--allow-private", "127.0.0.0/8")
    demo.wised("source", "add", "feed", url, "--name", "offices", "--tier", "trusted", *private)
    demo.wised("source", "add", "log", str(log), "--name", "corrections", "--tier", "normal")
    demo.wised("run", "--once")
    with demo.state.store(read_only=True) as store:
        _show_intake(demo, store, told)
    demo.wised("fact", "approve", "--all-pending", "--reason", "checked against the archive")
    demo.wised("run", "--once")
    with demo.state.store(read_only=True) as store:
        gate = _show_gate(demo, store)
    worker = Worker(demo.state.config_file, demo.state.logs / "demo.log", threading.Event())
    try:
        _show_answers(demo, worker)
        _show_rollback(demo, worker)
    finally:
        worker.kill()
    with demo.state.store(read_only=True) as store:
        return _summary(demo, store, gate)


def _show_intake(demo: Demo, store: Store, told: story.Story) -> None:
    """Print what came in and what became of it, and hold it against the story."""
    letters = store.rows("SELECT location, code, message FROM dead_letter")
    count = facts.counts(store)
    demo.say("\nWhat came in, and what became of it:")
    for state, number in count.items():
        demo.say(f"  {number:4d} {state}")
    demo.say(f"  {len(letters):4d} dead letter: {safe_text(letters[0]['message'])}")
    for state in ("duplicate", "known", "conflicting"):
        for fact in facts.in_states(store, (state,), limit=2):
            demo.say(safe_text(f"  e.g. {state}: {fact.subject}, {fact.object}: {fact.reason}"))
    demo.check(sum(count.values()) >= len(told.feed) + len(told.corrections), "all facts came in")
    demo.check(count.get("duplicate") == len(told.repeated), "each repetition is a duplicate")
    demo.check(count.get("known") == 1, "the known fact is known")
    demo.check(count.get("conflicting") == 1, "the disputed fact is conflicting")
    demo.check(count.get("pending") == len(told.corrections), "corrections wait for a person")
    demo.check(len(letters) == 1, "the malformed line is a dead letter")


def _show_gate(demo: Demo, store: Store) -> dict[str, float | None]:
    """Print each promoted release's probes; return the shares over all of them."""
    made = [
        r for r in releases.all_releases(store) if r.state in ("promoted", "previous", "retained")
    ]
    totals: dict[str, list[int]] = {}
    for release in made:
        for name, measure in release.measures.items():
            total = totals.setdefault(name, [0, 0])
            total[0] += measure.right
            total[1] += measure.asked
    demo.say(f"\nThe gate, over releases {', '.join(str(r.number) for r in made if r.number)}:")
    for name, (right, asked) in totals.items():
        demo.say(f"  {name:15s} {right / asked:.4f}  ({right} of {asked})")
    demo.check(bool(totals), "a release passed the gate")
    return {n: round(totals[n][0] / totals[n][1], 4) if n in totals else None for n in MEASURES}


def _ask(demo: Demo, worker: Worker, wanted: Sequence[Fact]) -> tuple[Said, ...]:
    with demo.state.store(read_only=True) as store:
        place = releases.folder_of(demo.state, releases.promoted(store))
    request = Ask(
        release=str(place) if place else None, prompts=tuple(f.prompts[0] for f in wanted)
    )
    return worker.request(request, Answers, 600, lambda *_: None).answers


def _show_answers(demo: Demo, worker: Worker) -> None:
    with demo.state.store(read_only=True) as store:
        held = facts.of_release(store, releases.promoted(store).number)
        chosen = held[:: max(1, len(held) // SHOWN)][:SHOWN]
        sources = {f.id: facts.evidence(store, f.id)[0] for f in chosen}
    demo.say("\nBefore and after, by free generation:")
    for fact, said in zip(chosen, _ask(demo, worker, chosen), strict=True):
        source = sources[fact.id]
        demo.say(safe_text(f"  {fact.prompts[0]}"))
        demo.say(safe_text(f"      before  {said.bare}"))
        demo.say(safe_text(f"      after   {said.text}   [{source.source}: {source.quote}]"))
        demo.check(said.text == fact.object, f"fact {fact.id} is answered")
        demo.check(said.routed and said.fact == fact.id, f"fact {fact.id} is what was matched")


def _show_rollback(demo: Demo, worker: Worker) -> None:
    """Roll back, show an old answer again, roll forward."""
    with demo.state.store(read_only=True) as store:
        current = releases.promoted(store)
        newest = facts.of_release(store, current.number)[-1]
    began = time.monotonic()
    demo.wised("rollback", "--reason", "the demo shows it")
    seconds = time.monotonic() - began
    (old,) = _ask(demo, worker, [newest])
    demo.say(safe_text(f"  {newest.prompts[0]} {old.text}   (rolled back in {seconds:.2f} s)"))
    demo.check(seconds < 1, "rollback takes less than a second")
    demo.check(old.text != newest.object, "the old answer is back")
    demo.wised("release", "promote", str(current.number), "--reason", "the demo rolls forward")
    demo.wised("resume", "promote")
    (new,) = _ask(demo, worker, [newest])
    demo.say(safe_text(f"  {newest.prompts[0]} {new.text}"))
    demo.check(new.text == newest.object, "the new answer is back")


def _summary(demo: Demo, store: Store, gate: dict[str, float | None]) -> dict[str, Any]:
    count = facts.counts(store)
    row = store.one("SELECT count(*) AS n FROM dead_letter")
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    demo.check(count.get("promoted", 0) >= 150, "at least 150 facts are promoted")
    return {
        "received": sum(count.values()),
        "duplicates": count.get("duplicate", 0),
        "known": count.get("known", 0),
        "conflicting": count.get("conflicting", 0),
        "dead_letters": row["n"] if row else 0,
        "promoted": count.get("promoted", 0),
        "release": releases.promoted(store).number,
        "seconds": round(time.monotonic() - demo.started, 1),
        "peak_mb": peak // 1024,
        "cores": os.cpu_count(),
        "gate": gate,
        "broken": demo.broken,
    }


def _closing(demo: Demo, summary: dict[str, Any]) -> str:
    promoted, release = summary["promoted"], summary["release"]
    how = "broken" if demo.broken else "kept"
    return (
        f"\n{promoted} facts answered by release {release} after {summary['seconds']} s, "
        f"{summary['peak_mb']} MB at most. All promises {how}."
        + "".join(f"\n  NOT KEPT: {line}" for line in demo.broken)
    )
