"""The two files that a memory is kept in: tensors as safetensors, all else as JSON.

Nothing is allocated before the header of the tensors has been found to describe exactly the bytes
that are there. Contains nothing of what the tensors mean (`wise.storage`, `wise.paper.storage`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from wise import manifest
from wise.errors import BadArtifact
from wise.format import CONFIG, MAX_HEADER_BYTES, METADATA, TENSORS

MAX_DIMENSION = 2**31 - 1  #: indices are int32
MAX_DIMENSIONS = 2
#: what tensors may be made of, by safetensors' names
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
}

_Record = TypeVar("_Record")


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``adapter_config.json``: the same values give the same bytes."""
    text = json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / CONFIG).write_text(text, "utf-8")


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write ``adapter_model.safetensors``: the same values give the same bytes."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / TENSORS, metadata=METADATA)


def read_config(folder: Path) -> dict[str, Any]:
    """Return what ``adapter_config.json`` spells; raises BadArtifact unless it is an object."""
    path = folder / CONFIG
    config = manifest.read_json(path, manifest.FILES[CONFIG])
    if not isinstance(config, dict):
        raise BadArtifact(f"{path}: not a JSON object")
    return config


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of ``adapter_model.safetensors``; raises BadArtifact.

    They own their memory: the file may change or go while they are used.
    """
    path = folder / TENSORS
    size = manifest.regular_size(path, manifest.FILES[TENSORS])
    try:
        with path.open("rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            _require(length <= MAX_HEADER_BYTES, f"a header above {MAX_HEADER_BYTES} bytes")
            header = file.read(length)
            _check_header(manifest.parse_json(header, path), size - len(head) - length)
            return load(head + header + file.read(size - len(head) - length))
    except (OSError, SafetensorError, ValueError) as error:
        raise BadArtifact(f"{path}: not tensors of a release: {error}") from error


def _check_header(header: object, room: int) -> None:
    """Raise ValueError unless ``header`` covers ``room`` bytes without a gap or an overlap."""
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")
    _require(header.pop("__metadata__", METADATA) == METADATA, "unknown metadata")
    ranges = [_range_of(name, entry) for name, entry in header.items()]
    end = 0
    for start, stop in sorted(ranges):
        _require(start == end, "tensors overlap or leave a gap")
        end = stop
    _require(end == room, "the tensors are not as long as the file")


def _range_of(name: str, entry: object) -> tuple[int, int]:
    """Return where the bytes of a tensor begin and end."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name}: not a tensor's entry")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    _require(isinstance(dtype, str) and dtype in DTYPES, f"{name}: a dtype that no release has")
    _require(_are_sizes(shape) and len(shape) <= MAX_DIMENSIONS, f"{name}: not a shape")
    _require(_are_sizes(offsets, None) and len(offsets) == 2, f"{name}: not two offsets")
    start, stop = offsets
    size = math.prod(shape) * DTYPES[dtype].itemsize
    _require(stop - start == size, f"{name}: its shape does not fit its bytes")
    return start, stop


def _are_sizes(values: object, most: int | None = MAX_DIMENSION) -> bool:
    return isinstance(values, list) and all(
        type(v) is int and v >= 0 and (most is None or v <= most) for v in values
    )


def take(
    tensors: dict[str, Tensor], name: str, dtype: torch.dtype, shape: tuple[int | None, ...]
) -> Tensor:
    """Take a tensor out; ValueError unless it is there, of ``dtype`` and ``shape`` and finite.

    None in ``shape`` is any size.
    """
    tensor = tensors.pop(name, None)
    if tensor is None:
        raise ValueError(f"{name} is missing")
    _require(tensor.dtype == dtype, f"{name}: {tensor.dtype}, not {dtype}")
    fits = tensor.dim() == len(shape) and all(
        want is None or want == size for want, size in zip(shape, tensor.shape, strict=True)
    )
    _require(fits, f"{name} has a wrong shape")
    _require(bool(torch.isfinite(tensor).all()), f"{name} holds a non-finite value")
    return tensor


def record(kind: type[_Record], value: object) -> _Record:
    """Return the flat dataclass that ``value`` spells; ValueError unless it has just its fields.

    Each value must be of its field's very type: ``true`` is no number, and 1 no float.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{kind.__name__}: not an object")
    wanted = get_type_hints(kind)
    if odd := sorted(set(value) ^ set(wanted)):
        raise ValueError(f"{kind.__name__}: {odd[0]!r} is unknown or missing")
    for name, one in wanted.items():
        _require(type(value[name]) is one, f"{kind.__name__}: {name} is not of type {one.__name__}")
    return kind(**value)


def _require(good: bool, message: str) -> None:
    if not good:
        raise ValueError(message)
