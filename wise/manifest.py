"""The manifest of a release folder: which files it has, their size and sha256. No torch here."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wise.errors import BadArtifact

NAME = "manifest.json"
FORMAT_VERSION = 1
#: every file that a release may hold; anything else is refused
FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "facts.jsonl",
    "probes.json",
    "README.md",
)
MAX_MANIFEST_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """Return the sha256 hex of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, fields: Mapping[str, Any]) -> str:
    """Write the manifest of ``folder`` last, make everything durable, return the manifest's sha256.

    Every file is fsynced, then the manifest, then the folder.
    """
    names = sorted(p.name for p in folder.iterdir() if p.name != NAME)
    files = {}
    for name in names:
        if name not in FILES:
            raise BadArtifact(f"{folder / name}: not a file of a release")
        _fsync(folder / name)
        size = (folder / name).stat().st_size
        files[name] = {"sha256": file_sha256(folder / name), "bytes": size}
    body = {"format_version": FORMAT_VERSION, **fields, "files": files}
    text = json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / NAME).write_text(text, "utf-8")
    _fsync(folder / NAME)
    _fsync(folder)
    return hashlib.sha256(text.encode()).hexdigest()


def verify(folder: Path) -> dict[str, Any]:
    """Return the manifest of ``folder`` after checking every file against it.

    Raises BadArtifact for a missing, changed, surplus or irregular file and for an unknown
    format. ``folder`` itself may be a link (``current`` is one); nothing in it may.
    """
    if not folder.is_dir():
        raise BadArtifact(f"{folder}: no such release folder")
    body = read(folder)
    names = {p.name for p in folder.iterdir()} - {NAME}
    if stray := sorted(names - set(body["files"])):
        raise BadArtifact(f"{folder}: holds {stray[0]!r}, which its manifest does not name")
    for name, expected in body["files"].items():
        _check(folder / name, name, expected)
    return body


def read(folder: Path) -> dict[str, Any]:
    """Return the manifest of ``folder`` as it stands, checking only its form."""
    path = folder / NAME
    _regular(path)
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BadArtifact(f"{path}: larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        body = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadArtifact(f"{path}: not JSON: {error}") from error
    if not isinstance(body, dict) or body.get("format_version") != FORMAT_VERSION:
        raise BadArtifact(
            f"{path}: not a manifest of format {FORMAT_VERSION}",
            hint="a newer wised may have written it",
        )
    files = body.get("files")
    if not isinstance(files, dict) or not set(files) <= set(FILES):
        raise BadArtifact(f"{path}: names files that a release does not have")
    return body


def _check(path: Path, name: str, expected: Any) -> None:
    _regular(path)
    if not isinstance(expected, dict) or path.stat().st_size != expected.get("bytes"):
        raise BadArtifact(f"{path}: its size is not the one in the manifest")
    if file_sha256(path) != expected.get("sha256"):
        raise BadArtifact(
            f"{path}: checksum mismatch: {name} was changed after it was written",
            hint="go back to a good release: wised rollback",
        )


def _regular(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise BadArtifact(f"{path}: missing") from error
    if not stat.S_ISREG(mode):
        raise BadArtifact(f"{path}: not a regular file")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
