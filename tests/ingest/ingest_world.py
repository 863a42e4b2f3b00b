"""The configured relations and the demo's data, for tests. Contains no expectations."""

import json
import tomllib
from pathlib import Path

from ingest.types import Relation

ROOT = Path(__file__).resolve().parents[2]


def relations():
    """Return the relations of the default configuration."""
    config = tomllib.loads((ROOT / "config.toml").read_text())
    return {
        name: Relation(
            name=name,
            single_valued=table["single_valued"],
            prompts=tuple(table["prompts"]),
            held_out=tuple(table["held_out"]),
            patterns=tuple(table["patterns"]),
        )
        for name, table in config["relations"].items()
    }


def rows(name):
    """Return the rows of ``base`` or ``updates``."""
    text = (ROOT / "demo" / "data" / f"{name}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]
