"""Take facts out of what answers at once: a release without their keys, no training, no model.

The gate is passed over: nothing is added, and what stays is the promoted release's, bit for bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from daemon import plan, releases
from daemon.config import Config
from daemon.errors import IntegrityError, Overtaken, Refused
from daemon.faults import fault
from daemon.messages import Built, ShardMade
from daemon.publish import publish, workplace
from daemon.releases import Release
from daemon.state import State
from daemon.store import Store, facts, shards
from daemon.store.facts import Fact
from wise import manifest
from wise.errors import BadArtifact
from wise.format import CONFIG

#: how often it is begun anew when another release took over while it was made
TRIES = 3
MATRIX = "edited_matrix_sha256"
#: what `probes.json` says of a release that nothing was asked of
UNPROBED = {
    "format_version": 1,
    "measures": {"candidate": {}, "parent": {}, "bare": {}},
    "probes": [],
}


def release_without(
    state: State, store: Store, config: Config, gone: Sequence[Fact], now: datetime, reason: str
) -> int | None:
    """Publish and promote the promoted release without ``gone``, which are retracted already.

    Returns its number; None when the promoted release holds none of them. A release that takes
    over meanwhile stays: then it is made anew from that one. Raises Refused for the paper's
    memory, which can't drop a fact, Overtaken when others take over again and again. A crash on
    the way leaves retracted facts, which the next cycle takes out.
    """
    tries = 0
    while (number := _made(state, store, config, gone, now)) is not None:
        try:
            _promote(state, store, number, now, reason)
            return number
        except Overtaken:
            tries += 1
            if tries == TRIES:
                raise
    return None


def _made(
    state: State, store: Store, config: Config, gone: Sequence[Fact], now: datetime
) -> int | None:
    """Publish a release without ``gone``; return its number, None when they are in none."""
    parent = releases.promoted(store)
    held, ids = facts.of_release(store, parent.number), {fact.id for fact in gone}
    if not ids & {fact.id for fact in held}:
        return None
    # What was retracted besides goes with them: a release that holds it would be refused.
    ids |= {fact.id for fact in held if fact.state in releases.NOT_TO_BE_SAID}
    kept = [fact for fact in held if fact.id not in ids]
    fault("emergency.retracted")
    with store.write():
        number, _ = plan.begin(store, config, parent.number, now, kind="emergency")
        data = {"to": "building", "parent": parent.number, "withdrawn": sorted(ids)}
        store.event("release.plan", f"release:{number}", data, now)
    fault("emergency.planned")
    folder = workplace(state.releases, number)
    try:
        _write(releases.folder_of(state, parent), folder, [f.id for f in held if f.id in ids])
        fault("emergency.written")
        _publish(state, store, config, parent, number, kept, folder, now)
    except BaseException as error:
        with store.write():
            store.transition("release", number, "refuse", now, str(error) or releases.INTERRUPTED)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    fault("emergency.verified")
    return number


def _promote(state: State, store: Store, number: int, now: datetime, reason: str) -> None:
    """Let it answer unless what it grew from no longer does: then its files go."""
    release = releases.get(store, number)
    if release.state == "promoted":
        return  # the daemon came first
    try:
        releases.promote(state, store, number, now, reason, after=release.parent)
    except Overtaken as error:
        if releases.get(store, number).state == "promoted":
            return
        with store.write():
            store.transition("release", number, "refuse", now, str(error))
        fault("emergency.overtaken")
        releases.delete_files(state, releases.get(store, number))
        raise


def _write(parent: Path | None, folder: Path, gone: Sequence[int]) -> None:
    from wise.withdrawal import withdraw  # numpy is imported where it is needed only

    assert parent is not None, "a release that holds facts has a folder"
    try:
        withdraw(parent, folder, gone)
    except BadArtifact as error:
        raise IntegrityError(str(error), error.hint) from error
    except ValueError as error:
        raise Refused(str(error), hint="without --now, the next cycle takes them out") from error
    (folder / "probes.json").write_text(json.dumps(UNPROBED, indent=1, sort_keys=True) + "\n")


def _publish(
    state: State,
    store: Store,
    config: Config,
    parent: Release,
    number: int,
    kept: Sequence[Fact],
    folder: Path,
    now: datetime,
) -> None:
    """Complete the folder, then let one transaction make it a release that can be promoted."""
    head = manifest.read_json(folder / CONFIG, manifest.FILES[CONFIG])
    stay, shard_of = _left(store, parent.number, kept)
    base = {"base_name": head["base_model_name_or_path"], "base_sha256": head[MATRIX]}
    figures = {name: head["router"][name] for name in ("threshold", "false_fire_bound")}
    built = Built(**base, figures=figures, shards=stay, shard_of=shard_of)
    settings = config.wise.model_dump()
    done = publish(store, folder, number, parent.number, kept, built, settings, now)
    with store.write():
        releases.hold_facts(store, number, kept, built.shard_of)
        shards.record(store, number, parent.number, built.shards)
        where = {"folder": done.folder, "manifest_sha256": done.manifest_sha256}
        store.transition("release", number, "publish", now, **where)
        store.transition("release", number, "verify", now, "keys removed, nothing else changed")


def _left(
    store: Store, parent: int, kept: Sequence[Fact]
) -> tuple[tuple[ShardMade, ...], tuple[int, ...]]:
    """Return which of the parent's shards stay, and which of those holds each fact of ``kept``."""
    before, shard_of = shards.of_release(store, parent), shards.of_facts(store, parent)
    needed = sorted({shard_of[fact.id] for fact in kept if fact.id in shard_of})
    place = {position: index for index, position in enumerate(needed)}
    stay = tuple(ShardMade(solved=before[p].solved, inherited=p) for p in needed)
    return stay, tuple(place[shard_of[fact.id]] for fact in kept) if needed else ()
