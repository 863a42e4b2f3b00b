"""Facts are taken out of a release on disk without torch, to the bytes that torch would write."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import handmade
import pytest
import torch
from handmade import GOLDEN
from safetensors.torch import load_file, save_file

import wise
from wise import artifact, manifest, withdrawal
from wise import release as releases
from wise.format import CONFIG, SHARD_DTYPES, TENSORS
from wise.withdrawal import withdraw

ROOT = Path(__file__).resolve().parents[2]
DTYPES = tuple(releases.DTYPES.values())
#: ids out of order; of the four shards the second has no live fact, and fact 7 has no key
IDS, HOMES, KEY_FACT = (40, 11, 12, 7), (2, 0, 3, 0), (2, 0, 0, 1, 2, 0)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def made(
    dtype: torch.dtype,
    *,
    shards: int,
    ids: Collection[int],
    homes: Collection[int],
    key_fact: Collection[int],
    mapped: bool = True,
) -> wise.Release:
    """A release of random numbers, `handmade`'s in its site, space and calibration."""
    base = handmade.keyed()
    draw = torch.Generator().manual_seed(5)
    parts = tuple(
        wise.Shard(torch.tensor([0, 2, 5]), torch.randn(4, 3, generator=draw).to(dtype))
        for _ in range(shards)
    )
    assert isinstance(base.memory, wise.SideMemory)
    space = base.memory.space if mapped else replace(base.memory.space, map=None)
    vectors = torch.randn(len(key_fact), 3 if mapped else 6, generator=draw)
    keys = wise.Keys(
        torch.nn.functional.normalize(vectors), torch.tensor(list(key_fact), dtype=torch.long)
    )
    span = torch.arange(1, len(ids) + 1)
    home = torch.tensor(list(homes), dtype=torch.long)
    memory = wise.SideMemory(parts, space, keys, span, home, base.memory.threshold)
    return replace(
        base, memory=memory, fact_ids=tuple(ids), shard_facts=tuple(range(3, 3 + shards))
    )


def scattered(dtype: torch.dtype, *, mapped: bool = True) -> wise.Release:
    return made(dtype, shards=4, ids=IDS, homes=HOMES, key_fact=KEY_FACT, mapped=mapped)


def check(folder: Path, tmp_path: Path, gone: Collection[int]) -> None:
    """Assert that both ways write the same two files, which are read again."""
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    for out in (slow, fast):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
    wise.Release.load(folder).without(gone).save(slow)
    withdraw(folder, fast, gone)
    assert sorted(path.name for path in fast.iterdir()) == [CONFIG, TENSORS]
    for name in (CONFIG, TENSORS):
        assert (fast / name).read_bytes() == (slow / name).read_bytes(), (gone, name)
    held = wise.Release.load(folder).fact_ids
    assert wise.Release.read(fast).fact_ids == tuple(one for one in held if one not in gone)


