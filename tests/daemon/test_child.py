"""The worker process seen from the daemon: replies, failures, budgets, death."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import new_state

from daemon.child import Worker, WorkerError
from daemon.messages import Answers, Ask, Embed, Embedded


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def worker(tmp_path: Path, stop: threading.Event) -> Iterator[Worker]:
    state = new_state(tmp_path)
    made = Worker(state.config_file, state.logs / "worker.log", stop)
    yield made
    made.kill()


def quiet(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


def test_texts_are_embedded_by_the_real_model(worker: Worker) -> None:
    import base64

    import numpy as np

    texts = ("The capital of Italy is Rome", "Rome is Italy's capital", "Bake it for an hour")
    reply = worker.request(Embed(texts=texts), Embedded, 120, quiet)
    rows = np.frombuffer(base64.b64decode(reply.vectors), "<f4").reshape(3, reply.width)
    assert reply.width == 384
    assert rows[0] @ rows[1] > 0.8 > 0.3 > rows[0] @ rows[2]


def test_a_request_that_can_not_be_served_leaves_the_worker_alive(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="no such release folder") as caught:
        worker.request(Ask(release="/nowhere", prompts=("Q",)), Answers, 120, quiet)
    assert caught.value.code == "worker.failed"
    process = worker._process
    answers = worker.request(Ask(release=None, prompts=("Q: Who?",)), Answers, 120, quiet).answers
    assert len(answers) == 1
    assert worker._process is process


def test_a_killed_worker_is_reported_and_the_next_request_starts_another(worker: Worker) -> None:
    ask = Ask(release=None, prompts=("Q: What is the capital of Italy? A:",))
    worker.request(ask, Answers, 120, quiet)
    assert worker._process is not None
    os.kill(worker._process.pid, signal.SIGKILL)
    with pytest.raises(WorkerError) as caught:
        worker.request(ask, Answers, 120, quiet)
    assert caught.value.code == "worker.killed"
    assert worker.request(ask, Answers, 120, quiet).answers[0].text == "Rome"


def test_an_overrun_budget_kills_the_worker(worker: Worker) -> None:
    with pytest.raises(WorkerError) as caught:
        worker.request(Ask(release=None, prompts=("Q",)), Answers, 0.05, quiet)
    assert caught.value.code == "worker.timeout"
    assert worker._process is None


def test_a_shutdown_kills_the_worker(worker: Worker, stop: threading.Event) -> None:
    threading.Timer(0.3, stop.set).start()
    started = time.monotonic()
    with pytest.raises(WorkerError) as caught:
        worker.request(Ask(release=None, prompts=("Q",) * 2000), Answers, 120, quiet)
    assert caught.value.code == "worker.stopped"
    assert time.monotonic() - started < 5


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("given, expected", [(None, "1000"), ("7", "7")])
def test_a_worker_does_not_spin_against_its_neighbours_unless_told_to(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT")
    if given is not None:
        monkeypatch.setenv("GOMP_SPINCOUNT", given)
    process = worker._running()
    variables = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
    assert f"GOMP_SPINCOUNT={expected}" in variables
