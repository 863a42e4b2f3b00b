import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest
from cli_world import EDITED, add_fact, add_release, dump, new_state, wised

import daemon
from daemon import base_model, doctor
from daemon.cli.reference import PAGE
from demo.world import MODEL
from wise import manifest

CHECKS = [
    "config",
    "dependencies",
    "permissions",
    "disk",
    "lock",
    "schema",
    "database",
    "audit",
    "clock",
    "releases",
    "current",
    "invariants",
    "model",
    "embedding",
]
SITE = {"module": "model.layers.5.mlp.down_proj", "transposed": False}


@pytest.fixture
def state(tmp_path):
    made = new_state(tmp_path)
    add_release(made, 1, (add_fact(made, events=EDITED),))
    seal_config(made, 1, base_model.matrix_sha256(MODEL, SITE, "float32"))
    return made


def seal_config(state, number, sha256):
    """Say which matrix a release was made for, as one made by a worker does."""
    folder = state.releases / f"{number:06d}"
    head = {"edited_matrix_sha256": sha256, "base_model_name_or_path": "demo", "site": SITE}
    (folder / "adapter_config.json").write_text(json.dumps(head))
    (folder / manifest.NAME).unlink()
    digest = manifest.seal(folder, {"release": number})
    with state.store() as store:
        store.db["release"].update(number, {"manifest_sha256": digest})


def found(state, code):
    ran = wised(state, "doctor", "--json")
    assert ran.code == code
    checks = {one["check"]: one for one in ran.json["checks"]}
    assert list(checks) == CHECKS
    assert ran.json["healthy"] == (code == 0)
    return checks


def verdicts(state, code):
    return {name: one["verdict"] for name, one in found(state, code).items()}


def not_ok(state, code):
    return {name: verdict for name, verdict in verdicts(state, code).items() if verdict != "ok"}


def test_all_is_well_with_the_daemon_down_and_up(state):
    assert not_ok(state, 0) == {}
    assert wised(state, "doctor").rows[0] == ["CHECK", "VERDICT", "FOUND", "MEND"]
    with state.lock():
        lock = found(state, 0)["lock"]
    assert f"pid {os.getpid()}" in lock["found"]


def test_a_bad_configuration_fails_and_what_needs_it_is_not_looked_at(state):
    state.config_file.write_text("[model]\nsize = 1\n")
    assert not_ok(state, 6) == {"config": "fail", "model": "warn", "embedding": "warn"}
    one = found(state, 6)["config"]
    assert "model.size" in one["found"]
    assert "wised config check" in one["mend"]


@pytest.mark.parametrize(
    ("folder", "file", "verdict"),
    [(0o700, 0o666, "ok"), (0o755, 0o644, "warn"), (0o777, 0o600, "fail"), (0o755, 0o646, "fail")],
)
def test_others_must_not_get_at_the_state(state, folder, file, verdict):
    (state.folder / "wised.db").chmod(file)
    state.folder.chmod(folder)
    one = found(state, 6 if verdict == "fail" else 0)["permissions"]
    assert one["verdict"] == verdict
    assert one["mend"] == ("" if verdict == "ok" else f"chmod go-rwx {state.folder}")
    if one["mend"]:
        subprocess.run(one["mend"], shell=True, check=True)
        assert verdicts(state, 0)["permissions"] == "ok"


@pytest.mark.parametrize(
    ("free_mib", "verdict"), [(60, "fail"), (127, "fail"), (1000, "warn"), (4000, "ok")]
)
def test_a_disk_must_have_room(state, monkeypatch, free_mib, verdict):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, free_mib << 20))
    assert verdicts(state, 6 if verdict == "fail" else 0)["disk"] == verdict


def test_a_daemon_that_was_killed_leaves_its_lock_behind(state):
    state.lock_file.write_text("pid 7 on host since 2024\n")
    one = found(state, 0)["lock"]
    assert one["verdict"] == "warn"
    assert "pid 7" in one["found"]
    with state.lock():  # a start and an end tidy up
        pass
    assert verdicts(state, 0)["lock"] == "ok"


@pytest.mark.parametrize("pragma", ["user_version = 1", "user_version = 99", "application_id = 5"])
def test_a_database_of_another_kind_or_version_is_only_told(state, pragma):
    raw = sqlite3.connect(state.folder / "wised.db")
    raw.execute(f"PRAGMA {pragma}")
    raw.close()
    seen = verdicts(state, 6)
    assert seen["schema"] == "fail"
    needing = ("database", "audit", "clock", "releases", "current", "model")
    assert {seen[name] for name in needing} == {"warn"}


