"""The answers that a release was published with, and whether it still gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.messages import Answers, Ask
from wise import manifest

PROBES = "probes.json"

#: asks the worker to answer prompts
AskPrompts = Callable[[Ask], Answers]


@dataclass(frozen=True, slots=True, order=True)
class Probe:
    """A prompt that a release was asked, and what it said."""

    prompt: str
    tokens: int  #: of the answer at most
    answer: str


def probes(folder: Path) -> list[Probe]:
    """Return what a release's folder says it answered, each prompt and length once, in order."""
    body: Any = manifest.read_json(folder / PROBES, manifest.FILES[PROBES])
    found = {(p["prompt"], p["tokens"]): p["answer"] for p in body["probes"]}
    return sorted(Probe(*asked, answer) for asked, answer in found.items())


def ask_again(folder: Path, asked: Iterable[Probe], ask: AskPrompts) -> Iterator[tuple[Probe, str]]:
    """Yield each probe with what the release in ``folder`` answers now, in the mode that serves."""
    by_length: dict[int, list[Probe]] = {}
    for probe in asked:
        by_length.setdefault(probe.tokens, []).append(probe)
    for tokens, group in sorted(by_length.items()):
        prompts = tuple(probe.prompt for probe in group)
        request = Ask(
            release=str(folder), prompts=prompts, max_new_tokens=tokens, beside_bare=False
        )
        for probe, said in zip(group, ask(request).answers, strict=True):
            yield probe, said.text
