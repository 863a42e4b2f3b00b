"""Every way in which a worker can fail, by a small program in its place: told apart, survived."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.child import Limits, Worker, WorkerError
from daemon.messages import Embed, Embedded

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
#: what a worker starts with: it beats, and says that it is at work
BEATS = """
import json, os, signal, sys, threading, time
lock = threading.Lock()
def send(**reply):
    with lock:
        sys.stdout.write(json.dumps({"reply": reply}, separators=(",", ":")) + "\\n")
        sys.stdout.flush()
def beat():
    while True:
        send(kind="alive")
        time.sleep(.1)
threading.Thread(target=beat, daemon=True).start()
line = sys.stdin.readline()
send(kind="progress", stage="at work", done=0, total=1)
"""
DONE = 'send(kind="embedded", width=1, vectors="")\n'
BIG = "x" * 300_000  #: more than a pipe holds


Start = Callable[..., Worker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[Worker] = []

    def start(script: str, *, beats: bool = True, **limits: float) -> Worker:
        program = (sys.executable, "-c", (BEATS if beats else "") + script)
        stop = threading.Event()
        log, watched = tmp_path / "worker.log", Limits(**limits)  # type: ignore[arg-type]
        made.append(Worker(tmp_path / "config", log, stop, watched, program))
        return made[-1]

    yield start
    for worker in made:
        worker.kill()


def ask(worker: Worker, budget_seconds: float = 20, text: str = "a") -> Embedded:
    return worker.request(Embed(texts=(text,)), Embedded, budget_seconds, lambda *_: None)


def error(worker: Worker, budget_seconds: float = 20, text: str = "a") -> WorkerError:
    begun = time.monotonic()
    with pytest.raises(WorkerError) as caught:
        ask(worker, budget_seconds, text)
    assert time.monotonic() - begun < 10
    assert worker._process is None
    return caught.value


def test_s08_a_kill_from_outside_is_told_as_likely_out_of_memory(start: Start) -> None:
    found = error(start("os.kill(os.getpid(), signal.SIGKILL)"))
    assert (found.code, found.is_at_work) == ("worker.killed", True)
    assert "out of memory" in str(found)


def test_s07_a_crash_names_its_signal(start: Start) -> None:
    found = error(start("os.kill(os.getpid(), signal.SIGSEGV)"))
    assert found.code == "worker.crashed"
    assert "signal 11, SIGSEGV" in str(found)


def test_s07_an_exception_is_told_by_the_last_line_of_its_traceback(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "worker.log").write_text("an older worker's last words\n")
    found = error(start("raise RuntimeError('no such kernel')"))
    assert found.code == "worker.died"
    assert "code 1: RuntimeError: no such kernel" in str(found)
    assert "no last words" in str(error(start("os._exit(3)")))


def test_s07_a_worker_that_hangs_as_a_whole_is_killed_for_its_silence(start: Start) -> None:
    found = error(start("os.kill(os.getpid(), signal.SIGSTOP)", silence_seconds=0.5))
    assert found.code == "worker.silent"


def test_s07_a_worker_that_beats_but_never_ends_is_killed_at_its_budget(start: Start) -> None:
    found = error(start("time.sleep(60)", silence_seconds=0.5), budget_seconds=1.5)
    assert (found.code, found.is_at_work) == ("worker.timeout", True)


def test_s07_a_worker_that_reads_nothing_can_not_hold_up_the_daemon(start: Start) -> None:
    worker = start("import time; time.sleep(60)", beats=False, silence_seconds=0.5)
    assert error(worker, text=BIG).code == "worker.silent"


def test_s07_the_stacks_of_a_worker_that_hangs_are_in_its_log(start: Start, tmp_path: Path) -> None:
    script = """
import faulthandler; faulthandler.register(signal.SIGUSR1)
def stuck_here(): time.sleep(60)
stuck_here()
"""
    assert error(start(script), budget_seconds=0.7).code == "worker.timeout"
    assert "in stuck_here" in (tmp_path / "worker.log").read_text()


@LINUX
def test_s08_a_worker_that_holds_too_much_memory_is_killed_before_the_machine_is_full(
    start: Start,
) -> None:
    found = error(start("held = b'x' * (200 * 2**20); time.sleep(60)", memory_mb=150))
    assert found.code == "worker.memory"
    held = re.search(r"held (\d+) MB, over worker_memory_mb = 150", str(found))
    assert held and 200 <= int(held[1]) < 300


@LINUX
def test_s08_files_mapped_into_memory_do_not_count(start: Start, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(200 * 2**20))
    script = f"""
