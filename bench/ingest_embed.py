"""How fast the worker embeds, beside the same model called directly, in turns."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from daemon.child import Worker
from daemon.config import default_file, load
from daemon.messages import Embed, Embedded
from daemon.neighbours import TEXTS
from daemon.state import init
from daemon.worker import embedder

ROUNDS = 5
BUDGET_SECONDS = 600.0


def ratio(texts: Sequence[str]) -> float:
    """Return the worker's texts a second over those of plain ``encode``, the median of rounds.

    The worker gets them as triage sends them: `TEXTS` a request, as JSON lines through a pipe.
    """
    model = embedder.load(load(default_file()).embedding.name)
    with tempfile.TemporaryDirectory() as folder:
        state = init(Path(folder) / "state", datetime.now(UTC))
        worker = Worker(state.config_file, state.logs / "worker.log", threading.Event())

        def ours() -> None:
            for start in range(0, len(texts), TEXTS):
                request = Embed(texts=tuple(texts[start : start + TEXTS]))
                worker.request(request, Embedded, BUDGET_SECONDS, lambda *_: None)

        def plain() -> None:
            model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)

        try:
            for run in (ours, plain):  # loads the models
                _seconds(run)
            return median(_seconds(plain) / _seconds(ours) for _ in range(ROUNDS))
        finally:
            worker.kill()


def _seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
