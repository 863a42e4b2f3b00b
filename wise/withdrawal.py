"""Take facts out of a release on disk without torch, whose import alone takes seconds.

What is written is byte for byte what ``Release.load(folder).without(fact_ids).save(out)`` writes
(`wise.release`). For that safetensors' layout is written by hand: how that library takes bytes
differs from version to version.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize

from wise import manifest
from wise.errors import BadArtifact
from wise.format import (
    CONFIG,
    KEYED,
    MAX_HEADER_BYTES,
    METADATA,
    PEFT_TYPE,
    SHARD_DTYPES,
    TENSORS,
)

#: by safetensors' names, in the order in which it writes them. numpy has no bfloat16: as nothing
#: is computed with a shard, its bits will do
DTYPES: dict[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
#: type and number of dimensions of all but the shards (`wise.storage`)
INDEX, VECTOR, ROWS = ("I32", 1), ("F32", 1), ("F32", 2)
FIXED = {
    "fact.id": ("I64", 1),
    "fact.shard": INDEX,
    "fact.span": INDEX,
    "router.center": VECTOR,
    "router.key_fact": INDEX,
    "router.keys": ROWS,
    "router.scale": VECTOR,
}

_Array: TypeAlias = npt.NDArray[Any]


def withdraw(folder: Path, out: Path, fact_ids: Collection[int]) -> None:
    """Write the sealed release in ``folder`` without some facts into the empty folder ``out``.

    Writes configuration and tensors, no manifest. Raises BadArtifact for a damaged release, and
    ValueError for a fact that isn't held and for the paper's memory; then nothing is written.
    Values are not looked at, but for the indices: `Release.load` of what is written does that.
    """
    manifest.verify(folder)
    config = _read_config(folder / CONFIG)
    tensors = _read_tensors(folder / TENSORS)
    try:
        _check(config, tensors)
    except ValueError as error:
        raise BadArtifact(f"{folder / TENSORS}: not of its configuration: {error}") from error
    held, gone = tensors["fact.id"].tolist(), set(fact_ids)
    if odd := sorted(gone - set(held)):
        raise ValueError(f"fact {odd[0]} is not in this release")
    keep = np.array([one not in gone for one in held], dtype=bool)
    needed = np.unique(tensors["fact.shard"][keep])
    kept = _narrowed(tensors, keep, needed)
    _write_config(out / CONFIG, config, needed.tolist())
    _write_tensors(out / TENSORS, kept)


def _narrowed(
    tensors: Mapping[str, _Array],
    keep: _Array,  # (facts,) bool
    needed: _Array,  # (shards that stay,) int32, rising
) -> dict[str, _Array]:
    """Return the tensors of the facts of ``keep`` alone, with the shards they need."""
    place = keep.cumsum() - 1  # of each fact that stays
    key_fact = tensors["router.key_fact"]
    stays = keep[key_fact]
    kept = {name: one for name, one in tensors.items() if not name.startswith("shard.")}
    kept["fact.id"] = tensors["fact.id"][keep]
    kept["fact.span"] = tensors["fact.span"][keep]
    kept["fact.shard"] = needed.searchsorted(tensors["fact.shard"][keep]).astype(DTYPES["I32"])
    kept["router.keys"] = tensors["router.keys"][stays]
    kept["router.key_fact"] = place[key_fact[stays]].astype(DTYPES["I32"])
    for new, old in enumerate(needed.tolist()):
        kept[f"shard.{new}.columns"] = tensors[f"shard.{old}.columns"]
        kept[f"shard.{new}.delta"] = tensors[f"shard.{old}.delta"]
    return kept


def _read_config(path: Path) -> dict[str, Any]:
    """Return the configuration of a keyed memory; raises BadArtifact, ValueError for the paper's.

    Its ``dtype`` is one of SHARD_DTYPES and its ``shard_facts`` a list.
    """
    config = manifest.read_json(path, manifest.FILES[CONFIG])
    if not isinstance(config, dict) or config.get("peft_type") != PEFT_TYPE:
        raise BadArtifact(f"{path}: not a routed memory of wised")
    router = config.get("router")
    known = manifest.is_format(config.get("format_version"))
    if not known or not isinstance(router, dict) or router.get("version") != KEYED["version"]:
        raise BadArtifact(
            f"{path}: an unknown format or router version",
            hint="a newer wised may have written it",
        )
    if router.get("kind") == "activation":
        raise ValueError("the paper's memory can't drop a fact: edit the others anew")
    keyed = all(router.get(name) == value for name, value in KEYED.items())
    typed = config.get("dtype") in list(SHARD_DTYPES)
    if not keyed or not typed or not isinstance(config.get("shard_facts"), list):
        raise BadArtifact(f"{path}: an unknown router or type of shards")
    return config


def _read_tensors(path: Path) -> dict[str, _Array]:
    """Return the tensors of a safetensors file; raises BadArtifact."""
    manifest.regular_size(path, manifest.FILES[TENSORS])
    try:
        data = path.read_bytes()
        if int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES:
            raise ValueError(f"a header above {MAX_HEADER_BYTES} bytes")
        found = deserialize(data)  # type: ignore[no-untyped-call]  # it has no types
        return {name: _array(name, one) for name, one in found}
    except (OSError, SafetensorError, ValueError) as error:
        raise BadArtifact(f"{path}: not tensors of a release: {error}") from error


def _array(name: str, one: Mapping[str, Any]) -> _Array:
    if one["dtype"] not in DTYPES:
        raise ValueError(f"{name}: a dtype that no release has")
    return np.frombuffer(one["data"], DTYPES[one["dtype"]]).reshape(one["shape"])


def _check(config: Mapping[str, Any], tensors: Mapping[str, _Array]) -> None:
    """Raise ValueError unless all tensors are there, of their types, and fit each other."""
    shards = len(config["shard_facts"])
    wanted = FIXED | {name: ROWS for name in tensors if name == "router.map"}
    for index in range(shards):
        wanted[f"shard.{index}.columns"] = INDEX
        wanted[f"shard.{index}.delta"] = (SHARD_DTYPES[config["dtype"]], 2)
    if odd := sorted(wanted.keys() ^ tensors.keys()):
        raise ValueError(f"{odd[0]} is unknown or missing")
    for name, kind in wanted.items():
        found = tensors[name]
        _require((NAMES[found.dtype], found.ndim) == kind, f"{name}: a wrong type or shape")
    facts, home, fact = len(tensors["fact.id"]), tensors["fact.shard"], tensors["router.key_fact"]
    _require(len(home) == len(tensors["fact.span"]) == facts, "fact.id: a wrong shape")
    _require(len(fact) == len(tensors["router.keys"]), "router.key_fact: a wrong shape")
    _require(_within(home, shards), "fact.shard: no such shard")
    _require(_within(fact, facts), "router.key_fact: no such fact")


def _within(index: _Array, size: int) -> bool:
    return bool(((index >= 0) & (index < size)).all())


def _write_config(path: Path, config: Mapping[str, Any], needed: list[int]) -> None:
    """Write the configuration of the shards ``needed`` (indices) alone."""
    counts = [config["shard_facts"][index] for index in needed]
    dtype = config["dtype"] if needed else next(iter(SHARD_DTYPES))
    left = {**config, "shard_facts": counts, "dtype": dtype}
    path.write_text(json.dumps(left, indent=2, sort_keys=True, allow_nan=False) + "\n", "utf-8")


def _write_tensors(path: Path, tensors: Mapping[str, _Array]) -> None:
    """Write the tensors as safetensors does: types in its order, names rising, all aligned."""
    order = list(DTYPES.values())
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": METADATA}
    end = 0
    for name in names:
        one = tensors[name]
        start, end = end, end + one.nbytes
        kind, shape = NAMES[one.dtype], list(one.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(tensors[name].tobytes())


def _require(good: bool, message: str) -> None:
    if not good:
        raise ValueError(message)
