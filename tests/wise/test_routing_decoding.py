"""Every way of decoding that the library has gives the same routed tokens."""

from __future__ import annotations

import pytest
import torch
from routed import CLOSE, GREEDY, PROMPTS, WAYS, Bench, generated, written_out
from transformers import CompileConfig

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_decoding_gives_the_same_tokens(bench: Bench, way: str) -> None:
    task, how = WAYS[way]
    bare, _ = generated(bench.twin, PROMPTS, **task, use_cache=False)
    with written_out(bench.twin, bench.site, bench.memory):
        tokens, scores = generated(bench.twin, PROMPTS, **task, use_cache=False)
    assert not torch.equal(tokens, bare)
    with bench.attached():
        got_tokens, got_scores = generated(bench.model, PROMPTS, **task, **how)
    assert got_tokens.tolist() == tokens.tolist()
    torch.testing.assert_close(got_scores, scores, **CLOSE)


@pytest.mark.parametrize("helper", ["prompt lookup", "assistant"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_assisted_decoding_gives_the_same_tokens(
    bench: Bench, helper: str, prompt: list[int]
) -> None:
    """Tokens that were proposed in vain are cropped from the cache, and so is their routing."""
    prompt = prompt[:1] + prompt[1:] * 2
    with written_out(bench.twin, bench.site, bench.memory):
        tokens, scores = generated(bench.twin, [prompt], **GREEDY, use_cache=False)
    helpers = {"prompt lookup": {"prompt_lookup_num_tokens": 3}}
    options = helpers.get(helper, {"assistant_model": bench.twin})
    with bench.attached():
        got_tokens, got_scores = generated(bench.model, [prompt], **GREEDY, **options)
    assert got_tokens.tolist() == tokens.tolist()
    torch.testing.assert_close(got_scores, scores, **CLOSE)


def test_compiled_decoding_gives_the_same_tokens(last: Bench) -> None:
    """On a GPU `generate` compiles decoding with a static cache by itself."""
    how = CompileConfig(backend="eager", mode=None)
    how._compile_all_devices = True
    with written_out(last.twin, last.site, last.memory):
        tokens, scores = generated(last.twin, PROMPTS, **GREEDY, use_cache=False)
    with last.attached():
        got_tokens, got_scores = generated(
            last.model, PROMPTS, **GREEDY, cache_implementation="static", compile_config=how
        )
    torch.compiler.reset()
    assert got_tokens.tolist() == tokens.tolist()
    torch.testing.assert_close(got_scores, scores, **CLOSE)
