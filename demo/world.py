"""The demo world: a model of 2017 and what changed since (World Factbook, CC0).

Reads the three data files and the relations of the default configuration. Contains no
expected answers of its own: every answer comes from `data/`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from daemon.config import default_file, load

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
MODEL = HERE / "model"


@dataclass(frozen=True, slots=True)
class Phrasing:
    """How one relation is asked for; every prompt has one ``{subject}`` field."""

    prompts: tuple[str, ...]  #: phrasings that edits train on
    held_out: tuple[str, ...]  #: phrasings that only probes use

    @property
    def all(self) -> tuple[str, ...]:
        """Both kinds, training phrasings first."""
        return self.prompts + self.held_out


@dataclass(frozen=True, slots=True)
class BaseFact:
    """One fact as of 2017-01-20."""

    subject: str
    relation: str
    value: str


@dataclass(frozen=True, slots=True)
class Update:
    """One dated change of a slot."""

    date: str  #: ISO day on which the archive first showed the change
    subject: str
    relation: str
    old: str
    new: str


def _rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def base_facts() -> list[BaseFact]:
    """Return the 3,285 facts that the demo model is trained on."""
    return [BaseFact(r["subject"], r["relation"], r["value"]) for r in _rows("base.jsonl")]


def updates() -> list[Update]:
    """Return the 1,100 dated changes, oldest first."""
    return [
        Update(r["date"], r["subject"], r["relation"], r["old"], r["new"])
        for r in _rows("updates.jsonl")
    ]


def prose() -> list[str]:
    """Return the passages of running text, each at least 40 characters long."""
    lines = (DATA / "prose.txt").read_text("utf-8").splitlines()
    return [line for line in lines if len(line) >= 40]


def phrasings() -> dict[str, Phrasing]:
    """Return the phrasings of each relation of the default configuration."""
    relations = load(default_file()).relations
    return {name: Phrasing(r.prompts, r.held_out) for name, r in relations.items()}