import mmap
file = open({str(tmp_path / "weights")!r}, "rb")
held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
sum(held[::4096])
time.sleep(1.5)
"""
    assert ask(start(script + DONE, memory_mb=150)).width == 1


@LINUX
def test_s08_the_kernel_takes_the_worker_first_and_not_the_daemon(start: Start) -> None:
    worker = start("time.sleep(60)")
    process = worker._running()
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "1000\n"
    assert Path("/proc/self/oom_score_adj").read_text() != "1000\n"


def test_a_worker_that_writes_nonsense_is_killed(start: Start) -> None:
    assert error(start("print('hello', flush=True); time.sleep(60)")).code == "worker.garbled"
    bytes_ = "sys.stdout.buffer.write(bytes([255, 10])); sys.stdout.flush(); time.sleep(60)"
    assert error(start(bytes_)).code == "worker.garbled"


def test_the_heartbeats_of_an_idle_worker_do_not_pile_up(start: Start) -> None:
    worker = start(DONE + "time.sleep(60)")
    assert ask(worker).width == 1
    heard = worker._pulse.at
    time.sleep(0.5)
    assert worker._pulse.at > heard
    assert worker._replies.qsize() == 0


def test_a_death_in_the_middle_of_a_line_is_a_death(start: Start) -> None:
    script = """
with lock:
    sys.stdout.write('{"reply": {"ki')
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert error(start(script)).code == "worker.killed"


def test_a_worker_that_closes_its_pipe_and_lives_on_is_killed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.child.ENDING_SECONDS", 0.5)
    script = "import os, time; os.close(1); time.sleep(60)"
    assert error(start(script, beats=False)).code == "worker.died"


def test_a_child_of_the_worker_does_not_hide_its_death(start: Start, tmp_path: Path) -> None:
    script = f"""
child = os.fork()
if child == 0:
    time.sleep(60)
open({str(tmp_path / "pid")!r}, "w").write(str(child))
os._exit(4)
"""
    found = error(start(script))
    assert found.code == "worker.died"
    time.sleep(0.1)
    with pytest.raises(ProcessLookupError):  # reaped by no one here, but it must not run
        _check_runs(int((tmp_path / "pid").read_text()))


def _check_runs(pid: int) -> None:
    os.kill(pid, 0)
    state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    if state == "Z":
        raise ProcessLookupError


def test_an_error_that_is_the_workers_last_word_ends_it(start: Start) -> None:
    worker = start(
        'send(kind="failed", error="MemoryError", message="64 GiB", is_last=True); time.sleep(60)'
    )
    found = error(worker)
    assert (found.code, str(found)) == ("worker.failed", "MemoryError: 64 GiB")


def test_a_worker_that_its_disk_failed_blames_no_fact(start: Start) -> None:
    found = error(
        start(
            'send(kind="failed", error="OSError", message="no room", is_last=True,'
            " disk_failed=True); time.sleep(60)"
        )
    )
    assert (found.code, found.is_at_work, str(found)) == ("worker.disk", False, "OSError: no room")


def test_a_program_that_can_not_be_started_is_an_error_too(tmp_path: Path) -> None:
    worker = Worker(
        tmp_path / "c", tmp_path / "log", threading.Event(), program=(str(tmp_path / "none"),)
    )
    found = error(worker)
    assert (found.code, found.is_at_work) == ("worker.not_started", False)


def test_a_death_before_the_models_are_loaded_blames_no_fact(start: Start) -> None:
    found = error(start("import sys; sys.exit('no GPU')", beats=False))
    assert (found.code, found.is_at_work) == ("worker.died", False)
    assert "no GPU" in str(found)


@LINUX
def test_a_worker_dies_with_the_daemon_even_when_it_hangs(tmp_path: Path) -> None:
    """The daemon is killed while its worker is stopped, which can't see its pipe close."""
    import subprocess

    script = """
import os, signal, sys, threading, time
from pathlib import Path
from daemon.child import Worker
worker = Worker(Path("config"), Path("worker.log"), threading.Event())
process = worker._running()
born, until = worker._pulse.at, time.monotonic() + 30
while worker._pulse.at == born and time.monotonic() < until:  # its first beat
    time.sleep(.05)
os.kill(process.pid, signal.SIGSTOP)
print(process.pid, flush=True)
time.sleep(60)
"""
    root = Path(__file__).parents[2]
    daemon = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert daemon.stdout is not None
    pid = int(daemon.stdout.readline())
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    daemon.stdout.close()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            _check_runs(pid)
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the worker outlived the daemon")


def test_the_log_of_workers_that_die_one_after_the_other_is_bounded(tmp_path: Path) -> None:
    log, stop = tmp_path / "worker.log", threading.Event()
    script = "import sys; sys.stderr.write('x' * 1000 + '\\n'); sys.exit(1)"
    program = (sys.executable, "-c", script)
    worker = Worker(tmp_path / "config", log, stop, program=program, log_max_mb=0.003)
    for _ in range(9):
        assert error(worker).code == "worker.died"
    assert {path.name for path in tmp_path.iterdir()} == {"worker.log", "worker.log.1"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * 4004
