"""S11: the disk under a daemon fills up, a real one, at any point of its work."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from full_disk import ALL, READS
from small_disk import on_a_small_disk

import daemon

ROOT = Path(daemon.__file__).resolve().parents[1]
SCRIPT = Path(__file__).with_name("full_disk.py")


def test_s11_a_disk_that_fills_up_spoils_nothing_and_the_work_goes_on_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    said = on_a_small_disk(tmp_path, "8m", str(SCRIPT), str(tmp_path))
    rooms = [json.loads(line) for line in said.splitlines()]
    assert rooms[0]["full"] == {}
    assert rooms[-1]["full"] == ALL
    # the disk filled up while sources were read, facts sorted out, and a release made
    assert {state for room in rooms for state in room["full"]} >= {"received", "batched"}
    for room in rooms:
        found = [room[key] for key in ("read", "after", "check")]
        assert found == [[0] * len(READS), ALL, 0], room


#: commands where nothing is left of the disk, and no daemon that holds the database open
COMMANDS = [["status"], ["pause", "edit"], ["db", "check"]]
FULL = f"""
import json, sys
from pathlib import Path
from cli_world import new_state, wised
from full_disk import leave
disk = Path(sys.argv[1])
state = new_state(disk)
leave(disk, 0)
full = [wised(state, *words) for words in {COMMANDS}]
(disk / "ballast").unlink()
after = [wised(state, *words).code for words in {COMMANDS}]
print(json.dumps([[(ran.code, ran.out, ran.err) for ran in full], after]))
"""


def test_s11_a_command_that_finds_no_room_says_so_and_calls_nothing_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{SCRIPT.parent}")
    full, after = json.loads(on_a_small_disk(tmp_path, "8m", "-c", FULL, str(tmp_path)))
    assert after == [0] * len(COMMANDS)
    for code, out, err in full:
        assert (code, out) == (1, "")
        assert "is the disk full?" in err
