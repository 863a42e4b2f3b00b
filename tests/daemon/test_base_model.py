"""The edited matrix read from its file against the one in the loaded model."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import wise
from daemon import base_model
from demo.world import MODEL
from wise.errors import BadArtifact


def expected(folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    site = wise.locate(model)
    return {"module": site.module, "transposed": site.transposed}, wise.weight_hash(model, site)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A model whose matrix is stored the other way around, in float32, in several files."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("gpt2")
    made = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=2, n_head=2))
    made.save_pretrained(folder / "whole")
    made.save_pretrained(folder / "parts", max_shard_size="5KB")
    made.to(torch.float16).save_pretrained(folder / "half")
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["demo", "whole", "parts", "half"])
def test_the_hash_is_that_of_the_loaded_model(gpt2, name, dtype):
    folder = MODEL if name == "demo" else gpt2 / name
    assert (folder / "model.safetensors.index.json").exists() == (name == "parts")
    site, sha256 = expected(folder, dtype)
    assert base_model.matrix_sha256(folder, site, dtype) == sha256


def test_a_prefix_that_the_file_leaves_out_does_no_harm(gpt2):
    site, sha256 = expected(gpt2 / "whole", "float32")
    site["module"] = site["module"].removeprefix("transformer.")
    assert base_model.matrix_sha256(gpt2 / "whole", site, "float32") == sha256
    site["module"] = f"model.{site['module']}"
    assert base_model.matrix_sha256(gpt2 / "whole", site, "float32") == sha256


def test_what_is_not_there_or_not_alone_is_not_told(gpt2, tmp_path):
    site = {"module": "transformer.h.9.mlp.c_proj", "transposed": True}
    assert base_model.matrix_sha256(gpt2 / "whole", site, "float32") is None
    assert base_model.matrix_sha256(tmp_path, site, "float32") is None
    header = {
        f"{side}.h.9.mlp.c_proj.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
        for side in ("encoder", "decoder")
    }
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"1234")
    assert base_model.matrix_sha256(tmp_path, site, "float32") is None


@pytest.mark.parametrize("data", [b"\xff" * 64, b"", (4).to_bytes(8, "little") + b"nope"])
def test_a_file_of_something_else_is_refused(tmp_path, data):
    (tmp_path / "model.safetensors").write_bytes(data)
    site = {"module": "transformer.h.1.mlp.c_proj", "transposed": True}
    with pytest.raises(BadArtifact):
        base_model.matrix_sha256(tmp_path, site, "float32")


def test_an_index_that_leads_out_of_its_folder_is_not_followed(tmp_path):
    name = "transformer.h.1.mlp.c_proj"
    index = {"weight_map": {f"{name}.weight": "../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert (
        base_model.matrix_sha256(tmp_path, {"module": name, "transposed": True}, "float32") is None
    )


def test_a_model_is_found_by_name_folder_or_not_at_all(tmp_path):
    assert base_model.place("demo") == MODEL
    assert base_model.place(str(tmp_path)) == tmp_path
    assert base_model.place("nobody/nothing") is None
    assert base_model.place("no/such/folder/at all") is None
