"""Dying amid an emergency loses nothing: the fact is gone in the end, and all else is whole."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from world import Builder, Clock, add_fact, config, new_state, states

from daemon import emergency, releases
from daemon.cycle import cycle
from daemon.state import State
from daemon.store import Store, facts

CALIBRATED = {"threshold": 0.8, "false_fire_bound": 0.001}
HEAD = {"base_model_name_or_path": "tiny", "edited_matrix_sha256": "0" * 64, "router": CALIBRATED}


class Crash(BaseException):
    """Stands for SIGKILL."""


def written(parent: Path | None, folder: Path, gone: object) -> None:
    """Files that look as `wise.withdrawal` writes them; the builder's folders hold no memory."""
    (folder / "adapter_config.json").write_text(json.dumps(HEAD))
    (folder / "adapter_model.safetensors").write_bytes(bytes(8))
    (folder / "probes.json").write_text("{}")


def turn(state: State, store: Store) -> str | None:
    """Run one cycle; its outcome."""
    done = cycle(state, store, config(state), Builder(), Clock())
    return done.outcome if done else None


def retract_now(state: State, store: Store, one: int) -> None:
    """Retract a fact and take it out at once."""
    with store.write():
        store.transition("fact", one, "retract", Clock()())
    gone = [facts.get(store, one)]
    emergency.release_without(state, store, config(state), gone, Clock()(), "wrong")


def counted(original: object, left: list[int]) -> object:
    """``original``, which dies instead of its call number ``left[0]``."""

    def act(*args: object, **kwargs: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            raise Crash
        return original(*args, **kwargs)  # type: ignore[operator]

    return act


@pytest.mark.parametrize("step", range(1, 30))
def test_a_crash_at_any_step_of_an_emergency_loses_nothing(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, left = new_state(tmp_path), [step]
    with state.store() as store:
        gone, stays = add_fact(store, "Italy", "Draghi"), add_fact(store, "Peru", "Sagasti")
        assert turn(state, store) == "promoted"
        monkeypatch.setattr(emergency, "_write", written)
        with monkeypatch.context() as dying:
            for owner, name in ((Store, "event"), (Store, "transition"), (os, "rename")):
                dying.setattr(owner, name, counted(getattr(owner, name), left))
            with contextlib.suppress(Crash):
                retract_now(state, store, gone)
    was_retracted = step > 2
    with state.store() as store:
        releases.reconcile(state, store, Clock()())
        while turn(state, store) is not None:
            pass
        held = [f.id for f in facts.of_release(store, releases.promoted(store).number)]
        assert held == ([stays] if was_retracted else [gone, stays])
        assert states(store) == {
            gone: "retracted" if was_retracted else "promoted",
            stays: "promoted",
        }
        assert store.verify_events() > 0
        releases.check_files(state, releases.promoted(store))
        assert state.current.resolve() == releases.folder_of(state, releases.promoted(store))
        assert not [p for p in state.releases.iterdir() if p.name.startswith(".tmp-")]