@pytest.mark.parametrize("mapped", [True, False], ids=["learned map", "no map"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_whatever_is_taken_the_bytes_are_those_of_release_without(
    dtype: torch.dtype, mapped: bool, tmp_path: Path
) -> None:
    """Every choice of facts, none and all of them included."""
    handmade.write(scattered(dtype, mapped=mapped), tmp_path / "release")
    for count in range(len(IDS) + 1):
        for gone in itertools.combinations(IDS, count):
            check(tmp_path / "release", tmp_path, gone)


@pytest.mark.parametrize("gone", [(), (11,), (12,), (40,), (11, 12), (11, 12, 40)], ids=str)
def test_the_golden_release_is_narrowed_as_release_without_does(
    gone: tuple[int, ...], tmp_path: Path
) -> None:
    check(GOLDEN / "keyed", tmp_path, gone)


def test_more_than_ten_shards_are_numbered_and_ordered_alike(tmp_path: Path) -> None:
    """By name shard 10 comes before shard 2, and by number after it."""
    homes = range(13)
    release = made(torch.bfloat16, shards=13, ids=range(1, 14), homes=homes, key_fact=homes)
    handmade.write(release, tmp_path / "release")
    for gone in ([], [1], [3, 12], range(2, 14)):
        check(tmp_path / "release", tmp_path, gone)


def test_a_release_of_nothing_gives_a_release_of_nothing(tmp_path: Path) -> None:
    release = made(torch.float16, shards=0, ids=(), homes=(), key_fact=())
    handmade.write(release, tmp_path / "release")
    check(tmp_path / "release", tmp_path, ())


def test_what_is_narrowed_can_be_narrowed_again(tmp_path: Path) -> None:
    handmade.write(scattered(torch.bfloat16), tmp_path / "release")
    once = tmp_path / "once"
    once.mkdir()
    withdraw(tmp_path / "release", once, {12})
    manifest.seal(once, {"release": 8, "parent": 7})
    check(once, tmp_path, (7, 11))


def refused(folder: Path, tmp_path: Path, gone: Collection[int], error: Any, match: str) -> None:
    """Assert that the error is raised and nothing written."""
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(error, match=match):
        withdraw(folder, out, gone)
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("name", "gone"), [("keyed", (11, 99)), ("keyed", (2**70,)), ("paper", (11,)), ("paper", ())]
)
def test_what_release_without_refuses_is_refused_in_its_words(
    name: str, gone: tuple[int, ...], tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as expected:
        wise.Release.load(GOLDEN / name).without(gone)
    refused(GOLDEN / name, tmp_path, gone, ValueError, f"^{expected.value}$")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden release that may be damaged."""
    return shutil.copytree(GOLDEN / "keyed", tmp_path / "keyed")


@pytest.mark.parametrize("name", [CONFIG, TENSORS, "facts.jsonl", "manifest.json"])
def test_a_damaged_folder_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(folder, tmp_path, (11,), wise.BadArtifact, str(path))
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    refused(folder, tmp_path, (11,), wise.BadArtifact, str(folder))
    path.unlink()
    refused(folder, tmp_path, (11,), wise.BadArtifact, str(path))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", tmp_path, (11,), wise.BadArtifact, "no such release folder")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(peft_type="LORA"), "not a routed memory"),
        (lambda c: c.update(format_version=2), "an unknown format"),
        (lambda c: c.update(router=[]), "an unknown format or router version"),
        (lambda c: c["router"].update(version=2), "an unknown format or router version"),
        (lambda c: c["router"].update(kind="other"), "an unknown router"),
        (lambda c: c["router"].update(kind=[]), "an unknown router"),
        (lambda c: c["router"].pop("unit"), "an unknown router"),
        (lambda c: c.update(dtype=["bfloat16"]), "type of shards"),
        (lambda c: c.update(dtype="float32"), "shard.0.delta: a wrong type"),
        (lambda c: c.pop("shard_facts"), "type of shards"),
        (lambda c: c.update(shard_facts=[2]), "shard.1.columns is unknown"),
        (lambda c: c.update(shard_facts=[2, 2, 2]), "shard.2.columns is .* missing"),
    ],
)
def test_a_forged_configuration_is_refused_by_name(
    change: Callable[[Any], Any], message: str, folder: Path, tmp_path: Path
) -> None:
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    change(config)
    (folder / CONFIG).write_text(json.dumps(config), "utf-8")
    manifest.seal(folder, {})
    refused(folder, tmp_path, (11,), wise.BadArtifact, f"{folder}.*{message}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *[(lambda t, n=name: t.pop(n), f"{name} is .* missing") for name in withdrawal.FIXED],
        (lambda t: t.pop("shard.1.delta"), "shard.1.delta is .* missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra is unknown"),
        (lambda t: t.update({"fact.id": torch.zeros(3)}), "fact.id: a wrong type"),
        (lambda t: t.update({"fact.id": torch.zeros(3, dtype=torch.uint8)}), "fact.id: a dtype"),
        (lambda t: t.update({"fact.id": torch.arange(2)}), "fact.id: a wrong shape"),
        (lambda t: t.update({"fact.id": torch.zeros(3, 1).long()}), "fact.id: a wrong type"),
        (lambda t: t.update({"router.keys": torch.zeros(3, 3)}), "router.key_fact: a wrong shape"),
        (lambda t: t["fact.shard"].add_(1), "no such shard"),
        (lambda t: t["router.key_fact"].sub_(1), "no such fact"),
    ],
)
def test_forged_tensors_are_refused_by_name(
    change: Callable[[Any], Any], message: str, folder: Path, tmp_path: Path
) -> None:
    tensors = load_file(folder / TENSORS)
    change(tensors)
    save_file(tensors, folder / TENSORS)
    manifest.seal(folder, {})
    refused(folder, tmp_path, (11,), wise.BadArtifact, f"{folder / TENSORS}.*{message}")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02",
        b"\x02" + bytes(7),
        b"\x02" + bytes(7) + b"[]",
        (1 << 20 | 1).to_bytes(8, "little"),
        b"\xff" * 8,
        b"\x40" + bytes(7) + b"{" * 64,
        (1 << 20).to_bytes(8, "little") + b"[" * (1 << 20),
    ],
    ids=["empty", "cut", "no header", "list", "long", "longest", "not JSON", "deep"],
)
def test_a_forged_header_is_refused_by_name(data: bytes, folder: Path, tmp_path: Path) -> None:
    (folder / TENSORS).write_bytes(data)
    manifest.seal(folder, {})
    refused(folder, tmp_path, (11,), wise.BadArtifact, f"{folder / TENSORS}: not tensors")


def test_types_of_shards_have_one_name_in_each_library() -> None:
    named = {name: artifact.DTYPES[short] for name, short in SHARD_DTYPES.items()}
    assert named == releases.DTYPES


def test_no_torch_is_imported(tmp_path: Path) -> None:
    folder, out = str(GOLDEN / "keyed"), str(tmp_path)
    code = (
        "import sys; from pathlib import Path; import wise.withdrawal\n"
        f"wise.withdrawal.withdraw(Path({folder!r}), Path({out!r}), [11])\n"
        "heavy = {'torch', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert wise.Release.read(tmp_path).fact_ids == (12, 40)
