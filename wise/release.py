"""A release: a side memory, where it belongs, and the facts it holds; on disk and off it.

On disk it is PEFT-shaped configuration and safetensors, nothing that can run (docs/releases.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wise import artifact, manifest, storage
from wise.attached import Attached
from wise.attaching import attach
from wise.errors import BadArtifact, UnknownFamily
from wise.format import ACTIVATION, CONFIG, KEYED, PEFT_TYPE, ROUTER_VERSION, SHARD_DTYPES
from wise.memory import SideMemory
from wise.paper import storage as paper_storage
from wise.paper.memory import PaperMemory
from wise.router import Calibration
from wise.shard import Shard
from wise.site import Site, locate, weight_hash

#: types that an edited matrix, and so a stored shard, may have
DTYPES = {name: getattr(torch, name) for name in SHARD_DTYPES}


@dataclass(frozen=True, slots=True)
class Release:
    """A side memory, where it belongs and how its router was calibrated."""

    site: Site
    memory: SideMemory | PaperMemory
    fact_ids: tuple[int, ...]  #: in the order of the memory's facts
    base_name: str  #: the base model as the operator named it
    base_sha256: str  #: of the edited matrix (`site.weight_hash`)
    calibration: Calibration | None  #: None: the paper's router is not calibrated
    #: for how many facts each shard was solved; of the paper's memory, each batch of shards
    shard_facts: tuple[int, ...]

    @property
    def threshold(self) -> float | None:
        """The cosine from which a position is routed; None where no cosine routes."""
        return self.memory.threshold if isinstance(self.memory, SideMemory) else None

    @property
    def holds_dropped(self) -> bool:
        """Whether a shard still holds weights of facts that are gone, though nothing routes there.

        The next merge must drop them (`merging.compact`).
        """
        if not isinstance(self.memory, SideMemory):
            return False  # what is edited anew for each loss holds none
        live = self.memory.shard_of.bincount(minlength=len(self.memory.shards)).tolist()
        return any(now < solved for now, solved in zip(live, self.shard_facts, strict=True))

    def without(self, fact_ids: Iterable[int]) -> Release:
        """Return the release without some facts, at once and without training.

        Their keys go, so that no prompt is routed to them any more; a shard that held nothing else
        goes, too. A shard that other facts share stays as it is, see `holds_dropped`. Raises
        ValueError for a fact that isn't held, and for the paper's memory, whose one threshold and
        merged weights belong to all facts together.
        """
        gone = set(fact_ids)
        if not isinstance(self.memory, SideMemory):
            raise ValueError("the paper's memory can't drop a fact: edit the others anew")
        if odd := sorted(gone - set(self.fact_ids)):
            raise ValueError(f"fact {odd[0]} is not in this release")
        keep = torch.tensor([one not in gone for one in self.fact_ids], dtype=torch.bool)
        needed = self.memory.shard_of[keep].unique().tolist()
        return replace(
            self,
            memory=_narrowed(self.memory, keep, needed),
            fact_ids=tuple(one for one in self.fact_ids if one not in gone),
            shard_facts=tuple(self.shard_facts[index] for index in needed),
        )

    def rewritten(
        self, positions: Collection[int], shards: Sequence[Shard], holds: Mapping[int, int]
    ) -> Release:
        """Return the release with the shards at ``positions`` replaced by ``shards``.

        holds: for each fact of the replaced shards, by its id, which of ``shards`` holds it now.
        Keys and threshold stay, so that every prompt is routed as before; the other shards stay as
        they are and come first. Raises ValueError where there is no such shard or a fact would be
        in none, and for the paper's memory, whose shards are batches of edits.
        """
        memory = self.memory
        if not isinstance(memory, SideMemory):
            raise ValueError("the paper's memory has no shards to rewrite")
        if odd := sorted(set(positions) - set(range(len(memory.shards)))):
            raise ValueError(f"there is no shard {odd[0]}")
        stay = [i for i in range(len(memory.shards)) if i not in set(positions)]
        place = {old: new for new, old in enumerate(stay)}
        shard_of, counts = [], [0] * len(shards)
        for fact, held in zip(self.fact_ids, memory.shard_of.tolist(), strict=True):
            if held in place:
                shard_of.append(place[held])
            elif fact in holds and 0 <= holds[fact] < len(shards):
                shard_of.append(len(stay) + holds[fact])
                counts[holds[fact]] += 1
            else:
                raise ValueError(f"fact {fact} would be in no shard")
        return replace(
            self,
            memory=replace(
                memory,
                shards=(*(memory.shards[i] for i in stay), *shards),
                shard_of=torch.tensor(shard_of, dtype=torch.long),
            ),
            shard_facts=(*(self.shard_facts[i] for i in stay), *counts),
        )

    def save(self, folder: Path) -> None:
        """Write configuration and tensors into an existing folder, without a manifest.

        Raises ValueError rather than write what `read` would refuse.
        """
        config, tensors = self._config(), self._tensors()
        _from(config, {name: tensor.detach().cpu() for name, tensor in tensors.items()})
        artifact.write_config(folder, config)
        artifact.write_tensors(folder, tensors)

    def _config(self) -> dict[str, Any]:
        return {
            "peft_type": PEFT_TYPE,
            "format_version": manifest.FORMAT_VERSION,
            "base_model_name_or_path": self.base_name,
            "edited_matrix_sha256": self.base_sha256,
            "site": asdict(self.site),
            "dtype": _dtype_name(self.memory),
            "shard_facts": list(self.shard_facts),
            "router": self._router(),
        }

    def _router(self) -> dict[str, Any]:
        if isinstance(self.memory, PaperMemory):
            return {**ACTIVATION, **asdict(paper_storage.settings(self.memory))}
        if self.calibration is None or self.calibration.threshold != self.memory.threshold:
            raise ValueError("the memory's threshold is not the calibrated one")
        return {**KEYED, **asdict(self.calibration)}

    def _tensors(self) -> dict[str, Tensor]:
        ids = {"fact.id": torch.tensor(self.fact_ids, dtype=torch.long)}
        if isinstance(self.memory, PaperMemory):
            return ids | paper_storage.to_tensors(self.memory)
        return ids | storage.to_tensors(self.memory)

    @classmethod
    def load(cls, folder: Path) -> Release:
        """Read a release after verifying its manifest, form and every tensor.

        A link to it is followed once, at the beginning. Raises BadArtifact; nothing is returned
        half.
        """
        folder = manifest.followed(folder)
        manifest.verify(folder)
        return cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> Release:
        """Read a folder that is not sealed by a manifest yet; `load` is for all others."""
        config = artifact.read_config(folder)
        _require_known(config, folder / CONFIG)
        tensors = artifact.read_tensors(folder)
        try:
            return _from(config, tensors)
        except ValueError as error:
            raise BadArtifact(f"{folder}: not a release of this format: {error}") from error


def _narrowed(memory: SideMemory, keep: Tensor, needed: list[int]) -> SideMemory:
    """Return the memory of the facts of ``keep`` (facts,) bool alone, with the shards they need."""
    place = keep.cumsum(0) - 1  # of each fact that stays
    keys = memory.keys.without((~keep).nonzero()[:, 0])
    shard = torch.zeros(len(memory.shards), dtype=torch.long)
    shard[needed] = torch.arange(len(needed))
    return replace(
        memory,
        shards=tuple(memory.shards[index] for index in needed),
        keys=replace(keys, fact=place[keys.fact]),
        span=memory.span[keep],
        shard_of=shard[memory.shard_of[keep]],
    )


def _dtype_name(memory: SideMemory | PaperMemory) -> str:
    """Return the one type that all shards are stored in."""
    if isinstance(memory, PaperMemory):
        found = {shard.values.dtype for shard in memory.shards}
    else:
        found = {shard.delta.dtype for shard in memory.shards}
    names = [name for name, dtype in DTYPES.items() if found <= {dtype}]
    if not names:
        raise ValueError(f"shards are stored in one type of {', '.join(DTYPES)}")
    return names[0]


def _require_known(config: Mapping[str, Any], path: Path) -> None:
    """Raise BadArtifact unless the configuration is of a kind and version known here."""
    if config.get("peft_type") != PEFT_TYPE:
        raise BadArtifact(f"{path}: not a routed memory of wised")
    router = config.get("router")
    version = router.get("version") if isinstance(router, dict) else None
    known = type(version) is int and version == ROUTER_VERSION
    if not manifest.is_format(config.get("format_version")) or not known:
        raise BadArtifact(
            f"{path}: an unknown format or router version",
            hint="a newer wised may have written it",
        )


@dataclass(frozen=True, slots=True)
class _Head:
    """The configuration's own fields; ``site`` and ``router`` are read by themselves."""

    peft_type: str
    format_version: int
    base_model_name_or_path: str
    edited_matrix_sha256: str
    site: dict  # type: ignore[type-arg]  # as JSON has it
    dtype: str
    shard_facts: list  # type: ignore[type-arg]
    router: dict  # type: ignore[type-arg]


