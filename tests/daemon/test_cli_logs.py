import json
import os
import queue
import subprocess
import sys
import threading

import pytest
from cli_terminal import MAIN, ROOT
from cli_world import new_state, wised

LEVELS = ("debug", "info", "warning", "error", "critical")


@pytest.fixture
def state(tmp_path):
    return new_state(tmp_path)


def line(n, level="info", at="2026-03-01T12:00:00Z"):
    return json.dumps({"at": at, "level": level, "event": "x.y", "n": n}) + "\n"


def log(state):
    return state.logs / "wised.jsonl"


def numbers(ran):
    return [one["n"] for one in ran.json["lines"]]


def test_only_lines_as_grave_are_shown(state):
    text = "".join(line(n, level) for n, level in enumerate(LEVELS))
    log(state).write_text(text + "no json\n" + line(9, "unheard of"))
    for n, level in enumerate(LEVELS[:4]):
        assert numbers(wised(state, "logs", "--level", level, "--json")) == list(range(n, 5))
    assert numbers(wised(state, "logs", "--level", "error", "-n", "1", "--json")) == [4]
    assert wised(state, "logs", "--level", "loud").code == 2


def test_only_lines_since_a_time_are_shown(state):
    days = ("2026-02-27T12:00:00Z", "2026-02-28T12:00:00Z", "2026-03-01T12:00:00+02:00")
    text = "".join(line(n, at=at) for n, at in enumerate(days))
    log(state).write_text(text + line(3, at="yesterday") + line(4, at="2026-03-01T12:00:00"))
    assert numbers(wised(state, "logs", "--since", "2026-02-28", "--json")) == [1, 2]
    assert numbers(wised(state, "logs", "--since", "2026-03-01T09:59:59Z", "--json")) == [2]
    assert numbers(wised(state, "logs", "--since", "2026-03-01T10:00:01Z", "--json")) == []
    assert numbers(wised(state, "logs", "--since", "90000 d", "--json")) == [0, 1, 2]
    assert wised(state, "logs", "--since", "5 min").err.endswith("nothing is logged that fits\n")
    for wrong in ("lately", "999999 d", "0001-01-01T00:00+23:59"):
        assert wised(state, "logs", "--since", wrong).code == 2


def test_lines_are_looked_for_in_rotated_files_too(state):
    for part, first in (("wised.jsonl.2", 0), ("wised.jsonl.1", 3), ("wised.jsonl", 6)):
        lines = [line(first, "error"), line(first + 1), line(first + 2)]
        (state.logs / part).write_text("".join(lines))
    assert numbers(wised(state, "logs", "-n", "4", "--json")) == [5, 6, 7, 8]
    assert numbers(wised(state, "logs", "-n", "2", "--level", "error", "--json")) == [3, 6]
    assert numbers(wised(state, "logs", "--level", "error", "--json")) == [0, 3, 6]


def test_a_line_that_is_still_being_written_is_not_shown(state):
    log(state).write_text(line(1) + line(2)[:20])
    assert numbers(wised(state, "logs", "--json")) == [1]


def test_a_log_is_followed_through_half_lines_and_rotations(state):
    log(state).write_text(line(1))
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "-C", str(state.folder), "logs", "-f", "--level", "info"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    seen: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=lambda: [seen.put(one) for one in process.stdout])
    reader.start()

    def next_number():
        return int(seen.get(timeout=30).strip().rpartition("n=")[2])

    try:
        assert next_number() == 1
        with log(state).open("a") as file:
            file.write(line(0, "debug") + line(2) + line(3)[:20])
            file.flush()
            assert next_number() == 2
            file.write(line(3)[20:])
        assert next_number() == 3
        log(state).rename(state.logs / "wised.jsonl.1")
        log(state).write_text(line(4))
        assert next_number() == 4
        log(state).write_text(line(5, at="t"))  # emptied in place: shorter than it was
        assert next_number() == 5
    finally:
        process.terminate()
        process.wait()
        reader.join()
        process.stdout.close()


def test_a_followed_log_is_no_one_document(state):
    assert wised(state, "logs", "-f", "--json").code == 2
