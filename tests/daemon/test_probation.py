"""A release that fails after its promotion gives way to the one before, by itself."""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from world import START, Builder, Clock, add_fact, config, new_state, states

from daemon import probation, releases, status
from daemon.checks import Watched
from daemon.child import WorkerError
from daemon.config import Config
from daemon.cycle import cycle
from daemon.invariants import violations
from daemon.messages import Answers, Ask, Build, Built, Said
from daemon.signals import Asked
from daemon.state import State
from daemon.store import Store

PROBES = [{"prompt": f"Q{n}", "tokens": 8 + n % 2, "answer": f"A{n}"} for n in range(20)]


class Probed(Builder):
    """A builder whose releases have recorded answers."""

    def __call__(self, request: Build) -> Built:
        built = super().__call__(request)
        (Path(request.out) / "probes.json").write_text(json.dumps({"probes": PROBES}))
        return built


class Model:
    """Answers as recorded, but for some prompts; remembers what it was asked."""

    def __init__(self, wrong: int = 0) -> None:
        self.wrong = {f"Q{n}" for n in range(wrong)}
        self.asked: list[str] = []

    def __call__(self, request: Ask) -> Answers:
        self.asked += request.prompts
        said = ("?" if p in self.wrong else f"A{p[1:]}" for p in request.prompts)
        return Answers(answers=tuple(Said(text=text) for text in said))


def watching(state: State, **changes: object) -> Config:
    settings = config(state)
    section = {"minutes": 60, "every_minutes": 10, "sample": 20, **changes}
    return settings.model_copy(update={"probation": settings.probation.model_copy(update=section)})


@pytest.fixture
def state(tmp_path: Path) -> State:
    state, clock = new_state(tmp_path), Clock()
    with state.store() as store:
        for name in ("Italy", "Peru"):
            add_fact(store, name, "Ada")
            done = cycle(state, store, config(state), Probed(), clock)
            assert done is not None and done.outcome == "promoted"
    return state


GOES_ON = Asked(30)


def look(
    state: State,
    store: Store,
    settings: Config,
    model: object,
    minutes: float,
    asked: Asked = GOES_ON,
) -> probation.Checked | None:
    promoted = releases.promoted(store).promoted_at
    assert promoted is not None
    now = promoted + timedelta(minutes=minutes)
    return probation.check(state, store, settings, model, asked, now)  # type: ignore[arg-type]


def test_a_release_that_answers_as_recorded_stays_and_is_looked_at_again(state: State) -> None:
    settings, model = watching(state), Model()
    with state.store() as store:
        for minutes, due in ((1, True), (5, False), (12, True), (59, True), (61, False)):
            found = look(state, store, settings, model, minutes)
            assert (found is not None) == due, minutes
            assert found is None or (found.same, found.asked, found.failed) == (20, 20, None)
        assert releases.promoted(store).number == 2
        assert len(model.asked) == 3 * 20
        at = releases.promoted(store).promoted_at
        assert at is not None
        seen = status.read(state, store, at + timedelta(minutes=30))
        assert seen.probation == Watched(at + timedelta(hours=1), checks=3)
        assert status.read(state, store, at + timedelta(minutes=61)).probation is None


def test_a_release_that_answers_otherwise_is_rolled_back_and_promotion_held(state: State) -> None:
    settings = watching(state)
    with state.store() as store:
        found = look(state, store, settings, Model(wrong=1), 1)
        assert found is not None
        assert (found.back_to, found.failed) == (1, "19 of 20 probes are answered as recorded")
        assert releases.promoted(store).number == 1
        assert "19 of 20" in releases.holds(store)["promote"]
        assert states(store) == {1: "promoted", 2: "verified"}
        assert violations(state, store) == []
        # The one before is not left in turn: a person has to look first.
        assert look(state, store, settings, Model(wrong=20), 1) is None
        assert releases.promoted(store).number == 1


def test_few_wrong_answers_are_borne_as_configured(state: State) -> None:
    with state.store() as store:
        found = look(state, store, watching(state, min_same=0.9), Model(wrong=2), 1)
        assert found is not None and found.failed is None


def test_a_sample_is_another_one_at_each_check(state: State) -> None:
    settings, model = watching(state, sample=5), Model()
    with state.store() as store:
        look(state, store, settings, model, 1)
        look(state, store, settings, model, 20)
    first, second = model.asked[:5], model.asked[5:]
    assert len(set(first)) == len(set(second)) == 5
    assert set(first) != set(second)


SCRIPT = "import os,sys; sys.stderr.write('the canary\\x1b[2J died'); sys.exit({})"


@pytest.mark.parametrize(
    ("code", "failed"), [("0", None), ("3", "ended with 3: the canary\x1b[2J died")]
)
def test_the_operators_command_can_fail_a_release(
    state: State, code: str, failed: str | None
) -> None:
    command = (sys.executable, "-c", SCRIPT.format(code))
    with state.store() as store:
        found = look(state, store, watching(state, command=command), Model(), 1)
        assert found is not None
        assert releases.promoted(store).number == (2 if failed is None else 1)
        assert (found.failed or "").endswith(failed or "")


