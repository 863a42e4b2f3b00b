"""A state folder to drive the command line on, and the command line as a user drives it."""

import contextlib
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from daemon import cli, releases
from daemon import state as states
from daemon.state import State
from daemon.store import Store, facts, timestamp
from ingest import Candidate
from wise import manifest

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Ran:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def rows(self):
        """The lines of standard output, split at tabs."""
        return [line.split("\t") for line in self.out.splitlines()]


def wised(state: State, *arguments: str) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(["-C", str(state.folder), *arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def new_state(folder: Path) -> State:
    return states.init(folder / "state", NOW)


def add_source(place: State, name: str = "world", **values: object) -> int:
    row = {
        "name": name,
        "kind": "feed",
        "location": "https://example.org/feed",
        "tier": "normal",
        "next_poll_at": timestamp(NOW),
        "created_at": timestamp(NOW),
    }
    with place.store() as store, store.write():
        return int(store.db["source"].insert({**row, **values}).last_pk)


def add_entry(state: State, source: int, title: str, link: str | None = None) -> int:
    row = {
        "source_id": source,
        "key": title,
        "content_hash": title,
        "title": title,
        "link": link,
        "received_at": timestamp(NOW),
        "raw": "{}",
    }
    with state.store() as store, store.write():
        return int(store.db["entry"].insert(row).last_pk)


def add_fact(
    state: State,
    subject: str = "Chad",
    object: str = "N'Djamena",
    *,
    relation: str = "capital",
    entry: int | None = None,
    quote: str = "a quote",
    events: tuple[str, ...] = ("hold",),
    tier: str = "normal",
    at: datetime = NOW,
) -> int:
    """Store a fact and move it along by events of its life cycle."""
    prompts = (f"The {relation} of {subject} is",)
    held_out = (f"Name the {relation} of {subject}. Answer:",)
    candidate = Candidate(subject, relation, object, None, prompts, held_out, quote, "row/1")
    with state.store() as store, store.write():
        fact_id = facts.insert(store, candidate, entry, tier, at, at)
        for event in events:
            store.transition("fact", fact_id, event, at)
    return fact_id


EDITED = ("approve", "batch", "edit", "verify")


def add_release(
    state: State,
    number: int,
    fact_ids: tuple[int, ...] = (),
    *,
    parent: int = 0,
    promote: bool = True,
    measures: str = "{}",
) -> Path:
    """Publish a small but genuine release folder and its rows."""
    folder = state.releases / f"{number:06d}"
    folder.mkdir()
    (folder / "facts.jsonl").write_text(f"release {number}\n", "utf-8")
    digest = manifest.seal(folder, {"release": number})
    with state.store() as store:
        with store.write():
            row = {"number": number, "state": "building", "parent": parent}
            store.db["release"].insert({**row, "created_at": timestamp(NOW)})
            held = [
                {"release": number, "position": i, "fact_id": one} for i, one in enumerate(fact_ids)
            ]
            store.db["release_fact"].insert_all(held)
            also = {"folder": folder.name, "manifest_sha256": digest, "measures": measures}
            store.transition("release", number, "publish", NOW, **also)
            store.transition("release", number, "verify", NOW, "passed the gate")
        if promote:
            later = NOW + timedelta(minutes=number)
            releases.promote(state, store, number, later, "passed the gate")
    return folder


def refuse(state: State, number: int, reason: str, measures: str = "{}") -> None:
    """Add a candidate that the gate refused."""
    with state.store() as store, store.write():
        row = {"number": number, "state": "building", "created_at": timestamp(NOW)}
        store.db["release"].insert(row)
        store.transition("release", number, "refuse", NOW, reason, measures=measures)


def state_of(state: State, fact_id: int) -> str:
    with state.store(read_only=True) as store:
        return facts.get(store, fact_id).state


def dump(state: State) -> tuple[str, tuple[str, ...], str]:
    """Everything that a dry run must leave alone: rows, release files, the current link."""
    with state.store(read_only=True) as store:
        rows = "\n".join(store.connection.iterdump())
    files = tuple(sorted(str(path) for path in state.releases.rglob("*")))
    link = str(state.current.resolve()) if state.current.is_symlink() else ""
    return rows, files, link


def events(store: Store) -> list[tuple[str, str, str]]:
    rows = store.rows("SELECT actor, action, subject FROM event ORDER BY seq")
    return [tuple(row) for row in rows]
