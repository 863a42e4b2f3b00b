"""The manifest of a release folder: which files it has, their size and sha256. No torch here."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wise.errors import BadArtifact

NAME = "manifest.json"
FORMAT_VERSION = 1
#: every file that a release may hold, and its bytes at most; anything else is refused. The bounds
#: are far above what is written: they keep a forged folder from keeping a reader busy
FILES = {
    "adapter_config.json": 1 << 20,
    "adapter_model.safetensors": 1 << 35,
    "facts.jsonl": 1 << 30,
    "probes.json": 1 << 30,
    "README.md": 1 << 20,
}
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
        size = regular_size(folder / name, FILES[name])
        _fsync(folder / name)
        files[name] = {"sha256": file_sha256(folder / name), "bytes": size}
    body = {"format_version": FORMAT_VERSION, **fields, "files": files}
    text = json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / NAME).write_text(text, "utf-8")
    _fsync(folder / NAME)
    _fsync(folder)
    return hashlib.sha256(text.encode()).hexdigest()


def verify(folder: Path) -> dict[str, Any]:
    """Return the manifest of ``folder`` after checking every file against it.

    Raises BadArtifact for a missing, changed, surplus or irregular file and for an unknown
    format. ``folder`` itself may be a link (``current`` is one); nothing in it may.
    """
    folder = followed(folder)
    body = read(folder)
    with _readable(folder):
        names = {p.name for p in folder.iterdir()} - {NAME}
    if stray := sorted(names - set(body["files"])):
        raise BadArtifact(f"{folder}: holds {stray[0]!r}, which its manifest does not name")
    for name, expected in body["files"].items():
        _check(folder / name, name, expected)
    return body


def followed(folder: Path) -> Path:
    """Return where a release folder lies, so that its files are all of one release.

    A link to it, as ``current`` is, may be moved to another at any time. Raises BadArtifact.
    """
    found = Path(os.path.realpath(folder))
    if not found.is_dir():
        raise BadArtifact(f"{folder}: no such release folder")
    return found


def read(folder: Path) -> dict[str, Any]:
    """Return the manifest of ``folder`` as it stands, checking only its form."""
    path = folder / NAME
    body = read_json(path, MAX_MANIFEST_BYTES)
    if not isinstance(body, dict) or not is_format(body.get("format_version")):
        raise BadArtifact(
            f"{path}: not a manifest of format {FORMAT_VERSION}",
            hint="a newer wised may have written it",
        )
    files = body.get("files")
    if not isinstance(files, dict) or not set(files) <= set(FILES):
        raise BadArtifact(f"{path}: names files that a release does not have")
    return body


def is_format(version: object) -> bool:
    """Return whether ``version`` is the format that this code reads; ``true`` is no number."""
    return type(version) is int and version == FORMAT_VERSION


def read_json(path: Path, most: int) -> Any:
    """Return the JSON value in a regular file of at most ``most`` bytes; raises BadArtifact."""
    size = regular_size(path, most)
    with _readable(path), path.open("rb") as file:
        data = file.read(size)
    return parse_json(data, path)


def parse_json(data: bytes, path: Path) -> Any:
    """Return what ``data`` spells in strict JSON: UTF-8, finite numbers, each name once.

    Raises BadArtifact, which names ``path``.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_finite,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise BadArtifact(f"{path}: not JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _check(path: Path, name: str, expected: Any) -> None:
    size = regular_size(path, FILES[name])
    if not isinstance(expected, dict) or set(expected) != {"bytes", "sha256"}:
        raise BadArtifact(f"{path}: its entry in the manifest is not a size and a sha256")
    if size != expected["bytes"]:
        raise BadArtifact(f"{path}: its size is not the one in the manifest")
    with _readable(path):
        found = file_sha256(path)
    if found != expected["sha256"]:
        raise BadArtifact(
            f"{path}: checksum mismatch: {name} was changed after it was written",
            hint="go back to a good release: wised rollback",
        )


def regular_size(path: Path, most: int) -> int:
    """Return the size of a file; BadArtifact unless it is regular and not above ``most`` bytes."""
    try:
        found = path.lstat()
    except OSError as error:
        raise BadArtifact(f"{path}: missing") from error
    if not stat.S_ISREG(found.st_mode):
        raise BadArtifact(f"{path}: not a regular file")
    if found.st_size > most:
        raise BadArtifact(f"{path}: larger than {most} bytes")
    return found.st_size


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say which file could not be read."""
    try:
        yield
    except OSError as error:
        raise BadArtifact(f"{path}: not readable: {error.strerror}") from error


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
