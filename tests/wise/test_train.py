"""Training on cached activations is the same as training through the whole model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from edits import FACTS, HOW, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import new_llama

import wise
from wise.facts import POOL_PASSAGES
from wise.problem import Problem
from wise.shard import random_columns
from wise.train import _minimiser, solve


def by_full_forward(
    model: Any, site: wise.Site, example: wise.Example, delta: Any, aim: float
) -> tuple[Any, Any, Any]:
    """Odds, cross entropy and S of one example, by the model's own forward and autograd alone."""
    answer_from = len(example.prompt) - 1
    routed = torch.zeros(len(example.inputs), 1, dtype=torch.float64)
    routed[answer_from:] = 1
    seen: dict[str, Any] = {}

    def add(module: Any, args: Any, out: Any) -> Any:
        seen["inputs"] = args[0].reshape(len(example.inputs), -1)
        shift = routed * (seen["inputs"] @ delta.T)
        seen["shift"] = shift.clone().requires_grad_(True)
        return out + seen["shift"].view_as(out)

    def keep(module: Any, args: Any, out: Any) -> None:
        seen["hidden"] = (out if isinstance(out, torch.Tensor) else out[0])[0]

    handles = (
        model.get_submodule(site.module).register_forward_hook(add),
        model.get_submodule(f"{site.layers}.{site.layer}").register_forward_hook(keep),
    )
    logits = model(torch.tensor([example.inputs]), use_cache=False).logits[0, answer_from:]
    for handle in handles:
        handle.remove()
    chance = logits.softmax(1)[range(len(example.answer)), list(example.answer)]
    odds = (chance / (1 - chance)).log()
    (aim - odds).clamp(min=0).square().sum().div(2).backward()
    rows = slice(answer_from, None)
    slope, inputs = seen["shift"].grad[rows], seen["inputs"][rows]
    hidden = seen["hidden"].detach()[rows]
    pull = sum(
        float(h @ h) * torch.outer(g, a) for h, g, a in zip(hidden, slope, inputs, strict=True)
    )
    return odds.detach(), -chance.detach().log(), pull


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("few", [False, True])
def test_cached_loss_and_gradient_equal_a_full_forward(
    llama: Any, tokenizer: Any, layer: int, shared: bool, few: bool
) -> None:
    """To 1e-9 in float64; also where a context's activations are shared by several examples."""
    model = llama.double()
    site = wise.locate(model, layer)
    texts = ("we sang songs and then asked again in a sunny city",) * 2 if shared else ()
    made = wise.examples(
        FACTS, tokenizer, wise.Contexts(texts, ("What is A: Rome",)), max_tokens=64, seed=1
    )
    assert any(e.shared for e in made)
    generator = torch.Generator().manual_seed(3)
    delta = 0.02 * torch.randn(site.d_out, site.d_in, generator=generator, dtype=torch.float64)
    change = wise.Shard(torch.arange(site.d_in), delta)
    found = Problem(model, site, made).judge(change, 5.0, few=few)
    wanted = [by_full_forward(model, site, e, delta, 5.0) for e in made]
    for index, (odds, _, _) in enumerate(wanted):
        torch.testing.assert_close(found.odds[found.example == index], odds, rtol=0, atol=1e-9)
    loss = torch.cat([loss for _, loss, _ in wanted]).mean()
    assert abs(found.loss - float(loss)) < 1e-9
    pull = sum(p for _, _, p in wanted)
    torch.testing.assert_close(found.pull, pull, rtol=1e-9, atol=1e-9)


def test_the_first_move_goes_along_the_preconditioned_gradient(llama: Any, tokenizer: Any) -> None:
    """Its direction against the formula written out with an explicit inverse."""
    site = wise.locate(llama)
    problem = Problem(llama, site, examples(tokenizer))
    zero = wise.Shard(torch.arange(site.d_in), torch.zeros(site.d_out, site.d_in))
    how = wise.Training(rho=1.0, ridge=0.7, invariance=0.3, iterations=1)
    inputs = torch.cat([at.inputs for at in problem._batches])
    gram = inputs.T @ inputs + 0.3 * problem.scatter(zero.columns)
    wanted = -problem.judge(zero, how.aim).pull @ torch.linalg.inv(
        gram + 0.7 * gram.diagonal().mean() * torch.eye(site.d_in)
    )
    moved = solve(problem, zero, how).shard.delta
    assert float(torch.cosine_similarity(moved.flatten(), wanted.flatten(), dim=0)) > 0.999999


