"""A side memory on disk: what was saved is what is loaded, and nothing else is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from edits import FACTS, edited, say
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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
    wise.Release(site, memory, ids, "tiny", sha, CALIBRATION).save(place)
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
    with pytest.raises(wise.BadArtifact, match="regular"):
        wise.Release.load(folder)


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
    with pytest.raises(wise.BadArtifact, match="not a release"):
        wise.Release.load(folder)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1), byte=st.binary(min_size=1, max_size=8))
def test_fuzzed_tensors_load_or_are_refused_never_anything_else(
    folder: Path, place: float, byte: bytes
) -> None:
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    at = int(place * (len(whole) - 1))
    path.write_bytes(whole[:at] + byte + whole[at + len(byte) :])
    try:
        manifest.seal(folder, {"release": 1, "parent": 0})
        wise.Release.load(folder)
    except wise.BadArtifact:
        pass
    finally:
        path.write_bytes(whole)