def _from(config: Mapping[str, Any], tensors: dict[str, Tensor]) -> Release:
    """Return the release of a configuration and its tensors, ValueError unless all fits."""
    head = artifact.record(_Head, config)
    site, counts = artifact.record(Site, head.site), head.shard_facts
    sizes = (site.d_in, site.d_out)
    _require(site.layer >= 0 and all(0 < s <= artifact.MAX_DIMENSION for s in sizes), "no site")
    _require(head.dtype in DTYPES, f"shards of type {head.dtype!r}")
    _require(all(type(n) is int and n >= 0 for n in counts), "shard_facts: not counts")
    ids = tuple(artifact.take(tensors, "fact.id", torch.int64, (None,)).tolist())
    _require(len(set(ids)) == len(ids) and min(ids, default=0) >= 0, "fact.id: not a set of ids")
    kind = head.router.get("kind")
    read = {"keyed": _keyed, "activation": _activation}.get(kind if isinstance(kind, str) else "")
    if read is None:
        raise ValueError(f"a router of kind {kind!r}")
    memory, calibration = read(head, site, tensors, len(ids))
    _require(not tensors, f"unknown tensor {min(tensors, default='')!r}")
    base = (head.base_model_name_or_path, head.edited_matrix_sha256)
    return Release(site, memory, ids, *base, calibration, tuple(counts))


