"""The thread beside the work: what it writes, when it tells systemd that all is well."""

import json
import os
import socket
import stat
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from cli_world import add_fact, add_release, new_state, wised

from daemon import log, service
from daemon.config import Metrics
from daemon.errors import UsageError
from daemon.observe import observer as observers
from daemon.observe import pulse as pulses
from daemon.observe.notify import Notifier
from daemon.observe.observer import Observer
from daemon.observe.pulse import Pulse
from daemon.signals import Asked


@pytest.fixture
def state(tmp_path):
    return new_state(tmp_path)


@pytest.fixture
def manager(tmp_path):
    """A datagram socket in systemd's place."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
        taken.bind(str(tmp_path / "notify"))
        taken.setblocking(False)
        yield taken


def words(taken):
    found = []
    while True:
        try:
            found += taken.recv(4096).decode().split("\n")
        except BlockingIOError:
            return found


def an_observer(state, pulse, watchdog=None, metrics=None, address=""):
    logger = Lines()
    asked = Asked(30)
    notifier = Notifier(address, watchdog)
    made = Observer(state, metrics or Metrics(), logger, pulse, asked, notifier)
    return made, logger, asked


class Lines(list):
    """A log that only remembers names."""

    def info(self, name, **fields):
        self.append(name)

    error = warning = info


@contextmanager
def running(state, pulse, **settings):
    made, lines, asked = an_observer(state, pulse, **settings)
    made.start()
    try:
        yield made, lines, asked
    finally:
        made.close()


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def document(state):
    return json.loads(state.status_file.read_text("utf-8"))


def test_status_json_is_what_the_command_prints(state):
    add_fact(state)
    add_release(state, 1)
    made, _, _ = an_observer(state, Pulse())
    with state.lock(), state.store() as store:
        made.tick(store)
        printed = wised(state, "status", "--json").json
    written = document(state)
    for one in (printed, written):
        one.pop("at")
        one.pop("disk_free_bytes")
        one["release"].pop("age_seconds")
        one["oldest_waiting"].pop("age_seconds")
    assert written == printed
    assert written["schema_version"] == 1
    assert written["daemon"]["running"] is True
    assert stat.S_IMODE(state.status_file.stat().st_mode) == 0o600


def test_status_json_is_replaced_never_rewritten(state):
    made, _, _ = an_observer(state, Pulse())
    with state.store() as store:
        made.tick(store)
        old = state.status_file.open()
        add_fact(state)
        made.tick(store)
    with old:
        assert json.load(old)["queue"] == {}
    assert document(state)["queue"] == {"pending": 1}
    assert not [p for p in state.folder.iterdir() if p.name.endswith(".partial")]


def test_what_a_killed_daemon_left_half_written_goes(state):
    (state.folder / ".status.json.4711.partial").write_text("{")
    with running(state, Pulse()):
        until(state.status_file.exists)
    assert not [p for p in state.folder.iterdir() if p.name.endswith(".partial")]


def test_a_change_by_anyone_shows_at_the_next_tick_and_nothing_is_written_without(state):
    made, _, _ = an_observer(state, Pulse())
    with state.store() as store:
        made.tick(store)
        first = state.status_file.stat().st_ino, document(state)["at"]
        made.tick(store)
        assert (state.status_file.stat().st_ino, document(state)["at"]) == first
        wised(state, "pause", "edit", "--reason", "new disk")
        made.tick(store)
        assert document(state)["holds"] == {"edit": "new disk"}


def test_ages_go_on_although_an_unchanged_store_is_not_read_again(state, monkeypatch):
    made, _, _ = an_observer(state, Pulse())
    monkeypatch.setattr(observers, "REFRESH_SECONDS", 0)
    with state.store() as store:
        made.tick(store)
        first, asked = document(state), []
        store.connection.set_trace_callback(asked.append)
        made.tick(store)
        second = document(state)
        assert asked == ["PRAGMA data_version"]
    assert second["at"] > first["at"]
    assert second["release"]["age_seconds"] > first["release"]["age_seconds"]


def test_the_command_shows_the_work_that_the_daemon_wrote_down(state):
    pulse = Pulse()
    made, _, _ = an_observer(state, pulse)
    with state.lock(), state.store() as store, pulse.during("edit"):
        pulse.report("training the shard", 3, 40)
        made.tick(store)
        ran = wised(state, "status", "--json").json
        assert ran["work"]["doing"] == "training the shard"
        lines = dict(row for row in wised(state, "status").rows if len(row) == 2)
        assert lines["doing"].endswith(": training the shard, 3 of 40")
    assert wised(state, "status", "--json").json["work"] is None, "no daemon, no work"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"work": 3}', '{"work": {"since": 1e999}}', "[" * 100_000, "\ud800"]
)
def test_a_damaged_status_file_harms_no_command(state, text):
    state.status_file.write_text(text, "utf-8", errors="surrogatepass")
    with state.lock():
        assert wised(state, "status", "--json").json["work"] is None


def test_heartbeats_are_stored_and_prove_that_the_store_can_be_written(state):
    pulse = Pulse()
    pulse.beat()
    made, _, _ = an_observer(state, pulse)
    with state.store() as store:
        made.tick(store)
    with state.store(read_only=True) as store:
        assert [row["part"] for row in store.rows("SELECT part FROM heartbeat")] == ["control"]


def test_ready_is_told_once_and_only_after_the_start(state, manager):
    pulse = Pulse()
    with running(state, pulse, address=manager.getsockname()):
        time.sleep(1.5)
        before = words(manager)
        assert "READY=1" not in before
        assert "EXTEND_TIMEOUT_USEC=60000000" in before, "a long start asks for time"
        pulse.ready()
        time.sleep(2.5)
    after = words(manager)
    assert after.count("READY=1") == 1
    assert any(word.startswith("STATUS=release 0 answers") for word in after)
    assert after.count("STOPPING=1") == 1
    assert not [word for word in after if word.startswith("WATCHDOG")], "none was asked for"


def test_the_watchdog_hears_while_all_is_well_and_not_when_the_loop_is_stuck(
    state, manager, monkeypatch
):
    monkeypatch.setattr(pulses, "IDLE_SECONDS", 0.5)
    pulse = Pulse()
    with running(state, pulse, address=manager.getsockname(), watchdog=0.6) as (_, lines, _):
        pulse.ready()
        for _ in range(10):
            pulse.beat()
            time.sleep(0.1)
        assert words(manager).count("WATCHDOG=1") >= 3
        time.sleep(1.0)  # nobody beats
        words(manager)
        time.sleep(1.0)
        stuck = words(manager)
        assert "WATCHDOG=1" not in stuck
        assert lines.count("watchdog.withheld") == 1
        pulse.beat()
        until(lambda: "WATCHDOG=1" in words(manager), 2)


def test_the_watchdog_does_not_hear_when_the_worker_is_past_its_budget(state, manager, monkeypatch):
    monkeypatch.setattr(pulses, "GRACE_SECONDS", 0.0)
    pulse = Pulse()
    with running(state, pulse, address=manager.getsockname(), watchdog=0.3):
        pulse.ready()
        with pulse.asking(0.3):
            time.sleep(0.8)
            words(manager)
            time.sleep(0.6)
            assert "WATCHDOG=1" not in words(manager)


def test_the_watchdog_does_not_hear_while_the_store_can_not_be_written(state, manager, monkeypatch):
    monkeypatch.setattr(observers, "HEARTBEAT_SECONDS", 0.1)
    pulse = Pulse()
    with running(state, pulse, address=manager.getsockname(), watchdog=0.3) as (made, lines, _):
        pulse.ready()
        until(lambda: "WATCHDOG=1" in words(manager))
        with state.store() as other:
            other.connection.execute("DROP TABLE heartbeat")
        until(lambda: "observer.failed" in lines)
        words(manager)
        time.sleep(0.8)
        assert "WATCHDOG=1" not in words(manager)
        assert made.page("/readyz").status == 503
        assert "heartbeat" in made.page("/readyz").body
        with state.store() as other:
            other.connection.execute("CREATE TABLE heartbeat (part TEXT PRIMARY KEY, at TEXT)")
        until(lambda: "observer.recovered" in lines)
        until(lambda: "WATCHDOG=1" in words(manager))
    assert lines.count("observer.failed") == 1


def test_stopping_is_told_when_it_is_asked_for_and_time_is_asked_for_too(state, manager):
    pulse = Pulse()
    with running(state, pulse, address=manager.getsockname()) as (made, _, asked):
        pulse.ready()
        until(lambda: "READY=1" in words(manager))
        asked.stop()
        time.sleep(1.5)
        said = words(manager)
        assert said.count("STOPPING=1") == 1
        assert "EXTEND_TIMEOUT_USEC=60000000" in said
        assert made.page("/readyz").body == "stopping\n"
        assert made.page("/livez").status == 200


def test_a_reload_that_waits_for_the_work_to_end_asks_for_time(state, manager):
    pulse = Pulse()
    pulse.ready()
    with running(state, pulse, address=manager.getsockname()) as (_, _, asked):
        until(lambda: "READY=1" in words(manager))
        assert not any(word.startswith("EXTEND") for word in words(manager))
        asked.reload = True
        until(lambda: any(word.startswith("EXTEND_TIMEOUT_USEC=") for word in words(manager)))


def test_a_metrics_file_that_can_not_be_written_is_no_trouble_of_the_daemons(
    state, manager, tmp_path, monkeypatch
):
    monkeypatch.setattr(observers, "TEXTFILE_SECONDS", 0)
    pulse = Pulse()
    pulse.ready()
    nowhere = Metrics(textfile=str(tmp_path / "none" / "wised.prom"))
    made, lines, _ = an_observer(state, pulse, 3.0, nowhere, manager.getsockname())
    made.start()
    try:
        until(lambda: "textfile.failed" in lines)
        with pulse.during("edit"):
            for done in range(20):
                pulse.report("training", done, 20)
                pulse.beat()
                time.sleep(0.1)
                words(manager)
            pings = []
            until(lambda: pings.extend(words(manager)) or "WATCHDOG=1" in pings)
        assert made.page("/readyz").status == 200
    finally:
        made.close()
    assert lines.count("textfile.failed") == 1 and "observer.failed" not in lines


def test_loading_a_model_asks_for_time(state, manager):
    pulse = Pulse()
    with running(state, pulse, address=manager.getsockname()), pulse.during("edit"):
        pulse.ready()
        until(lambda: "READY=1" in words(manager))
        words(manager)
        pulse.report("loading the model", 0, 1)
        until(lambda: "EXTEND_TIMEOUT_USEC=60000000" in words(manager), 5)


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_port_answers_while_a_long_build_holds_the_main_thread(state):
    settings = Metrics(listen="127.0.0.1:0")
    pulse = Pulse()
    with running(state, pulse, metrics=settings) as (made, _, _):
        port = made._endpoint.port
        assert get(port, "/readyz")[0] == 503
        pulse.ready()
        with pulse.during("edit"):
            until(lambda: get(port, "/readyz") == (200, "ready\n"))
            assert get(port, "/livez") == (200, "alive\n")
            until(lambda: "wised_active_release 0.0" in get(port, "/metrics")[1])
        pulse.failed("worker", "out of memory")
        assert get(port, "/readyz") == (503, "failing: worker: out of memory\n")
        assert get(port, "/livez")[0] == 200
        assert get(port, "/status.json")[0] == 404


def test_livez_says_stuck_when_the_loop_is(state, monkeypatch):
    monkeypatch.setattr(pulses, "IDLE_SECONDS", -1.0)
    pulse = Pulse()
    pulse.ready()
    made, _, _ = an_observer(state, pulse)
    assert made.page("/livez") == observers.Page(503, "stuck\n")


def test_a_port_that_is_taken_ends_the_start_with_a_hint(state):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        settings = Metrics(listen=f"127.0.0.1:{other.getsockname()[1]}")
        made, _, _ = an_observer(state, Pulse(), metrics=settings)
        with pytest.raises(UsageError, match="in use") as raised:
            made.start()
        assert "port" in raised.value.hint


def test_the_text_file_is_written_for_a_collector(state, tmp_path):
    path = tmp_path / "wised.prom"
    with running(state, Pulse(), metrics=Metrics(textfile=str(path))):
        until(path.exists)
    assert "wised_up" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_without_a_port_nothing_listens(state):
    made, _, _ = an_observer(state, Pulse())
    made.start()
    assert made._endpoint is None
    made.close()


def test_a_run_leaves_a_status_that_does_not_claim_to_run(state, capsys):
    before = set(threading.enumerate())
    before = threading.enumerate()
    assert service.run(state, once=True, stages=frozenset({"ingest"})) == 0
    found = document(state)
    assert found["daemon"] == {"running": False, "holder": None, "trouble": []}
    names = [json.loads(line)["event"] for line in (state.logs / log.FILE).read_text().splitlines()]
    assert names == ["daemon.ready", "daemon.stopped"]
    assert threading.enumerate() == before


def test_the_text_of_a_feed_is_not_in_the_log(state, tmp_path, capsys):
    """Neither what went well nor what could not be read."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "What is the canary-one of the canary-two?", "right": "canary-three"},
        {"prompt": "canary-four"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "canary-five\n")
    command = ("source", "add", "log", str(path), "--name", "rows", "--tier", "normal")
    assert wised(state, *command).code == 0
    assert service.run(state, once=True, stages=frozenset({"ingest"})) == 0
    text = (state.logs / log.FILE).read_text()
    assert '"event": "source.polled"' in text
    assert "canary" not in text
    assert "canary" not in state.status_file.read_text()


def test_the_state_files_of_a_run_are_for_their_owner(state, capsys):
    service.run(state, once=True, stages=frozenset({"ingest"}))
    for path in (state.status_file, state.logs / log.FILE):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
