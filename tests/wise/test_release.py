"""A side memory on disk: what was saved is what is loaded, and nothing else is."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edits import FACTS, edited, say
from safetensors.torch import load_file, save_file
from tiny import new_llama

import wise
from wise import manifest

CALIBRATION = wise.Calibration(0.98, 100, 0.5, 0.99, 0.0, 0.03)


@pytest.fixture
def folder(llama: Any, tokenizer: Any, tmp_path: Path) -> Path:
    """A sealed release of FACTS for the tests' Llama."""
    site, memory, _ = edited(llama, tokenizer)
    place = tmp_path / "000001-test"
    place.mkdir()
    ids = tuple(fact.id for fact in FACTS)
    sha = wise.weight_hash(llama, site)
    wise.Release(site, memory, ids, "tiny", sha, CALIBRATION, (len(ids),)).save(place)
    manifest.seal(place, {"release": 1, "parent": 0})
    return place


def test_a_loaded_release_answers_like_the_one_that_was_saved(
    llama: Any, tokenizer: Any, folder: Path
) -> None:
    link = folder.parent / "current"
    link.symlink_to(folder.name)
    bare = say(llama, tokenizer, FACTS[0].prompts[0])
    memory = wise.load(llama, link)
    assert say(llama, tokenizer, FACTS[0].prompts[0]) == FACTS[0].answer
    memory.detach()
    assert say(llama, tokenizer, FACTS[0].prompts[0]) == bare


def narrowed(folder: Path) -> Path:
    """A sealed release beside ``folder``, without the first of its facts."""
    place = folder.parent / "000002-test"
    place.mkdir()
    wise.Release.load(folder).without([FACTS[0].id]).save(place)
    manifest.seal(place, {"release": 2, "parent": 1})
    return place


@pytest.mark.parametrize("looks", range(1, 6))
def test_a_link_that_is_moved_while_it_is_loaded_gives_the_release_that_it_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """A promotion replaces ``current`` whenever it likes: before any look at a file."""
    second, link, seen = narrowed(folder), folder.parent / "current", []
    link.symlink_to(folder.name)
    look = manifest.regular_size

    def moved(path: Path, most: int) -> int:
        seen.append(path)
        if len(seen) == looks:
            link.unlink()
            link.symlink_to(second.name)
        return look(path, most)

    monkeypatch.setattr(manifest, "regular_size", moved)
    assert wise.Release.load(link).fact_ids == tuple(fact.id for fact in FACTS)
    assert link.readlink().name == second.name