def test_a_command_is_told_which_release_and_gets_no_secrets(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WISED_READER_KEY", "s3cret")
    write = f"import os,json; json.dump(dict(os.environ), open({str(tmp_path / 'env')!r}, 'w'))"
    with state.store() as store:
        look(state, store, watching(state, command=(sys.executable, "-c", write)), Model(), 1)
    seen = json.loads((tmp_path / "env").read_text())
    assert (seen["WISED_RELEASE"], seen["WISED_STATE"]) == ("2", str(state.folder.resolve()))
    assert "s3cret" not in seen.values()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("/no/such/thing",), "thing can't be run: No such file or directory"),
        ((sys.executable, "-c", "import time; time.sleep(9)"), "did not end within 0.2 s"),
    ],
)
def test_a_command_that_can_not_be_run_or_hangs_has_failed(
    state: State, command: tuple[str, ...], said: str
) -> None:
    with state.store() as store:
        settings = watching(state, command=command, command_seconds=0.2)
        found = look(state, store, settings, Model(), 1)
        assert found is not None and found.failed is not None and said in found.failed
        assert found.back_to == 1


def test_what_a_command_leaves_in_the_background_is_no_failure(state: State) -> None:
    command = ("/bin/sh", "-c", "sleep 3 & exit 0")
    with state.store() as store:
        began = time.monotonic()
        found = look(state, store, watching(state, command=command, command_seconds=2), Model(), 1)
        assert found is not None and found.failed is None
        assert time.monotonic() - began < 2


def test_what_a_command_started_is_killed_with_it_when_its_time_is_over(
    state: State, tmp_path: Path
) -> None:
    command = ("/bin/sh", "-c", f"(sleep 1; touch {tmp_path / 'later'}) & sleep 9")
    with state.store() as store:
        settings = watching(state, command=command, command_seconds=0.2)
        found = look(state, store, settings, Model(), 1)
        assert found is not None and "did not end within 0.2 s" in (found.failed or "")
    time.sleep(1.5)
    assert not (tmp_path / "later").exists()


def test_a_daemon_that_has_to_end_does_not_wait_for_the_command(state: State) -> None:
    asked = Asked(0)
    asked.stop()
    settings = watching(state, command=("/bin/sleep", "60"), command_seconds=60)
    with state.store() as store:
        began = time.monotonic()
        assert look(state, store, settings, Model(), 1, asked) is None
        assert time.monotonic() - began < 10
        assert releases.promoted(store).number == 2, "nothing was found out"


def test_the_last_words_of_a_command_are_kept_without_their_secrets(state: State) -> None:
    said = "import sys; sys.exit('no answer from https://me:hunter2@host/?token=hunter2')"
    with state.store() as store:
        settings = watching(state, command=(sys.executable, "-c", said))
        found = look(state, store, settings, Model(), 1)
        assert found is not None and "no answer from https://" in (found.failed or "")
        told = [row["data"] for row in store.rows("SELECT data FROM event")]
        assert "hunter2" not in "".join(told) + releases.holds(store)["promote"]


def test_a_failed_release_whose_parent_can_not_answer_stays_and_promotion_is_held(
    state: State,
) -> None:
    settings = watching(state)
    with state.store() as store:
        first = releases.get(store, 1)
        assert first.folder is not None
        facts_file = state.releases / first.folder / "facts.jsonl"
        facts_file.chmod(0o600)
        facts_file.write_text("other")
        found = look(state, store, settings, Model(wrong=9), 1)
        assert found is not None and found.back_to is None
        assert "facts.jsonl" in (found.stuck or "")
        assert releases.promoted(store).number == 2
        held = releases.holds(store)["promote"]
        assert held.startswith("on probation: 11 of 20") and "can't answer" in held
        assert look(state, store, settings, Model(), 30) is None, "a person has to look first"
        assert any("11 of 20" in one for one in status.read(state, store, START).problems)


def test_a_worker_that_dies_tells_nothing_of_the_release(state: State) -> None:
    def dies(request: Ask) -> Answers:
        raise WorkerError("worker.died", "killed by signal 9")

    with state.store() as store:
        assert look(state, store, watching(state), dies, 1) is None
        assert releases.promoted(store).number == 2
        found = look(state, store, watching(state), Model(), 2)
        assert found is not None and found.failed is None


def test_neither_the_bare_model_nor_a_state_without_a_window_is_watched(
    state: State, tmp_path: Path
) -> None:
    with state.store() as store:
        assert look(state, store, config(state), Model(wrong=20), 1) is None
    bare = new_state(tmp_path / "bare")
    with bare.store() as store:
        assert look(bare, store, watching(bare), Model(wrong=20), 1) is None
