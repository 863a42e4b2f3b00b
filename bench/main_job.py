"""How well the demo world's final release answers: ``python -m bench.main_job``.

Runs the demo, then asks its final release about all facts that it holds, in more phrasings and
contexts than the gate does, and about many facts that it does not hold. Everything by free greedy
generation through the router, exact match of the whole answer. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import wise
from daemon.state import State
from daemon.store import facts
from daemon.store.facts import Fact
from demo import scenario, world

CONTEXTS = 3  #: times each fact is asked after text and in a second turn
NEAR, FAR = 800, 800  #: prompts about facts that the release does not hold
SEED = 7  #: not the one that training or the gate draws contexts with

Asked = list[tuple[str, str]]  #: (prompt, expected answer)


def held_facts(state: State) -> list[Fact]:
    """Return the facts of the promoted release."""
    from daemon import releases

    with state.store(read_only=True) as store:
        return facts.of_release(store, releases.promoted(store).number)


def of_facts(held: Sequence[Fact], rng: random.Random) -> dict[str, Asked]:
    """Return prompts for what is held: plain, in unseen words, after text, in a second turn."""
    base, asked = world.base_facts(), world.phrasings()
    text = wise.Contexts(passages=tuple(world.prose()))
    turns = tuple(
        f"{rng.choice(asked[f.relation].prompts).format(subject=f.subject)} {f.value}"
        for f in rng.sample(base, 500)
    )
    dialogue = wise.Contexts(turns=turns)
    return {
        "reliability": [(f.prompts[0], f.object) for f in held],
        "generalisation": [(p, f.object) for f in held for p in f.held_out],
        "after_text": [
            (text.before(f.prompts[0], rng)[1], f.object) for f in held for _ in range(CONTEXTS)
        ],
        "second_turn": [
            (dialogue.before(f.prompts[0], rng)[1], f.object) for f in held for _ in range(CONTEXTS)
        ],
    }


def of_others(held: Sequence[Fact], rng: random.Random) -> dict[str, list[str]]:
    """Return prompts that the release must leave alone, near to what it holds and far from it."""
    asked = world.phrasings()
    slots = {(f.subject, f.relation) for f in held}
    subjects, relations = {s for s, _ in slots}, {r for _, r in slots}
    near: list[str] = []
    far: list[str] = []
    for fact in world.base_facts():
        if (fact.subject, fact.relation) in slots:
            continue
        kind = near if fact.subject in subjects or fact.relation in relations else far
        kind.append(rng.choice(asked[fact.relation].all).format(subject=fact.subject))
    passages = [" ".join(p.split()[:24]) for p in rng.sample(world.prose(), FAR // 4)]
    return {
        "locality_near": rng.sample(near, min(NEAR, len(near))),
        "locality_far": rng.sample(far, min(FAR - len(passages), len(far))) + passages,
    }


def measure(state: State) -> dict[str, tuple[int, int]]:
    """Return right and asked of each kind for the state's promoted release."""
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_pretrained(world.MODEL, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(world.MODEL)
    held, rng = held_facts(state), random.Random(SEED)
    others = of_others(held, rng)
    bare = {k: wise.answer(model, tokenizer, prompts, 24) for k, prompts in others.items()}
    memory = wise.load(model, state.current)
    found = {}
    for kind, asked in of_facts(held, rng).items():
        said = wise.answer(model, tokenizer, [p for p, _ in asked], 48, memory)
        found[kind] = (sum(a.text == e for a, (_, e) in zip(said, asked, strict=True)), len(asked))
    for kind, prompts in others.items():
        said = wise.answer(model, tokenizer, prompts, 24, memory)
        same = sum(a.text == b.text for a, b in zip(said, bare[kind], strict=True))
        found[kind] = (same, len(prompts))
    return found


def main() -> None:
    """Run the demo, or take the state of one that was kept, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, help="state folder of a demo run with --keep")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if args.state is None and scenario.run(Path(place), json_only=True):
            raise SystemExit("the demo failed")
        found = measure(State(args.state or Path(place) / "state"))
    for kind, (right, asked) in found.items():
        print(f"{kind:15s} {right / asked:.4f}  ({right} of {asked})")
    print(json.dumps({kind: round(right / asked, 4) for kind, (right, asked) in found.items()}))


if __name__ == "__main__":
    main()