def test_a_link_to_nothing_is_named_as_it_was_given(tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to("pruned")
    with pytest.raises(wise.BadArtifact, match=r"current: no such release folder"):
        wise.Release.load(link)


def test_saving_and_loading_keeps_every_value(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    wise.Release.load(folder).save(again)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_another_base_model_is_refused(folder: Path) -> None:
    other = new_llama(seed=1)
    modules = dict(other.named_modules())
    with pytest.raises(wise.BadArtifact, match="another base model"):
        wise.load(other, folder)
    assert dict(other.named_modules()) == modules


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_flipped_bit_is_found(folder: Path, name: str) -> None:
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(wise.BadArtifact, match="checksum"):
        wise.Release.load(folder)


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(wise.BadArtifact, match="missing"):
        wise.Release.load(folder)


def test_a_truncated_file_is_found(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(wise.BadArtifact, match="size"):
        wise.Release.load(folder)


def test_a_stray_file_is_refused(folder: Path) -> None:
    (folder / "extra.py").write_text("print('hello')")
    with pytest.raises(wise.BadArtifact, match=r"extra\.py"):
        wise.Release.load(folder)


def test_a_linked_file_is_refused(folder: Path, tmp_path: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    link = tmp_path / "current"
    link.symlink_to(folder.name)
    for place in (folder, link):
        with pytest.raises(wise.BadArtifact, match="regular"):
            wise.Release.load(place)


def test_a_manifest_that_names_a_path_is_refused(folder: Path) -> None:
    body = json.loads((folder / "manifest.json").read_text())
    body["files"]["../secret"] = {"sha256": "0" * 64, "bytes": 1}
    (folder / "manifest.json").write_text(json.dumps(body))
    with pytest.raises(wise.BadArtifact, match="does not have"):
        wise.Release.load(folder)


def test_a_newer_format_is_refused(folder: Path) -> None:
    body = json.loads((folder / "manifest.json").read_text())
    body["format_version"] = 2
    (folder / "manifest.json").write_text(json.dumps(body))
    with pytest.raises(wise.BadArtifact, match="format 1"):
        wise.Release.load(folder)


def reseal(folder: Path, change: Any) -> None:
    """Change the tensors and seal the folder again, as someone who forges a release would."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    manifest.seal(folder, {"release": 1, "parent": 0})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("router.keys", lambda t: t.fill_(float("nan")), "non-finite"),
        ("shard.0.delta", lambda t: t.fill_(float("inf")), "non-finite"),
        ("shard.0.columns", lambda t: t.add_(1000), "no such column"),
        ("fact.shard", lambda t: t.add_(5), "no such shard"),
        ("router.key_fact", lambda t: t.sub_(1), "no such fact"),
        ("fact.span", lambda t: t.zero_(), "at least one token"),
    ],
)
def test_forged_tensors_are_refused(folder: Path, name: str, change: Any, message: str) -> None:
    reseal(folder, lambda tensors: change(tensors[name]))
    with pytest.raises(wise.BadArtifact, match=message):
        wise.Release.load(folder)


def test_a_pickle_in_place_of_tensors_is_refused(folder: Path) -> None:
    torch.save({"a": torch.ones(1)}, folder / "adapter_model.safetensors")
    manifest.seal(folder, {"release": 1, "parent": 0})
    with pytest.raises(wise.BadArtifact, match="not tensors of a release"):
        wise.Release.load(folder)


WIDE = wise.Site("model.layers.5.mlp.down_proj", "model.layers", 5, 1024, 256, False)  # the demo's


def of_size(dtype: torch.dtype, rho: float, shards: int) -> wise.Release:
    """A release of the demo model's size, whose shards hold nothing but zeros."""
    parts = tuple(
        wise.empty_shard(WIDE.d_in, WIDE.d_out, rho, seed).stored_as(dtype)
        for seed in range(shards)
    )
    none = torch.zeros(0, dtype=torch.long)
    space = wise.Space(torch.zeros(WIDE.d_in), torch.ones(WIDE.d_in))
    memory = wise.SideMemory(
        parts, space, wise.Keys(torch.zeros(0, WIDE.d_in), none), none, none, 0.98
    )
    return wise.Release(WIDE, memory, (), "tiny", "0" * 64, CALIBRATION, (1,) * shards)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rho", [0.05, 0.2, 0.8])
def test_a_shard_takes_its_ratio_of_the_matrix_in_the_matrix_type_and_no_more(
    tmp_path: Path, dtype: torch.dtype, rho: float
) -> None:
    sizes = []
    for shards in (0, 1, 2):
        of_size(dtype, rho, shards).save(tmp_path)
        sizes.append((tmp_path / "adapter_model.safetensors").stat().st_size)
    most = 1.1 * rho * 1024 * 256 * (4 if dtype == torch.float32 else 2)
    assert sizes[1] - sizes[0] <= most
    assert sizes[2] - sizes[1] <= most
    assert wise.Release.read(tmp_path).memory.shards[1].delta.dtype == dtype


def test_a_shard_is_rounded_to_the_matrix_type_to_nearest_even() -> None:
    """bfloat16 has 8 bits of precision: next to 1 are steps of 2^-7."""
    step = 2.0**-7
    delta = torch.tensor([[1 + step, 1 + 0.4 * step, 1 + 0.5 * step, 1 + 1.5 * step]])
    stored = wise.Shard(torch.arange(4), delta).stored_as(torch.bfloat16)
    assert stored.delta.tolist() == [[1 + step, 1.0, 1.0, 1 + 2 * step]]
    assert stored.stored_as(torch.bfloat16).delta.tolist() == stored.delta.tolist()


@pytest.mark.parametrize("value", [65520.0, float("inf"), float("nan")])
def test_what_float16_can_not_hold_is_an_error_that_says_so(value: float) -> None:
    """65,504 is its largest number, and 65,520 is where rounding goes to infinity."""
    shard = wise.Shard(torch.tensor([0]), torch.tensor([[value]]))
    with pytest.raises(wise.NotStorable, match=r"not finite as torch\.float16") as caught:
        shard.stored_as(torch.float16)
    assert "bfloat16" in caught.value.hint
    assert wise.Shard(torch.tensor([0]), torch.tensor([[65519.0]])).stored_as(torch.float16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_answers_from_shards_stored_in_its_type(
    tokenizer: Any, tmp_path: Path, dtype: torch.dtype
) -> None:
    model = new_llama().to(dtype)
    site, memory, _ = edited(model, tokenizer)
    stored = replace(memory, shards=tuple(s.stored_as(dtype) for s in memory.shards))
    ids, sha = tuple(fact.id for fact in FACTS), wise.weight_hash(model, site)
    bare = say(model, tokenizer, FACTS[0].prompts[0])
    wise.Release(site, stored, ids, "tiny", sha, CALIBRATION, (3,)).save(tmp_path)
    manifest.seal(tmp_path, {})
    attached = wise.load(model, tmp_path)
    assert [say(model, tokenizer, f.prompts[0]) for f in FACTS] == [f.answer for f in FACTS]
    attached.detach()
    assert say(model, tokenizer, FACTS[0].prompts[0]) == bare


def test_a_matrix_that_the_model_does_not_have_is_another_base_model(
    llama: Any, folder: Path
) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    for module in ("model.layers.9.mlp.down_proj", "", "model.layers", "lm_head", "model.norm"):
        config["site"]["module"] = module
        (folder / "adapter_config.json").write_text(json.dumps(config))
        manifest.seal(folder, {"release": 1, "parent": 0})
        with pytest.raises(wise.BadArtifact, match="another base model"):
            wise.load(llama, folder)
