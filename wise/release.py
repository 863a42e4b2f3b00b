"""A side memory on disk: PEFT-shaped configuration, safetensors, nothing that can run.

Tensors of ``adapter_model.safetensors``: ``shard.I.columns`` (c,) int32 and ``shard.I.delta``
(d_out, c) float32; ``router.center`` and ``router.scale`` (d_in,), ``router.keys`` (k, d_in)
float32 and ``router.key_fact`` (k,) int32; ``fact.id`` (n,) int64, ``fact.span`` and
``fact.shard`` (n,) int32.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wise import manifest
from wise.errors import BadArtifact
from wise.memory import Attached, SideMemory, attach
from wise.router import Calibration, Keys, Space
from wise.shard import Shard
from wise.site import Site, locate, weight_hash

PEFT_TYPE = "WISED_ROUTED_MEMORY"
ROUTER_VERSION = 1
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Release:
    """A side memory, where it belongs and how its router was calibrated."""

    site: Site
    memory: SideMemory
    fact_ids: tuple[int, ...]  #: in the order of the memory's fact indices
    base_name: str  #: the base model as the operator named it
    base_sha256: str  #: of the edited matrix (`site.weight_hash`)
    calibration: Calibration

    def save(self, folder: Path) -> None:
        """Write configuration and tensors into an existing folder, without a manifest."""
        text = json.dumps(self._config(), indent=2, sort_keys=True) + "\n"
        (folder / CONFIG).write_text(text, "utf-8")
        save_file(self._tensors(), folder / TENSORS, metadata={"format": "pt"})

    def _config(self) -> dict[str, Any]:
        return {
            "peft_type": PEFT_TYPE,
            "format_version": manifest.FORMAT_VERSION,
            "base_model_name_or_path": self.base_name,
            "edited_matrix_sha256": self.base_sha256,
            "site": asdict(self.site),
            "dtype": "float32",
            "shards": len(self.memory.shards),
            "router": {
                "version": ROUTER_VERSION,
                "kind": "keyed",
                "key": "last prompt token",
                "unit": "position",
                **asdict(self.calibration),
            },
        }

    def _tensors(self) -> dict[str, Tensor]:
        memory = self.memory
        tensors = {
            "router.center": memory.space.center,
            "router.scale": memory.space.scale,
            "router.keys": memory.keys.vectors,
            "router.key_fact": memory.keys.fact.int(),
            "fact.id": torch.tensor(self.fact_ids, dtype=torch.long),
            "fact.span": memory.span.int(),
            "fact.shard": memory.shard_of.int(),
        }
        for index, shard in enumerate(memory.shards):
            tensors[f"shard.{index}.columns"] = shard.columns.int()
            tensors[f"shard.{index}.delta"] = shard.delta
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    @classmethod
    def load(cls, folder: Path) -> Release:
        """Read a release after verifying its manifest, form and every tensor.

        Raises BadArtifact; nothing is returned half.
        """
        manifest.verify(folder)
        return cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> Release:
        """Read a folder that is not sealed by a manifest yet; `load` is for all others."""
        config = _read_config(folder / CONFIG)
        try:
            tensors = load_file(folder / TENSORS)
            return cls._from(config, tensors)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise BadArtifact(f"{folder}: not a release of this format: {error!r}") from error

    @classmethod
    def _from(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> Release:
        site = Site(**config["site"])
        router = dict(config["router"])
        for name in ("version", "kind", "key", "unit"):
            del router[name]
        shards = tuple(
            Shard(tensors.pop(f"shard.{i}.columns").long(), tensors.pop(f"shard.{i}.delta"))
            for i in range(int(config["shards"]))
        )
        keys = Keys(tensors.pop("router.keys"), tensors.pop("router.key_fact").long())
        space = Space(tensors.pop("router.center"), tensors.pop("router.scale"))
        memory = SideMemory(
            shards,
            space,
            keys,
            tensors.pop("fact.span").long(),
            tensors.pop("fact.shard").long(),
            float(router["threshold"]),
        )
        ids = tuple(tensors.pop("fact.id").tolist())
        if tensors:
            raise ValueError(f"unknown tensor {sorted(tensors)[0]!r}")
        check_memory(memory, site, len(ids))
        return cls(
            site,
            memory,
            ids,
            str(config["base_model_name_or_path"]),
            str(config["edited_matrix_sha256"]),
            Calibration(**router),
        )


def check_memory(memory: SideMemory, site: Site, facts: int) -> None:
    """Raise ValueError unless all shapes, indices and values of ``memory`` fit together."""
    wide = (site.d_in,)
    _require(memory.space.center.shape == wide, "router.center has a wrong shape")
    _require(memory.space.scale.shape == wide, "router.scale has a wrong shape")
    shape = (len(memory.keys.fact), site.d_in)
    _require(memory.keys.vectors.shape == shape, "router.keys has a wrong shape")
    _require(memory.span.shape == (facts,), "fact.span: one entry a fact is needed")
    _require(memory.shard_of.shape == (facts,), "fact.shard: one entry a fact is needed")
    _require(_within(memory.keys.fact, facts), "router.key_fact: no such fact")
    _require(_within(memory.shard_of, len(memory.shards)), "fact.shard: no such shard")
    _require(bool((memory.span > 0).all()), "fact.span: an answer has at least one token")
    for shard in memory.shards:
        _require(shard.delta.shape == (site.d_out, len(shard.columns)), "a shard: wrong shape")
        _require(_within(shard.columns, site.d_in), "a shard: no such column")
        _require(bool((shard.columns.diff() > 0).all()), "a shard: columns must rise")
    floats = [memory.space.center, memory.space.scale, memory.keys.vectors]
    for tensor in [*floats, *(s.delta for s in memory.shards)]:
        _require(tensor.dtype == torch.float32, "a tensor is not float32")
        _require(bool(torch.isfinite(tensor).all()), "a tensor holds a non-finite value")
    _require(-1.0 <= memory.threshold <= 1.0, "the threshold is not a cosine")


def _within(index: Tensor, size: int) -> bool:
    return bool(((index >= 0) & (index < size)).all())


def _require(good: bool, message: str) -> None:
    if not good:
        raise ValueError(message)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadArtifact(f"{path}: not readable: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != PEFT_TYPE:
        raise BadArtifact(f"{path}: not a routed memory of wised")
    router = config.get("router")
    known = isinstance(router, dict) and router.get("version") == ROUTER_VERSION
    if config.get("format_version") != manifest.FORMAT_VERSION or not known:
        raise BadArtifact(f"{path}: an unknown format or router version")
    return config


def load(model: nn.Module, path: str | Path) -> Attached:
    """Attach the release at ``path`` to its base model; ``detach()`` on the result undoes it.

    Raises BadArtifact when the release is damaged or was made for another base model.
    """
    release = Release.load(Path(path))
    site = locate(model, module=release.site.module)
    if site != release.site or weight_hash(model, site) != release.base_sha256:
        raise BadArtifact(
            f"{path}: made for another base model ({release.base_name})",
            hint="load the model that manifest.json names",
        )
    return attach(model, site, release.memory)
