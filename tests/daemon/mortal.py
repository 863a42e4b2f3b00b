"""A daemon's whole turn as a process that may die: ``python mortal.py STATE turn|retract DAYS``.

Everything is real but the worker, for which `world.Builder` stands: polling over HTTP, triage,
cycle, releases, the start's reconciliation.
"""

import base64
import json
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
from world import Builder, Clock, config

from daemon import attempts, emergency, polling, releases
from daemon.cycle import cycle
from daemon.messages import Answers, Ask, Embed, Embedded, Said
from daemon.state import State
from daemon.store import facts
from daemon.triage import Triage

CALIBRATED = {"threshold": 0.8, "false_fire_bound": 0.001}
HEAD = {"base_model_name_or_path": "tiny", "edited_matrix_sha256": "0" * 64, "router": CALIBRATED}
KEEP = 1  #: releases besides what answers and its parent


def embed(request: Embed) -> Embedded:
    """A vector of its own for each text."""
    rows = [np.random.default_rng(list(text.encode())).normal(size=64) for text in request.texts]
    vectors = np.stack([row / np.linalg.norm(row) for row in rows]).astype("<f4")
    return Embedded(width=64, vectors=base64.b64encode(vectors.tobytes()).decode())


def ask(request: Ask) -> Answers:
    """A model that knows nothing."""
    return Answers(answers=tuple(Said(text="nobody") for _ in request.prompts))


def wrong(state: State) -> set[int]:
    """Facts that are never answered right: those about nowhere."""
    with state.store(read_only=True) as store:
        return {r["id"] for r in store.rows("SELECT id FROM fact WHERE subject = 'Nowhere'")}


def live(state: State, days: int = 0) -> None:
    """Start, do all that is due, and end."""
    settings, clock = config(state), Clock()
    clock.now += timedelta(days=days)
    daemon = settings.daemon.model_copy(update={"keep_releases": KEEP, "max_attempts": 1})
    settings = settings.model_copy(update={"daemon": daemon})
    with state.lock(), state.store() as store:
        attempts.note_interrupted(store, settings, clock())
        releases.reconcile(state, store, clock())
        triage = Triage(store, settings, embed, ask)
        extract = polling.extractor(settings)
        for source in polling.due(store, clock()):
            polling.poll(store, source, settings, extract, clock())
        while triage.run(None, clock()).facts:
            pass
        while cycle(state, store, settings, Builder(wrong=wrong(state)), clock) is not None:
            pass


def retract(state: State, days: int) -> None:
    """Take fact 2 out at once; the builder's folders hold no memory to take it from."""
    clock = Clock()
    clock.now += timedelta(days=days)

    def written(parent: Path | None, folder: Path, gone: object) -> None:
        (folder / "adapter_config.json").write_text(json.dumps(HEAD))
        (folder / "adapter_model.safetensors").write_bytes(bytes(8))
        (folder / "probes.json").write_text("{}")

    emergency._write = written
    with state.store() as store:
        with store.write():
            store.transition("fact", 2, "retract", clock())
        gone = [facts.get(store, 2)]
        emergency.release_without(state, store, config(state), gone, clock(), "wrong")


if __name__ == "__main__":
    folder, verb, days = sys.argv[1:]
    {"turn": live, "retract": retract}[verb](State(Path(folder)), int(days))
