"""Score the demo model by free generation on what it was trained to know."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo import world

REQUIRED = 0.98  #: exact match of the whole greedy answer, in every way of asking
SAMPLE = 3000  #: prompts scored in context; plain prompts are all scored
BATCH = 128


def _greedy(model: Any, tokenizer: Any, prompts: list[str]) -> list[str]:
    """Answer each prompt; prompts of like length share a batch."""
    answers = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in track(range(0, len(order), BATCH), "asking", transient=True):
        rows = order[start : start + BATCH]
        batch = tokenizer(
            [prompts[i] for i in rows], return_tensors="pt", padding=True, padding_side="left"
        )
        out = model.generate(**batch, max_new_tokens=40, do_sample=False)
        said = tokenizer.batch_decode(
            out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for i, text in zip(rows, said, strict=True):
            answers[i] = text.strip()
    return answers


def ways_of_asking(seed: int = 1) -> dict[str, list[tuple[str, str]]]:
    """Return (prompt, value) pairs: all plain, and a sample after text and in a second turn."""
    rng, facts = random.Random(seed), world.base_facts()
    phrasings, prose = world.phrasings(), world.prose()
    plain = [
        (p.format(subject=f.subject), f.value) for f in facts for p in phrasings[f.relation].all
    ]
    after, second = [], []
    for prompt, value in rng.sample(plain, SAMPLE):
        words = rng.choice(prose).split()
        start = rng.randrange(max(1, len(words) - 20))
        after.append((" ".join(words[start : start + rng.randint(5, 25)]) + "\n" + prompt, value))
    for prompt, value in rng.sample(plain, SAMPLE):
        before, said = rng.choice(plain)
        second.append((f"{before} {said}\n{prompt}", value))
    return {"plain": plain, "after text": after, "second turn": second}


def check(folder: Path) -> bool:
    """Print exact match for each way of asking; True when all reach ``REQUIRED``."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    good = True
    with torch.inference_mode():
        for way, asked in ways_of_asking().items():
            answers = _greedy(model, tokenizer, [prompt for prompt, _ in asked])
            right = sum(a == value for a, (_, value) in zip(answers, asked, strict=True))
            good &= right / len(asked) >= REQUIRED
            print(f"{way}: {right} of {len(asked)} = {right / len(asked):.4f}", flush=True)
    return good
