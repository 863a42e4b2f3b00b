"""Write real updates into the demo model, ours and the paper's way side by side, and measure.

``python -m bench.edit`` edits the same 100 and 200 facts by both and 649 by the default, and asks
the probes of `bench.edit_world` by free greedy generation through the router, exact match of the
whole answer. Times are ratios within the run. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import wise
from bench import edit_router, plot
from bench.edit_world import SEED, World, edits, load, probes
from wise import paper
from wise.scoring import Score, evaluate

MAX_TOKENS = 40
#: facts a shard, as the daemon's default: larger ones lose contexts (docs/decisions.md)
SHARD = 100
REPEATS = 5  #: times that the fewest facts are written, for their median time
ROUNDS = 9  #: pairs of generations whose median ratio is the overhead
NAMES = ("reliability", "generalisation", "locality_near", "locality_far")


@dataclass(frozen=True, slots=True)
class Run:
    """One way of writing a number of facts."""

    seconds: float
    scores: dict[str, Score]


def matmul_rate(here: World, dtype: torch.dtype = torch.float32) -> float:
    """Return the measured FLOPs per second of the head's matmul on this machine."""
    rows = torch.randn(1024, here.site.d_out).to(dtype)
    weight = here.model.lm_head.weight.to(dtype)
    best = 0.0
    for _ in range(20):
        begun = time.perf_counter()
        torch.nn.functional.linear(rows, weight)
        flops = 2 * rows.shape[0] * weight.numel()
        best = max(best, flops / (time.perf_counter() - begun))
    return best


def floor_seconds(here: World, problem: wise.Problem, iterations: float, rate: float) -> float:
    """Return the least time the layers above need: their FLOPs at the measured matmul rate.

    Each answer position goes through the final norm and the head, whole vocabulary, forward and
    back to the state, once an iteration and once before.
    """
    positions = sum(len(e.answer) for e in problem.examples)
    forward = 2 * positions * here.model.lm_head.weight.numel()
    return float((iterations + 1) * 2 * forward / rate)


@dataclass(frozen=True, slots=True)
class Written:
    """Facts written once, timed."""

    problem: wise.Problem
    fits: list[wise.Fit]
    capture: float  #: seconds
    train: float  #: seconds

    @property
    def seconds(self) -> float:
        """The whole time."""
        return self.capture + self.train


def _written(here: World, made: wise.EditSet, held: list[int]) -> Written:
    begun = time.perf_counter()
    problem = made.problem(here.model, here.tokenizer, here.site)
    captured = time.perf_counter()
    owner = torch.tensor([held[e.fact] for e in problem.examples])
    parts = [problem.part(owner == shard) for shard in range(held[-1] + 1)]
    fits = [wise.train_shard(p, wise.Training(), seed=i) for i, p in enumerate(parts)]
    return Written(problem, fits, captured - begun, time.perf_counter() - captured)


