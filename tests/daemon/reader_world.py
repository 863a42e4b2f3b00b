"""A state whose daemon reads free text: a feed of prose and an endpoint, both on loopback."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from world import START, new_state

from daemon import polling, readers
from daemon.config import Config
from daemon.reading import Reads
from daemon.state import State
from daemon.store import Store, timestamp

PROSE = "After the vote in Chad, the post of head of government went to Succès Masra on Monday."
FACT = ("Chad", "head_of_government", "Succès Masra")


def atom(*texts: str) -> bytes:
    entries = "".join(
        f"<entry><id>urn:{n}</id><title>News {n}</title><updated>2023-12-31T00:00:00Z</updated>"
        f"<content type='text'>{escape(text)}</content></entry>"
        for n, text in enumerate(texts)
    )
    return f"<feed xmlns='http://www.w3.org/2005/Atom'>{entries}</feed>".encode()


class Log:
    """Remembers what was logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(("error", event, fields))


def write_config(state: State, **section: object) -> None:
    """Set [extraction] in the state's own file."""
    text = state.config_file.read_text("utf-8")
    before, _, rest = text.partition("[extraction]")
    _, _, after = rest.partition("\n[policies]")
    lines = "".join(f"{key} = {toml(value)}\n" for key, value in section.items())
    state.config_file.write_text(f"{before}[extraction]\n{lines}\n[policies]{after}", "utf-8")


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


class World:
    """A daemon's reading, step by step, at a clock that only moves when told to."""

    def __init__(self, folder: Path, server: Any, tier: str = "trusted", **section: object) -> None:
        self.state = new_state(folder)
        values = {"reader": "endpoint", "model": "m", "endpoint": server.url, "timeout_seconds": 5}
        write_config(self.state, **{**values, **section})
        self.config: Config = self.state.config()
        self.store: Store = self.state.store()
        self.now, self.log, self.server = START, Log(), server
        row = {"name": "prose", "kind": "feed", "location": f"{server.root}/feed", "tier": tier}
        row |= {
            "allow_private": "any",
            "next_poll_at": timestamp(START),
            "created_at": timestamp(START),
        }
        with self.store.write():
            self.store.insert("source", row)
        self.extract = polling.extractor(self.config)
        self.reads = self.new_reads()

    def new_reads(self) -> Reads:
        import threading

        def never(request: object) -> Any:
            raise AssertionError("an endpoint needs no worker")

        reader = readers.configured(self.config, never, threading.Event())
        return Reads(self.store, self.config, reader, self.extract, self.log)

    def poll(self) -> polling.Polled:
        (source,) = polling.due(self.store, self.now + timedelta(days=9))
        return polling.poll(self.store, source, self.config, self.extract, self.now)

    def read(self, minutes: float = 0) -> int:
        self.now += timedelta(minutes=minutes)
        return self.reads.run(lambda: self.now)

    def unread(self) -> list[int]:
        rows = self.store.rows("SELECT attempts FROM unread ORDER BY entry_id")
        return [row["attempts"] for row in rows]

    def facts(self) -> list[tuple[str, str, str]]:
        rows = self.store.rows("SELECT subject, relation, object FROM fact ORDER BY id")
        return [tuple(row) for row in rows]
