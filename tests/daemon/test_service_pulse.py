"""The steps of the daemon note when they move and when they fail."""

import time

import structlog
from reader_world import World, atom
from world import add_fact, new_state

from daemon.child import WorkerError
from daemon.patience import Patience
from daemon.service import Service
from daemon.signals import Asked
from tests.ingest.reader_server import completion, serving, stated


class Died:
    """Stands for a worker that dies at each request."""

    def __init__(self, pulse):
        self.pulse, self.seen = pulse, []

    def request(self, request, expect, budget, report):
        report("loading the model", 0, 1)
        self.seen.append((self.pulse.read(), structlog.contextvars.get_contextvars()))
        raise WorkerError("worker.died", "the worker ended with code -9")

    def kill(self):
        return None


class Silent:
    def __getattr__(self, name):
        return lambda *words, **fields: None


def test_a_worker_that_dies_makes_the_daemon_unready_until_a_build_goes_through(tmp_path):
    state = new_state(tmp_path)
    with state.store() as store:
        service = Service(state, store, state.config(), Silent())
        service.start()
        assert service.pulse.read().ready
        worker = service._worker = Died(service.pulse)
        add_fact(store, "Chad", "Succès Masra")
        assert service.work() is True
        found = service.pulse.read()
        assert found.failing == ("worker: the worker ended with code -9",)
        assert found.work is None
        ((vital, context),) = worker.seen
        assert vital.work is not None
        assert (vital.work.stage, vital.is_loading) == ("edit", True)
        assert context == {"release": 1, "batch": 1}
        assert structlog.contextvars.get_contextvars() == {}
        service.close()


def test_a_poll_is_work_while_it_lasts(tmp_path, monkeypatch):
    state = new_state(tmp_path)
    seen = []

    def poll(store, source, config, extract, now, look):
        from daemon.polling import Polled

        seen.append((service.pulse.read().work.stage, structlog.contextvars.get_contextvars()))
        return Polled(source.name)

    monkeypatch.setattr("daemon.polling.poll", poll)
    with state.store() as store:
        row = {"name": "world", "kind": "log", "location": "x", "tier": "normal"}
        store.insert("source", {**row, "next_poll_at": "2020", "created_at": "2020"})
        service = Service(state, store, state.config(), Silent())
        assert service.poll_due() == 1
        service.close()
    assert seen == [("ingest", {"source": "world"})]
    assert service.pulse.read().work is None


def test_the_main_loop_beats_while_a_slow_reader_is_waited_for(tmp_path):
    """An endpoint may take minutes for each of many entries; that is no loop that is stuck."""
    seen = []

    def slowly(handler, body):
        for _ in range(2):
            time.sleep(0.4)
            seen.append(service.pulse.read().beats["control"])
        handler.reply(200, completion(stated()))

    with serving(slowly, atom("Nobody knows who leads Chad.")) as server:
        world = World(tmp_path, server)
        world.poll()
        service = Service(world.state, world.store, world.config, Silent())
        assert service.read_due() == 1
        service.close()
        world.store.close()
    assert seen[0] < seen[1]


def test_what_is_logged_while_a_source_is_polled_names_it():
    seen = []
    with structlog.contextvars.bound_contextvars(source="world"):
        Patience().wait_for(
            1, lambda: seen.append(structlog.contextvars.get_contextvars()), Asked(30), seconds=30
        )
    assert seen == [{"source": "world"}]
