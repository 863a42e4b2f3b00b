"""Put a candidate's folder in its place on disk: model card, facts, manifest, one rename."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon import __version__
from daemon.faults import fault
from daemon.measured import Measured
from daemon.store import Store, facts, timestamp
from daemon.store.facts import Fact
from wise import manifest

if TYPE_CHECKING:
    from daemon.messages import Built

TEMPORARY = ".tmp-"
ASIDE = ".aside-"  #: folders that no row speaks of; kept for a person to look at


@dataclass(frozen=True, slots=True)
class Published:
    """A release folder that is complete and durable."""

    folder: str  #: its name below ``releases/``
    manifest_sha256: str


def workplace(releases: Path, number: int) -> Path:
    """Return a new empty folder for release ``number`` to be written in."""
    folder = releases / f"{TEMPORARY}{number:06d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def publish(
    store: Store,
    folder: Path,
    number: int,
    parent: int,
    held: Sequence[Fact],
    built: Built,
    hyperparameters: Mapping[str, Any],
    now: datetime,
) -> Published:
    """Complete ``folder``, seal it and rename it to its lasting name.

    After this the release exists on disk but nowhere else; the caller's transaction makes it
    count, and a crash in between leaves a folder that the next start sets aside.
    """
    lines = (json.dumps(_line(store, f), sort_keys=True, ensure_ascii=False) for f in held)
    (folder / "facts.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    (folder / "README.md").write_text(_card(number, parent, held, built), "utf-8")
    fault("publish.written")
    fields = {
        "release": number,
        "parent": parent,
        "base_model": built.base_name,
        "edited_matrix_sha256": built.base_sha256,
        "facts": len(held),
        "hyperparameters": dict(hyperparameters),
        "code_version": __version__,
        "created_at": timestamp(now),
    }
    digest = manifest.seal(folder, fields)
    for path in folder.iterdir():
        path.chmod(0o400)
    fault("publish.sealed")
    name = f"{number:06d}-{digest[:8]}"
    os.rename(folder, folder.parent / name)
    fault("publish.renamed")
    sync_folder(folder.parent)
    fault("publish.synced")
    return Published(name, digest)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def names(link: Path, folder: Path | None) -> bool:
    """Tell whether ``point`` has nothing to do: one readlink."""
    if not link.is_symlink():
        return folder is None and not link.exists()
    return folder is not None and os.readlink(link) == os.path.relpath(folder, link.parent)


def point(link: Path, folder: Path | None) -> None:
    """Let the symbolic link name ``folder`` (None: remove it), in one step.

    Not for two at once: they would share the link that it makes first.
    """
    if folder is None:
        link.unlink(missing_ok=True)
    else:
        fresh = link.with_name(f".{link.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(folder, link.parent))
        fault("link.made")
        os.replace(fresh, link)
    fault("link.replaced")
    sync_folder(link.parent)


def _line(store: Store, fact: Fact) -> dict[str, Any]:
    return {
        "id": fact.id,
        "subject": fact.subject,
        "relation": fact.relation,
        "object": fact.object,
        "prompts": fact.prompts,
        "held_out": fact.held_out,
        "asserted_at": timestamp(fact.asserted_at),
        "evidence": [
            {"source": e.source, "title": e.title, "link": e.link, "received_at": e.received_at}
            for e in facts.evidence(store, fact.id)
        ],
    }


def _card(number: int, parent: int, held: Sequence[Fact], built: Built) -> str:
    """Return the model card. Fact texts stay out of it: they are data, not prose."""
    rows = "\n".join(
        f"| {name} | {_rate(m)} | {_rate(built.parent_measures.get(name))} "
        f"| {_rate(built.bare_measures.get(name))} |"
        for name, m in built.measures.items()
    )
    return f"""---
library_name: wised
base_model: {json.dumps(built.base_name)}
tags: [knowledge-editing, wise]
---

# Release {number}

A side memory of {len(held)} facts for `{built.base_name}`, grown from release {parent}.
It works beside the unchanged base model, whose edited matrix has the sha256
`{built.base_sha256}`:

```python
import wise
memory = wise.load(model, "path/to/this/folder")
```

Shares by free greedy generation, exact match of the whole answer (`probes.json` has each prompt
and answer). Reliability and retention ask the edit prompt; the others prompts that no training saw:

| probe | this release | parent | bare model |
|---|---|---|---|
{rows}

{_routing(built.figures)}

Go back with `wised rollback --to {parent}`.
"""


def _routing(figures: Mapping[str, float]) -> str:
    """Return when a prompt is routed: by the keyed router, or by the paper's."""
    if "epsilon" in figures:
        return (
            "The side memory answers prompts whose mean activation exceeds"
            f" {figures['epsilon']:.4f} (WISE, Eq. 6)."
        )
    return (
        f"The router fires from a cosine of {figures['threshold']:.4f} on; on prompts unlike any"
        f" stored\nfact its rate of false fires is below {figures['false_fire_bound']:.5f} (95 %)."
    )


def _rate(measured: Measured | None) -> str:
    if measured is None or not measured.asked:
        return "-"
    return f"{measured.right / measured.asked:.4f} ({measured.right} of {measured.asked})"