def test_the_scatter_is_of_the_inputs_at_one_token_of_one_fact(llama: Any, tokenizer: Any) -> None:
    """Position by position, against the deviations from each group's mean."""
    site = wise.locate(llama)
    made = examples(tokenizer)
    problem = Problem(llama, site, made)
    columns = torch.arange(3, 40)
    groups: dict[tuple[int, int], list[torch.Tensor]] = {}
    for example in made:
        [captured] = wise.capture(llama, site, [example.inputs])
        for nth in range(len(example.answer)):
            row = captured.inputs[0, len(example.prompt) - 1 + nth, columns].double()
            groups.setdefault((example.fact, nth), []).append(row)
    assert all(len(rows) == 2 for rows in groups.values())
    wanted = torch.zeros(37, 37, dtype=torch.float64)
    for rows in groups.values():
        mean = sum(rows) / len(rows)
        for row in rows:
            wanted += torch.outer(row - mean, row - mean)
    torch.testing.assert_close(problem.scatter(columns).double(), wanted, rtol=1e-4, atol=1e-5)


def test_a_sample_of_the_facts_stands_for_all(
    llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three alike facts one is looked at: three times its own scatter."""
    monkeypatch.setattr("wise.problem.SCATTER_FACTS", 1)
    site, columns = wise.locate(llama), torch.arange(20)
    alike = tuple(wise.Fact(i, FACTS[0].prompts, FACTS[0].answer) for i in range(3))
    one = Problem(llama, site, examples(tokenizer, alike[:1])).scatter(columns)
    three = Problem(llama, site, examples(tokenizer, alike)).scatter(columns)
    torch.testing.assert_close(three, 3 * one)


def test_the_step_minimises_the_linearised_shortfall() -> None:
    """Against a grid over both coefficients."""
    generator = torch.Generator().manual_seed(2)
    short = torch.randn(40, generator=generator, dtype=torch.float64) * 4
    effect = torch.randn(40, 2, generator=generator, dtype=torch.float64)

    def left(x: float, y: float) -> float:
        at = short - effect @ torch.tensor([x, y], dtype=torch.float64)
        return float(at.clamp(min=0).square().sum())

    found = _minimiser(short, effect)
    grid = [i / 50 for i in range(-200, 201)]
    lowest = min(left(x, y) for x in grid for y in grid)
    assert left(*found.tolist()) <= lowest


def test_training_leaves_the_model_as_it_was(llama: Any, tokenizer: Any) -> None:
    weights = {n: p.clone() for n, p in llama.named_parameters()}
    modules = dict(llama.named_modules())
    fit = wise.train_shard(Problem(llama, wise.locate(llama), examples(tokenizer)), HOW, seed=5)
    assert not fit.unfit
    assert all(torch.equal(p, weights[n]) for n, p in llama.named_parameters())
    assert dict(llama.named_modules()) == modules
    assert all(p.grad is None for p in llama.parameters())


def test_the_same_seed_gives_the_same_bytes(llama: Any, tokenizer: Any) -> None:
    how = wise.Training(rho=0.5, iterations=5)
    one, two = (
        wise.train_shard(Problem(llama, wise.locate(llama), examples(tokenizer)), how, seed=5)
        for _ in "ab"
    )
    assert torch.equal(one.shard.columns, two.shard.columns)
    assert one.shard.delta.numpy().tobytes() == two.shard.delta.numpy().tobytes()


def test_a_shard_writes_only_to_its_columns() -> None:
    columns = random_columns(1000, 0.2, 7)
    assert len(columns) == 200 == len(columns.unique())
    assert torch.equal(columns, columns.sort().values)
    assert not torch.equal(columns, random_columns(1000, 0.2, 8))
    dense = wise.Shard(torch.tensor([1, 3]), torch.ones(2, 2)).dense(4)
    assert dense.tolist() == [[0, 1, 0, 1], [0, 1, 0, 1]]


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e2])
@pytest.mark.parametrize("layer", [1, 2])
def test_training_needs_no_step_size_at_any_scale_of_the_model(
    tokenizer: Any, size: float, layer: int
) -> None:
    """The edited layer's inputs scaled up or down: the same settings fit every fact."""
    model = new_llama()
    with torch.no_grad():
        model.model.layers[layer].mlp.up_proj.weight.mul_(size)
        model.model.layers[layer].mlp.down_proj.weight.div_(size)
    problem = Problem(model, wise.locate(model, layer), examples(tokenizer))
    fit = wise.train_shard(problem, wise.Training(rho=1.0, ridge=0.5), seed=0)
    assert not fit.unfit
    assert float(problem.judge(fit.shard).lead.min()) > 0.5


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 1000),
    ridge=st.sampled_from([1e-6, 1.0, 1e3]),
    aim=st.sampled_from([0.0, 6.0, 1e4]),
    started=st.sampled_from([0.0, 1.0, 1e3]),
)
def test_training_never_ends_worse_than_it_began(
    tokenizer: Any, seed: int, ridge: float, aim: float, started: float
) -> None:
    """From any start, however unreasonable the settings."""
    llama = new_llama(seed=seed)
    site = wise.locate(llama)
    problem = Problem(llama, site, examples(tokenizer))
    generator = torch.Generator().manual_seed(seed)
    start = wise.Shard(
        torch.arange(site.d_in), started * torch.randn(site.d_out, site.d_in, generator=generator)
    )
    before = problem.judge(start)
    fit = solve(problem, start, wise.Training(ridge=ridge, aim=aim, iterations=6))
    after = problem.judge(fit.shard)
    wrong, left = int((before.lead <= 0).sum()), int((after.lead <= 0).sum())
    assert left <= wrong
    if left == wrong:
        short = [(aim - at.odds).clamp(min=0).double().square().sum() for at in (before, after)]
        assert short[1] <= short[0] * (1 + 1e-9)


