"""A disk that is full or fails under the worker, told apart from failures of what was asked."""

from __future__ import annotations

import errno
import io
import os
import sys
import tempfile
from pathlib import Path

import pytest
from safetensors import SafetensorError
from small_disk import on_a_small_disk
from worker_world import fact, new_model, new_session, request
from world import new_state

from daemon.messages import AT_WORK, Envelope, Failed
from daemon.worker import serving
from daemon.worker.build import build
from wise.errors import BadArtifact

#: what safetensors says of a full disk; the last test lets it say so
FULL = "Error while serializing: I/O error: No space left on device (os error 28)"


def because(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def disk(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def reply_after(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Failed:
    """What a worker answers to a build that fails with ``error``."""

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(serving, "build", fails)
    server = serving.Server(new_state(tmp_path).config_file, lambda *_: None)
    line = Envelope(request=request(tmp_path / "out", 1, [fact(0)])).model_dump_json()
    reply = server.reply(line)
    assert isinstance(reply, Failed)
    return reply


@pytest.mark.parametrize(
    "error",
    [
        disk(errno.ENOSPC),
        disk(errno.EDQUOT),
        disk(errno.EIO),
        SafetensorError(FULL),
        because(BadArtifact("config.json: not readable"), disk(errno.EIO)),
    ],
    ids=str,
)
def test_a_disk_that_is_full_or_broken_is_told_apart(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reply_after(error, tmp_path, monkeypatch).disk_failed


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("64 GiB"),
        disk(errno.ENOENT),
        SafetensorError("Error while deserializing: incomplete metadata"),
        ValueError(f"no such name: {FULL!r}"),  # what a fact's text says is no evidence
    ],
    ids=str,
)
def test_any_other_failure_is_not_the_disks(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not reply_after(error, tmp_path, monkeypatch).disk_failed


def test_a_log_on_the_same_full_disk_does_not_hide_why_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise disk(errno.ENOSPC)

    monkeypatch.setattr(sys, "stderr", Full())
    assert reply_after(disk(errno.ENOSPC), tmp_path, monkeypatch).disk_failed


def test_no_room_for_temporary_files_is_found_out_before_a_fact_can_be_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python says no more of it than that it found no folder that it can write to."""
    session, stages = new_session(new_model(tmp_path / "tiny"), activation_budget_mb=1), []
    session.report = lambda stage, *_: stages.append(stage)

    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", nowhere)
    with pytest.raises(FileNotFoundError):
        build(session, request(tmp_path, 1, [fact(0)]))
    assert AT_WORK not in stages


def test_what_the_libraries_do_on_a_full_disk_is_what_is_looked_for(tmp_path: Path) -> None:
    script = f"""
import os, torch
os.environ["TMPDIR"] = {str(tmp_path)!r}
from pathlib import Path
from wise.artifact import write_tensors
from wise.spill import Spill
big = torch.zeros(2**20)
save = lambda: write_tensors(Path({str(tmp_path)!r}), {{"a": big}})
for act in (save, lambda: Spill(0).keep(big)):
    try:
        act()
    except Exception as error:
        print(type(error).__name__, error)
"""
    saved, spilled = on_a_small_disk(tmp_path, "64k", "-c", script).splitlines()
    assert saved == f"SafetensorError {FULL}"
    assert spilled.startswith("OSError [Errno 28]")