def ours(
    here: World, count: int, rate: float, repeats: int = 1
) -> tuple[Run, wise.Release, dict[str, float]]:
    """Write ``count`` facts into shards of `SHARD`, timed, and score them.

    Of several ``repeats`` the one of median time counts: seconds of this are at the machine's
    mercy, minutes of the baseline are not.
    """
    made, held = edits(here, count), [index // SHARD for index in range(count)]
    writes = sorted((_written(here, made, held) for _ in range(repeats)), key=lambda w: w.seconds)
    once = writes[repeats // 2]
    problem, fits = once.problem, once.fits
    release = made.release(problem, here.tokenizer, [fit.shard for fit in fits], held)
    iterations = sum(fit.iterations for fit in fits) / len(fits)
    floor = floor_seconds(here, problem, iterations, rate)
    figures = {
        "capture": once.capture,
        "train": once.train,
        "iterations": iterations,
        "floor": floor,
        "unfit": float(sum(len(fit.unfit) for fit in fits)),
        "threshold": release.threshold or 0.0,
    }
    memory = wise.attach(here.model, here.site, release.memory)
    scores = evaluate(here.model, here.tokenizer, memory, probes(here, count), MAX_TOKENS)
    memory.detach()
    return Run(once.seconds, scores), release, figures


def baseline(here: World, counts: list[int]) -> tuple[dict[int, Run], Any]:
    """Write facts the paper's way, one after another; score after each of ``counts``."""
    how, made = paper.Paper(), edits(here, max(counts))
    shards: list[Any] = []
    runs, spent, memory = {}, 0.0, None
    for first, last in zip([0, *counts], counts, strict=False):
        begun = time.perf_counter()
        shards.append(
            paper.edit(
                here.model,
                here.tokenizer,
                here.site,
                made.facts[first:last],
                made.negatives,
                how,
                seed=last,
            )
        )
        spent += time.perf_counter() - begun
        memory = paper.assemble(shards, here.site, how)
        attached = wise.attach(here.model, here.site, memory)
        scores = evaluate(here.model, here.tokenizer, attached, probes(here, last), MAX_TOKENS)
        attached.detach()
        runs[last] = Run(spent, scores)
        show(f"paper {last}", runs[last], last)
    return runs, memory


def overhead(here: World, memory: wise.SideMemory | paper.PaperMemory) -> float:
    """Return the median ratio of generation with the memory attached to without, in pairs."""
    asked = [fact.prompts[0] for fact in here.facts(8)]
    batch = here.tokenizer(asked, return_tensors="pt", padding=True, padding_side="left")
    ids, mask = batch["input_ids"], batch["attention_mask"]

    def generate() -> float:
        begun = time.perf_counter()
        here.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=32,
            min_new_tokens=32,
            do_sample=False,
            pad_token_id=0,
        )
        return time.perf_counter() - begun

    generate()
    ratios = []
    for _ in range(ROUNDS):
        bare = generate()
        attached = wise.attach(here.model, here.site, memory)
        ratios.append(generate() / bare)
        attached.detach()
    return sorted(ratios)[ROUNDS // 2]


def grown(memory: wise.SideMemory, facts: int) -> wise.SideMemory:
    """Return the memory with a key table for so many facts, random keys making up the number."""
    generator = torch.Generator().manual_seed(SEED)
    vectors = torch.randn(facts, memory.space.width, generator=generator)
    keys = wise.Keys(torch.nn.functional.normalize(vectors, dim=1), torch.arange(facts))
    span, held = torch.full((facts,), 8), torch.zeros(facts, dtype=torch.long)
    return replace(memory, keys=keys, span=span, shard_of=held, threshold=0.99)


def cost(here: World, memory: wise.SideMemory, path: Path | None) -> None:
    """Print the overhead of generation as the key table grows; plot it to ``path``."""
    found = [(float(n), overhead(here, grown(memory, n))) for n in (10, 1000, 10_000)]
    print("overhead by facts: " + ", ".join(f"{n:,.0f}: {ratio:.3f}" for n, ratio in found))
    if path is not None:
        title = "Generation with a memory attached, beside the bare model"
        path.write_text(plot.svg(found, title, "facts in the router", "ratio"), "utf-8")


def quality(run: Run, names: tuple[str, ...] = NAMES) -> dict[str, float]:
    """Return the shares of a run's scores."""
    return {name: round(run.scores[name].share, 4) for name in names if name in run.scores}


def show(name: str, run: Run, count: int) -> None:
    """Print one row of the table."""
    shares = "  ".join(f"{k} {s.share:.4f} ({s.right}/{s.asked})" for k, s in run.scores.items())
    print(f"{name}: {run.seconds:.1f} s, {run.seconds / count:.3f} s a fact  {shares}", flush=True)


def main() -> None:
    """Run the bench and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", default="100,200,649", help="how many, comma separated")
    parser.add_argument("--baseline", default="100,200", help="the same for the paper's way")
    parser.add_argument("--plot", type=Path, help="write the router's cost as SVG to this file")
    args = parser.parse_args()
    counts = [int(n) for n in args.facts.split(",") if n]
    slow = [int(n) for n in args.baseline.split(",") if n]
    here, found = load(), {}
    rate = matmul_rate(here)
    half = matmul_rate(here, torch.bfloat16)
    print(
        f"matmul rate {rate / 1e9:.0f} GFLOP/s in float32, {half / 1e9:.0f} in bfloat16,"
        f" {torch.get_num_threads()} threads"
    )
    for count in counts:
        run, release, figures = ours(here, count, rate, REPEATS if count == min(counts) else 1)
        found[count] = (run, release, figures)
        show(f"ours {count}", run, count)
        print("  " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)
    largest = found[max(counts)][1]
    routers = edit_router.compare(here, largest)
    assert isinstance(largest.memory, wise.SideMemory)
    slower = overhead(here, largest.memory)
    cost(here, largest.memory, args.plot)
    print(f"overhead of generation with {len(largest.fact_ids)} facts: {slower:.3f}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    papers, memory = baseline(here, slow) if slow else ({}, None)
    if memory is not None:
        theirs = edit_router.activation(here, memory, max(slow))
        print("paper's router  " + "  ".join(f"{k} {v:.6f}" for k, v in theirs.items()))
    first = min(counts)
    per_fact = papers[max(slow)].seconds / max(slow) if slow else 0.0
    near = found[first][0].seconds / found[first][2]["floor"]
    result = {
        "ratio": round(per_fact / (found[first][0].seconds / first), 1) if slow else None,
        "floor_ratio": round(near, 2),
        "floor_ratio_bfloat16": round(near * half / rate, 2),
        "quality": {str(n): quality(found[n][0], tuple(found[n][0].scores)) for n in counts},
        "baseline": {str(n): quality(papers[n], tuple(papers[n].scores)) for n in papers},
        "router": routers,
        "overhead": round(slower, 3),
        "peak_mb": round(peak),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
