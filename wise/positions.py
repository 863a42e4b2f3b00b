"""Captured sequences with their answer positions, and how they are taken apart and put together.

Contains no training and runs no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from wise.untouched import for_a_pass


@dataclass(frozen=True, slots=True)
class Positions:
    """Captured sequences, with their positions that produce answer tokens."""

    states: Tensor  #: (batch, width, d_out): what the change is added to (`Tail`)
    beside: Tensor | None  #: (batch, width, d_out): what joins after the norm
    row: Tensor  #: (n,) which sequence each answer position is in
    place: Tensor  #: (n,) where in it
    inputs: Tensor  #: (n, d_in) what enters the edited matrix there
    target: Tensor  #: (n,) the token to be produced
    example: Tensor  #: (n,) index of the example
    nth: Tensor  #: (n,) which token of the answer that is
    cache: DynamicCache | None = None  #: of the layers above, for the tokens before ``states``

    @property
    def is_key(self) -> Tensor:
        """Whether each position is a prompt's last token, (n,) bool."""
        return self.nth == 0


def narrowed(at: Positions, only: Tensor) -> Positions:
    """Leave out the sequences of other examples; each example is one sequence of a batch."""
    keep = only[at.example]
    rows = torch.zeros(len(at.states), dtype=torch.bool, device=keep.device)
    rows[at.row[keep]] = True
    there = rows.to(at.states.device)
    return Positions(
        at.states[there],
        None if at.beside is None else at.beside[there],
        (rows.cumsum(0) - 1)[at.row[keep]],
        at.place[keep],
        at.inputs[keep.to(at.inputs.device)],
        at.target[keep],
        at.example[keep],
        at.nth[keep],
        None if at.cache is None else for_a_pass(at.cache, rows, at.states.device),
    )


def chosen(at: Positions, which: Tensor | slice) -> Positions:
    """Leave out all but some positions that stand alone; which: (n,) bool, or a range."""
    beside = None if at.beside is None else at.beside[which]
    rest = (at.inputs[which], at.target[which], at.example[which], at.nth[which])
    return _alone(at.states[which], beside, *rest)


def regrouped(parts: Iterable[Positions], rows: int) -> Iterator[Positions]:
    """Put positions that stand alone together, ``rows`` at a time: fewer and fuller passes."""
    held: list[Positions] = []
    for part in parts:
        held.append(part)
        while sum(len(h.row) for h in held) >= rows:
            whole = _together(held)
            yield chosen(whole, slice(rows))
            held = [chosen(whole, slice(rows, None))] if len(whole.row) > rows else []
    if held:
        yield _together(held)


def _together(parts: Sequence[Positions]) -> Positions:
    """Join positions that stand alone: sequences of one token each, in order."""
    if len(parts) == 1:
        return parts[0]
    beside = [part.beside for part in parts if part.beside is not None]
    return _alone(
        torch.cat([part.states for part in parts]),
        torch.cat(beside) if beside else None,
        *(
            torch.cat([getattr(part, name) for part in parts])
            for name in ("inputs", "target", "example", "nth")
        ),
    )


def _alone(
    states: Tensor,
    beside: Tensor | None,
    inputs: Tensor,
    target: Tensor,
    example: Tensor,
    nth: Tensor,
) -> Positions:
    row = torch.arange(len(states), device=target.device)
    place = torch.zeros_like(row)
    return Positions(states, beside, row, place, inputs, target, example, nth)


def alone(at: Positions) -> Positions:
    """Make each answer position a sequence of its own, where no layer above mixes them."""
    beside = None if at.beside is None else at.beside[at.row, at.place].unsqueeze(1)
    states = at.states[at.row, at.place].unsqueeze(1)
    return _alone(states, beside, at.inputs, at.target, at.example, at.nth)