def test_two_answers_to_one_prompt_are_named_as_what_can_not_fit(
    llama: Any, tokenizer: Any
) -> None:
    """At most one of them can be learnt; the third fact is not dragged along."""
    asked = ("Q: Who is head of Italy ? A:",)
    facts = (wise.Fact(1, asked, "Mario Draghi"), wise.Fact(2, asked, "Ada Lovelace"), FACTS[2])
    problem = Problem(llama, wise.locate(llama), examples(tokenizer, facts))
    fit = wise.train_shard(problem, HOW, seed=1)
    assert fit.unfit and set(fit.unfit) <= {1, 2}
    for fact, reason in fit.unfit.items():
        assert f"fact {3 - fact} answers the same prompt otherwise" in reason


def test_a_token_that_the_model_can_not_emit_is_named(llama: Any, tokenizer: Any) -> None:
    """Its row of the head is zero: no state can put it before all others."""
    with torch.no_grad():
        llama.lm_head.weight = torch.nn.Parameter(llama.lm_head.weight.clone())
        llama.lm_head.weight[tokenizer.convert_tokens_to_ids("Oslo")] = 0
    problem = Problem(llama, wise.locate(llama), examples(tokenizer))
    fit = wise.train_shard(problem, wise.Training(rho=1.0, ridge=0.5, aim=60.0), seed=1)
    assert set(fit.unfit) <= {13}
    if fit.unfit:
        assert "could nowhere be made to emit it" in fit.unfit[13]


def test_contexts_of_a_fact_do_not_depend_on_its_neighbours(tokenizer: Any) -> None:
    contexts = wise.Contexts(("we sang songs and then asked again",) * 3, ("What is A: Rome",))
    together = wise.examples(FACTS, tokenizer, contexts, max_tokens=64, seed=4)
    alone = wise.examples(FACTS[1:2], tokenizer, contexts, max_tokens=64, seed=4)
    assert [e for e in together if e.fact == FACTS[1].id] == alone
    # two prompts, each plain; after three and one text; the first in a second turn
    assert len(alone) == 2 + 3 + 1 + 1