def test_a_row_that_refers_to_nothing_fails(state):
    raw = sqlite3.connect(state.folder / "wised.db")
    raw.execute("INSERT INTO evidence VALUES (1, 99, 'x')")
    raw.commit()
    raw.close()
    assert not_ok(state, 6) == {"database": "fail", "invariants": "warn"}
    ran = wised(state, "db", "check")
    assert (ran.code, ran.out) == (9, "")
    assert "refers to a entry" in ran.err


def test_a_state_that_no_step_leads_to_fails_once_no_daemon_is_at_work(state):
    with state.store() as store, store.write():
        store.connection.execute("UPDATE fact SET state = 'batched'")
    one = found(state, 6)["invariants"]
    assert one["verdict"] == "fail"
    assert one["found"] == "fact 1 is batched, and the promoted release holds it, and 2 more"
    assert not_ok(state, 6) == {"invariants": "fail"}
    with state.lock():
        seen = found(state, 0)["invariants"]
        assert (seen["verdict"], seen["found"]) == ("ok", "not looked at, a daemon runs")


def test_a_changed_event_fails(state):
    raw = sqlite3.connect(state.folder / "wised.db")
    raw.executescript("DROP TRIGGER event_is_append_only_update; UPDATE event SET actor = 'x'")
    raw.close()
    assert not_ok(state, 6) == {"audit": "fail", "invariants": "warn"}


def test_a_clock_behind_the_newest_event_is_told(state):
    with state.store() as store, store.write():
        store.event("x.y", "x:1", {}, datetime.now(UTC) + timedelta(hours=2))
    assert not_ok(state, 0) == {"clock": "warn"}


def test_a_release_whose_files_were_changed_fails(state):
    (state.releases / "000001" / "facts.jsonl").write_text("other")
    one = found(state, 6)["releases"]
    assert (one["verdict"], one["mend"]) == ("fail", "wised rollback")
    assert wised(state, "rollback").code == 0
    assert "restore a backup" in found(state, 6)["releases"]["mend"]


def test_a_link_that_names_another_release_fails(state):
    state.current.unlink()
    assert not_ok(state, 6) == {"current": "fail", "invariants": "warn"}
    state.current.symlink_to("releases")
    assert not_ok(state, 6) == {"current": "fail", "invariants": "warn"}
    wised(state, "rollback")
    assert verdicts(state, 0)["current"] == "ok"
    state.current.symlink_to("releases")
    assert not_ok(state, 6) == {"current": "fail", "invariants": "warn"}


def test_another_model_than_the_release_was_made_for_fails(state):
    seal_config(state, 1, "0" * 64)
    one = found(state, 6)["model"]
    assert one["verdict"] == "fail"
    assert "[model]" in one["mend"]


def test_models_that_are_not_here_are_told(state):
    text = state.config_file.read_text()
    text = text.replace('name = "demo"', 'name = "nobody/nothing"', 1)
    text = text.replace('name = "all-MiniLM-L6-v2"', 'name = "nobody/nowhere"')
    state.config_file.write_text(text)
    assert not_ok(state, 0) == {"model": "warn", "embedding": "warn"}


def test_a_broken_weights_file_is_a_finding(state, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    place = state.config_file.read_text().replace('name = "demo"', f'name = "{folder}"', 1)
    state.config_file.write_text(place)
    assert not_ok(state, 6) == {"model": "fail"}


def test_it_changes_nothing_and_loads_no_model(state):
    before = dump(state), sorted(path.name for path in state.folder.iterdir())
    report = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules, 'transformers' in sys.modules))\n"
        "from daemon.cli import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", report, "-C", str(state.folder), "doctor"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(daemon.__file__).parents[1])},
        timeout=60,
    )
    assert ran.stdout.splitlines()[-1] == "False False"
    after = dump(state), sorted(path.name for path in state.folder.iterdir())
    assert after == before


def test_the_page_names_every_check():
    rows = re.findall(r"^\| ([a-z]+) \| .* \|$", PAGE.read_text("utf-8"), re.M)
    assert [row for row in rows if row in doctor._CHECKS] == CHECKS == list(doctor._CHECKS)


def test_a_finding_without_a_way_to_mend_it_is_a_bug():
    with pytest.raises(AssertionError, match="no way to mend it"):
        doctor.Finding("disk", doctor.Verdict.warn, "full")


def test_a_package_that_is_too_old_is_named(state, monkeypatch):
    real = metadata.version
    old = {"apscheduler": "3.10.4"}
    monkeypatch.setattr(metadata, "version", lambda name: old.get(name) or real(name))
    one = found(state, 6)["dependencies"]
    assert one["verdict"] == "fail"
    assert "3.10.4 is here" in one["found"] and "pip install" in one["mend"]


def test_a_package_that_is_missing_is_named(state, monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    one = found(state, 6)["dependencies"]
    assert "is needed, none is here" in one["found"]