def _keyed(
    head: _Head, site: Site, tensors: dict[str, Tensor], facts: int
) -> tuple[SideMemory | PaperMemory, Calibration | None]:
    calibration = artifact.record(Calibration, _beyond(head.router, KEYED))
    memory = storage.from_tensors(
        tensors,
        site,
        facts=facts,
        shards=len(head.shard_facts),
        dtype=DTYPES[head.dtype],
        threshold=calibration.threshold,
    )
    live = memory.shard_of.bincount(minlength=len(memory.shards)).tolist()
    for now, solved in zip(live, head.shard_facts, strict=True):
        _require(now <= solved, "shard_facts: a shard has more facts than it was solved for")
    return memory, calibration


def _activation(
    head: _Head, site: Site, tensors: dict[str, Tensor], facts: int
) -> tuple[SideMemory | PaperMemory, Calibration | None]:
    given = artifact.record(paper_storage.Settings, _beyond(head.router, ACTIVATION))
    memory = paper_storage.from_tensors(tensors, site, given, DTYPES[head.dtype])
    counts = head.shard_facts
    whole = len(counts) == len(memory.batches) and sum(counts) == facts
    _require(whole, "shard_facts: not how the facts are spread over batches")
    return memory, None


def _beyond(router: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the router's figures; ValueError unless all else is as it must be."""
    _require(all(router.get(name) == value for name, value in fixed.items()), "an unknown router")
    return {name: value for name, value in router.items() if name not in fixed}


def _require(good: bool, message: str) -> None:
    if not good:
        raise ValueError(message)


def load(model: nn.Module, path: str | Path) -> Attached:
    """Attach the release at ``path`` to its base model; ``detach()`` on the result undoes it.

    Raises BadArtifact when the release is damaged or was made for another base model, and
    UnsupportedModel when the model's matrix is quantised.
    """
    release = Release.load(Path(path))
    try:
        site = locate(model, module=release.site.module)
    except UnknownFamily as error:
        raise _of_another(path, release) from error
    if site != release.site or weight_hash(model, site) != release.base_sha256:
        raise _of_another(path, release)
    return attach(model, site, release.memory)


def _of_another(path: str | Path, release: Release) -> BadArtifact:
    return BadArtifact(
        f"{path}: made for another base model ({release.base_name})",
        hint="load the model that manifest.json names",
    )
