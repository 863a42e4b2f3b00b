"""Helpers of the editing core's tests: facts over the tests' words, and a whole small edit."""

from __future__ import annotations

from typing import Any

import torch

import wise
from wise.problem import Problem
from wise.router import Space, prototypes
from wise.shard import empty_shard
from wise.train import solve

FACTS = (
    wise.Fact(11, ("Q: Who is head of Italy ? A:", "the head of Italy is"), "Mario Draghi"),
    wise.Fact(12, ("Q: Who is head of Peru ? A:", "the head of Peru is"), "Ada Lovelace"),
    wise.Fact(13, ("Q: What is the capital of Chad ? A:", "the capital of Chad is"), "Oslo"),
)
HOW = wise.Training(rho=1.0, ridge=0.5, invariance=0)


def examples(tokenizer: Any, facts: tuple[wise.Fact, ...] = FACTS) -> list[wise.Example]:
    """The facts in their phrasings, without contexts."""
    return wise.examples(facts, tokenizer, wise.Contexts(), max_tokens=64, seed=0)


def edited(
    model: Any, tokenizer: Any, *, layer: int = -1, threshold: float = 0.98
) -> tuple[wise.Site, wise.SideMemory, Problem]:
    """Write FACTS into one shard with an unprojected router; the model is left bare."""
    site = wise.locate(model, layer)
    made = examples(tokenizer)
    problem = Problem(model, site, made)
    fit = solve(problem, empty_shard(site.d_in, site.d_out, HOW.rho, 1), HOW)
    assert not fit.unfit
    inputs = problem.keys
    space = Space(inputs.mean(0), torch.ones(site.d_in))
    place = {fact.id: i for i, fact in enumerate(FACTS)}
    facts = torch.tensor([place[e.fact] for e in made])
    spans = [len(wise.answer_tokens(tokenizer, f.answer)) for f in FACTS]
    memory = wise.SideMemory(
        (fit.shard,),
        space,
        prototypes(space(inputs), facts, 0.999),
        torch.tensor(spans),
        torch.zeros(len(FACTS), dtype=torch.long),
        threshold,
    )
    return site, memory, problem


def say(model: Any, tokenizer: Any, prompt: str, **options: Any) -> str:
    """The greedy answer to one prompt, by the library's own generate."""
    batch = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**batch, max_new_tokens=6, do_sample=False, pad_token_id=2, **options)
    text: str = tokenizer.decode(out[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return text
