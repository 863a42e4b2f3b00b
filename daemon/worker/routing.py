"""Fit and calibrate the router of a candidate."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import wise
from daemon.messages import Question, Questions
from daemon.worker.session import Session
from wise.router import ALIKE, LOW_QUANTILE, best_match, own_matches

#: fewer questions than this say little about the spread of inputs
LEAST_QUESTIONS = 32
RUNNING_TEXTS = 60  #: passages whose every position is a negative
TEXT_TOKENS = 64  #: of each


@dataclass(frozen=True, slots=True)
class FactKeys:
    """Raw keys of facts: what enters the edited matrix at the prompt's last token."""

    inputs: Tensor  #: (n, d_in)
    fact: Tensor  #: (n,) index of the fact in the candidate
    prompt: Tensor  #: (n,) which phrasing of the fact; contexts of one phrasing share it


@dataclass(frozen=True, slots=True)
class Routing:
    """How a candidate's prompts find their facts."""

    where: wise.Space
    table: wise.Keys
    calibration: wise.Calibration


def contextual(
    questions: Sequence[Question], contexts: wise.Contexts, seed: int
) -> tuple[list[str], list[int]]:
    """Return each question in each phrasing, in one context each, and the question's index."""
    asked, label = [], []
    rng = random.Random(seed)
    for index, question in enumerate(questions):
        for prompt in question.prompts:
            asked.append(rng.choice(contexts.before(prompt, rng)))
            label.append(index)
    return asked, label


def space(session: Session, questions: Questions, contexts: wise.Contexts) -> wise.Space:
    """Fit the space that keys are compared in, on questions and texts that no probe shares."""
    asked, label = contextual(questions.fit, contexts, seed=1)
    texts = [" ".join(t.split()[:TEXT_TOKENS]) for t in session.background.train[:RUNNING_TEXTS]]
    seen = asked if len(questions.fit) >= LEAST_QUESTIONS else [*asked, *texts]
    if not seen:  # nothing to learn a spread from: compare the inputs as they are
        return wise.Space(torch.zeros(session.site.d_in), torch.ones(session.site.d_in))
    which = torch.tensor(label) if seen is asked else None
    return wise.fit_space(session.key_inputs(seen), which)


def negatives(session: Session, questions: Questions, contexts: wise.Contexts) -> Tensor:
    """Return inputs at positions that must not fire, (n, d_in); no probe is among them."""
    asked, _ = contextual(questions.calibrate, contexts, seed=2)
    rows = [session.key_inputs(asked)]
    texts = session.background.calibrate[:RUNNING_TEXTS]
    sequences = [session.tokenizer(t)["input_ids"][:TEXT_TOKENS] for t in texts]
    for batch in wise.capture(session.model, session.site, sequences):
        for i, row in enumerate(batch.rows):
            rows.append(batch.inputs[i, 1 : len(sequences[row])].float().cpu())
    return torch.cat(rows)


def routed(
    session: Session,
    questions: Questions,
    contexts: wise.Contexts,
    fresh: FactKeys,
    unrelated: Tensor,
    earlier: Routing | None,
) -> Routing:
    """Return ``earlier`` with the keys ``fresh`` beside its own; None: in a space fitted to now.

    unrelated: (n, d_in) inputs at positions that must not fire.
    """
    where = earlier.where if earlier else space(session, questions, contexts)
    fitted = earlier.calibration.questions if earlier else len(questions.fit)
    vectors = where(fresh.inputs)
    table = wise.prototypes(vectors, fresh.fact, ALIKE)
    if earlier:
        table = wise.Keys(
            torch.cat([earlier.table.vectors, table.vectors]),
            torch.cat([earlier.table.fact, table.fact]),
        )
    own = own_matches(vectors, fresh.fact, fresh.prompt)
    cosine, _ = best_match(where(unrelated), table)
    low = own.quantile(LOW_QUANTILE) if len(own) else torch.tensor(1.0)
    if earlier:
        low = torch.minimum(low, torch.tensor(earlier.calibration.lowest_key))
    section = session.config.wise
    found = wise.calibrate(low[None], cosine, section.false_fire, section.router_lean)
    # A store that knows one subject has no negative about another: its threshold would be too low.
    threshold = max(found.threshold, section.router_floor)
    return Routing(where, table, replace(found, threshold=threshold, questions=fitted))
