import io
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cli_terminal import MAIN, ROOT, terminal
from cli_world import NOW, add_entry, add_fact, add_source, new_state, refuse, wised
from rich.console import Console

from daemon import releases, status
from daemon.cli import watch
from daemon.cli.watch import Pace
from daemon.observe.pulse import Work
from daemon.store import timestamp

ALTERNATE, BACK = "\x1b[?1049h", "\x1b[?1049l"
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def state(tmp_path):
    made = new_state(tmp_path)
    add_source(made, "good", last_ok_at=NOW.isoformat())
    add_source(made, "bad", failures=4, last_error="fetch.timeout: slow\x1b[2J")
    add_fact(made)
    add_fact(made, "Togo", "Lomé", events=("approve",))
    held_back(made)
    refuse(made, 1, "too weak", '{"reliability": {"right": 1, "asked": 2}}')
    with made.store() as store, store.write():
        releases.hold(store, "promote", "election night", NOW)
    return made


def held_back(made):
    """Two facts dropped over a quota just now, an entry unread, a batch that is tried again."""
    at = timestamp(datetime.now(UTC))
    with made.store() as store, store.write():
        source = store.one("SELECT id FROM source WHERE name = 'good'")["id"]
        store.insert("dropped", {"source_id": source, "quota": "max_a_day", "facts": 2, "at": at})
        row = {"state": "failed", "created_at": at, "next_attempt_at": at, "error": "worker.died"}
        batch = store.insert("batch", row)
        store.connection.execute("UPDATE fact SET batch_id = ? WHERE id = 2", (batch,))
    entry = add_entry(made, source, "title")
    with made.store() as store, store.write():
        store.insert("unread", {"entry_id": entry, "text": "x", "next_at": at})


def write_work(state, done):
    body = {"stage": "edit", "since": NOW.isoformat(), "doing": "training the shard"}
    work = {**body, "done": done, "total": 40}
    said = {"at": NOW.isoformat(), "daemon": {"trouble": []}, "work": work}
    state.status_file.write_text(json.dumps(said))


def test_the_screen_shows_all_there_is_and_follows_it(state):
    write_work(state, 12)
    with (
        state.lock(),
        terminal("-C", str(state.folder), "status", "--watch", "--period", "0.2") as screen,
    ):
        screen.expect(ALTERNATE)
        screen.expect("source bad failed 4 times in a row")
        screen.expect(f"running (pid {os.getpid()}")
        screen.expect("0: the bare model")
        screen.expect("hold on promote")
        screen.expect("election night")
        screen.expect("training the shard, 12 of 40")
        screen.expect("pending")
        screen.expect("next attempt at")
        screen.expect("2 facts of good in 24 hours, over max_a_day")
        screen.expect("1 entries wait for the reader")
        screen.expect("failing, 4 in a row: fetch.timeout: slow\\x1b[2J")
        screen.expect("good")
        screen.expect("release 1 refused: too weak")
        write_work(state, 20)
        screen.expect("training the shard, 20 of 40")
        screen.expect("left of this step")
        add_fact(state, "Mali", "Bamako", events=("quarantine",))
        screen.expect("quarantined")
        screen.interrupt()
        assert screen.end() == 0
        assert BACK in screen.seen
        assert SHOW in screen.seen
        assert screen.is_as_before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back_as_it_was(state, number):
    with terminal("-C", str(state.folder), "status", "--watch") as screen:
        screen.expect(HIDE)
        screen.expect("election night")
        screen.interrupt(number)
        assert screen.end() == 128 + number
        assert BACK in screen.seen
        assert screen.is_as_before


def test_without_a_terminal_one_snapshot_follows_the_other(state):
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "-C", str(state.folder), "status", "--watch", "--period", "1"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    try:
        lines = [process.stdout.readline() for _ in range(40)]
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    heads = [n for n, line in enumerate(lines) if line.startswith("at\t")]
    assert len(heads) >= 2
    assert lines[heads[1] - 1] == "\n"
    assert lines[heads[0] + 1] == "health\tsource bad failed 4 times in a row\n"


def test_watching_gives_no_verdict(state):
    assert wised(state, "status", "--watch", "--check").code == 2
    assert wised(state, "status", "--watch", "--json").code == 2


def test_what_a_dead_daemon_was_at_is_not_shown(state):
    write_work(state, 12)
    assert wised(state, "status", "--json").json["work"] is None
    with state.lock():
        found = wised(state, "status", "--json").json["work"]
        assert (found["doing"], found["done"], found["total"]) == ("training the shard", 12, 40)
        doing = dict(row[:2] for row in wised(state, "status").rows)["doing"]
    assert doing.endswith("training the shard, 12 of 40")


def work(done, doing="training"):
    return Work("edit", NOW, doing, done, 100)


def test_the_time_left_is_told_from_the_pace_of_the_step():
    pace = Pace()
    at = [NOW + timedelta(seconds=n) for n in range(60)]
    assert pace.seconds_left(work(10), at[0]) is None
    assert pace.seconds_left(work(10), at[1]) is None  # nothing was done since
    assert pace.seconds_left(work(30), at[10]) == pytest.approx(35)  # 20 in 10 s, 70 to go
    assert pace.seconds_left(work(1, "probing"), at[20]) is None  # another step
    assert pace.seconds_left(work(51, "probing"), at[30]) == pytest.approx(9.8)
    assert pace.seconds_left(work(0, "probing"), at[40]) is None  # it began anew
    assert pace.seconds_left(None, at[50]) is None


def shown(state, columns, lines):
    """The screen as a terminal of that size has it."""
    with state.store(read_only=True) as store:
        seen = status.read(state, store, NOW)
    screen = Console(file=io.StringIO(), width=columns, height=lines, legacy_windows=False)
    rendered = screen.render_lines(watch.drawn(seen, NOW, None, columns), pad=False)
    return ["".join(part.text for part in line) for line in rendered][:lines]


@pytest.mark.parametrize(("columns", "lines"), [(120, 24), (80, 40)])
def test_many_failing_sources_push_neither_queue_nor_gate_nor_hold_off_the_screen(
    state, columns, lines
):
    for number in range(50):
        add_source(state, f"feed {number}", failures=9, last_error="fetch.timeout: slow")
    text = "\n".join(shown(state, columns, lines))
    for needed in (
        "source bad failed 4 times in a row",
        "and 48 more",  # problems: 51 sources, a hold and a refusal, of which five are shown
        "0: the bare model",
        "election night",
        "51 failing, 1 ok",
        "GB free",
        "pending",
        "release 1 refused: too weak",
        "0.5000 (1 of 2)",
        "feed 0",
    ):
        assert needed in text, text