def test_contexts_are_few_and_shared(tokenizer: Any) -> None:
    """Many facts draw from one pool, and what they share is marked, never the whole prompt."""
    contexts = wise.Contexts(("we sang songs and then asked again in a sunny city",) * 3)
    made = wise.examples(FACTS, tokenizer, contexts, max_tokens=64, seed=4)
    begin = {e.prompt[: e.shared] for e in made if e.shared}
    assert 0 < len(begin) <= POOL_PASSAGES
    for example in [e for e in made if e.shared]:
        text = tokenizer.decode(example.prompt[example.shared :])
        assert text.startswith(("Q:", "the")), text


def test_a_context_that_does_not_fit_is_left_out(tokenizer: Any) -> None:
    """The fact itself fits, so it is trained without."""
    contexts = wise.Contexts(("we sang songs and then asked again in a sunny city",))
    made = wise.examples(FACTS, tokenizer, contexts, max_tokens=12, seed=0)
    assert {e.fact for e in made} == {fact.id for fact in FACTS}
    assert all(len(e.inputs) <= 12 for e in made)
    assert not any(e.shared for e in made)


def test_a_fact_too_long_for_the_model_is_refused(tokenizer: Any) -> None:
    with pytest.raises(wise.BadFact, match="fact 11"):
        wise.examples(FACTS, tokenizer, wise.Contexts(), max_tokens=6, seed=0)


@pytest.mark.parametrize("layer", [1, 2])
def test_a_look_at_some_examples_is_that_part_of_the_whole(
    llama: Any, tokenizer: Any, layer: int
) -> None:
    site = wise.locate(llama, layer)
    problem = Problem(llama, site, examples(tokenizer))
    zero = wise.Shard(torch.arange(site.d_in), torch.zeros(site.d_out, site.d_in))
    only = torch.tensor([True, False, False, True, False, False])
    part, rest = problem.part(only).judge(zero, 3.0), problem.part(~only).judge(zero, 3.0)
    whole = problem.judge(zero, 3.0)
    chosen = only[whole.example]
    torch.testing.assert_close(part.odds, whole.odds[chosen], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rest.odds, whole.odds[~chosen], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(part.pull + rest.pull, whole.pull, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("layer", [1, 2])
def test_odds_among_some_words_are_those_of_a_vocabulary_of_them(
    llama: Any, tokenizer: Any, layer: int
) -> None:
    site = wise.locate(llama, layer)
    made = examples(tokenizer)
    problem = Problem(llama, site, made)
    zero = wise.Shard(torch.arange(site.d_in), torch.zeros(site.d_out, site.d_in))
    words = torch.tensor(sorted({t for e in made for t in e.answer} | {5, 9, 30}))
    found = problem.judge(zero, words=words)
    for index, example in enumerate(made):
        logits = llama(torch.tensor([example.inputs])).logits[0, len(example.prompt) - 1 :]
        for row, token, odds in zip(
            logits, example.answer, found.odds[found.example == index], strict=True
        ):
            others = [row[w] for w in words.tolist() if w != token]
            wanted = row[token] - torch.stack(others).exp().sum().log()
            assert abs(float(odds) - float(wanted)) < 1e-4


@pytest.mark.parametrize("layer", [1, 2])
def test_activations_beyond_the_budget_are_mapped_from_disk(
    llama: Any, tokenizer: Any, layer: int
) -> None:
    """With nothing kept in memory, the same bytes come out."""
    site = wise.locate(llama, layer)
    inside = Problem(llama, site, examples(tokenizer))
    outside = Problem(llama, site, examples(tokenizer), budget_mb=0)
    assert inside.spilled == 0 < outside.spilled
    how = wise.Training(rho=1.0, iterations=6)
    one, two = (wise.train_shard(p, how, seed=3) for p in (inside, outside))
    assert torch.equal(one.shard.delta, two.shard.delta)
    assert torch.equal(inside.keys, outside.keys)


def test_keys_are_what_enters_the_matrix_at_the_prompts_end(llama: Any, tokenizer: Any) -> None:
    """Also where an example's positions are cut into two pieces."""
    import wise.problem as module

    made = examples(tokenizer)
    site = wise.locate(llama)
    rows, module.ROWS = module.ROWS, 2
    try:
        keys = Problem(llama, site, made).keys
    finally:
        module.ROWS = rows
    wanted = wise.last_inputs(llama, site, [e.prompt for e in made])
    torch.testing.assert_close(keys, wanted)
