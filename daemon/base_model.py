"""The base model's files, looked at without loading the model. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wise import manifest
from wise.errors import BadArtifact

DEMO = "demo"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_HEADER_BYTES = 100 << 20  #: as safetensors itself allows
MAX_INDEX_BYTES = 100 << 20
LEAST_PARTS = 3  #: of a tensor's name that must agree: ``5.down_proj.weight`` and the like


def place(name: str) -> Path | None:
    """Return the folder of a model: the demo's, a given one, or one in the local cache.

    None when it is in none of them.
    """
    if name == DEMO:
        import demo

        return Path(str(demo.__file__)).parent / "model"
    folder = Path(name)
    if folder.is_dir():
        return folder
    return _cached(name)


def _cached(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # a path that is not there is no name of a model
        return None
    return Path(found).parent if isinstance(found, str) else None


def matrix_sha256(folder: Path, site: Mapping[str, Any], dtype: str) -> str | None:
    """Return the sha256 hex of the edited matrix as a release names it (`wise.weight_hash`).

    ``dtype`` is the type that the model is loaded in. None when the matrix is not there as one
    plain tensor. Raises BadArtifact for a file that is no safetensors.
    """
    import numpy as np

    found = _tensor(folder, f"{site['module']}.weight")
    if found is None:
        return None
    kind, shape, data = found
    if kind == "BF16":
        values = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    elif kind in ("F32", "F16"):
        values = np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[kind]).astype("<f4")
    else:
        return None
    values = _rounded(values, dtype).reshape(shape)
    plain = values.T if site["transposed"] else values
    return hashlib.sha256(np.ascontiguousarray(plain).tobytes()).hexdigest()


def _rounded(values: Any, dtype: str) -> Any:  # float32 arrays
    """Return values as they are after a model was loaded in ``dtype``: nearest, ties to even."""
    if dtype == "float16":
        return values.astype("<f2").astype("<f4")
    if dtype == "bfloat16":
        bits = values.view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).view("<f4")
    return values


def _tensor(folder: Path, name: str) -> tuple[str, list[int], bytes] | None:
    """Return a tensor's type, shape and bytes; None when no file has it under a like name."""
    index = folder / INDEX
    if index.exists():
        body = manifest.read_json(index.resolve(), MAX_INDEX_BYTES)
        files: Mapping[str, str] = body["weight_map"]
        stored = _like(name, list(files))
        if stored is None or Path(files[stored]).name != files[stored]:
            return None
        return _read(folder / files[stored], stored)
    return _read(folder / WEIGHTS, name) if (folder / WEIGHTS).exists() else None


def _read(path: Path, name: str) -> tuple[str, list[int], bytes] | None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise BadArtifact(f"{path}: not safetensors: a header of {length} bytes")
        try:
            header = json.loads(file.read(length))
            stored = _like(name, [one for one in header if one != "__metadata__"])
            if stored is None:
                return None
            kind, shape = header[stored]["dtype"], header[stored]["shape"]
            start, end = header[stored]["data_offsets"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadArtifact(f"{path}: not safetensors: {error}") from error
        file.seek(8 + length + start)
        return kind, shape, file.read(end - start)


def _like(name: str, stored: list[str]) -> str | None:
    """Return the one stored name that ends as ``name`` does; some files leave a prefix out."""
    parts = name.split(".")
    for first in range(len(parts) - LEAST_PARTS + 1):
        end = ".".join(parts[first:])
        found = [one for one in stored if one == end or one.endswith(f".{end}")]
        if found:
            return found[0] if len(found) == 1 else None
    return None
