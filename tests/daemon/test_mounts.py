"""A state on another machine's disk is refused: locks and SQLite's WAL don't hold there."""

import os

import pytest
from cli_world import new_state, wised

from daemon import mounts

LINES = """\
22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
30 22 {device} / /srv/a\\040b rw,nosuid shared:7 master:3 - {kind} host:/export rw,vers=4.2
31 22 0:5 / /proc rw - proc proc rw
"""


def mounted(tmp_path, kind):
    """What Linux says where the folder's disk is of that kind."""
    device = os.stat(tmp_path).st_dev
    said = tmp_path / "mountinfo"
    numbers = f"{os.major(device)}:{os.minor(device)}"
    said.write_text(LINES.format(device=numbers, kind=kind))
    return mounts.network_kind(tmp_path, said)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs"])
def test_a_network_file_system_is_told(tmp_path, kind):
    assert mounted(tmp_path, kind) == kind


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs", "fuse.ntfs-3g", "nfsd"])
def test_a_local_one_is_none(tmp_path, kind):
    assert mounted(tmp_path, kind) is None


def test_what_is_not_known_is_not_taken_for_one(tmp_path):
    assert mounts.network_kind(tmp_path, tmp_path / "nowhere") is None
    (tmp_path / "garbled").write_bytes(b"\xff\n1 2 3\n")
    assert mounts.network_kind(tmp_path, tmp_path / "garbled") is None


def test_a_daemon_does_not_start_on_one_unless_it_is_told_to(tmp_path, monkeypatch):
    state = new_state(tmp_path)
    monkeypatch.setattr("daemon.mounts.network_kind", lambda folder: "nfs4")
    ran = wised(state, "run", "--once", "--stages", "ingest")
    assert ran.code == 5
    assert "network file system (nfs4)" in ran.err and "--allow-network-fs" in ran.err
    assert wised(state, "run", "--once", "--stages", "ingest", "--allow-network-fs").code == 0


def test_the_doctor_tells_it(tmp_path, monkeypatch):
    state = new_state(tmp_path)
    monkeypatch.setattr("daemon.mounts.network_kind", lambda folder: "nfs4")
    found = wised(state, "doctor", "--json").json["checks"]
    (disk,) = [one for one in found if one["check"] == "disk"]
    assert (disk["verdict"], disk["mend"]) == ("fail", "move it to a local disk")
