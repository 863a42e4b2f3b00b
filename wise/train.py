"""Write facts into a shard: breadth-first, preconditioned by the Gram matrix of the inputs.

All facts, phrasings and contexts of a shard are solved together. With the rows a_i (inputs of the
edited matrix at the positions that produce answer tokens), the residual stream h_i after the layer
and the gradient g_i of the cross entropy there,

    S = sum_i |h_i|^2 g_i a_i^T
    V <- mu V - eta S (A^T A + lambda mean(diag(A^T A)) I)^-1
    D <- D + V

The inverse makes one step move every position about as far as it asks for, however correlated the
inputs are; |h|^2 undoes the final norm's 1/|h|. The shard's subspace is a seeded random subset of
the matrix's input columns, so one Cholesky factor serves all output rows (WISE's element-wise mask
would need one factor a row; see docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wise.activations import Activations, capture
from wise.facts import Example
from wise.site import Site
from wise.upper import is_last, logits, widen

ROWS = 2048  #: positions that go through the head at once; bounds the logits' memory


@dataclass(frozen=True, slots=True)
class Training:
    """How a shard is trained."""

    rho: float = 0.5  #: share of the matrix's input columns that a shard may write to
    ridge: float = 1.0  #: lambda; smaller is more exact, larger generalises better
    step: float = 0.1  #: eta at the start; halved whenever the loss rises
    momentum: float = 0.8  #: mu
    iterations: int = 40  #: at most
    at_least: int = 10  #: iterations even when every fact is right already
    margin: float = 1.0  #: nats by which each answer token must lead


@dataclass(frozen=True, slots=True)
class Shard:
    """A change of the edited matrix in some of its input columns."""

    columns: Tensor  #: (c,) int64, sorted
    delta: Tensor  #: (d_out, c) float32

    def dense(self, d_in: int) -> Tensor:
        """Return the change as a whole matrix, (d_out, d_in)."""
        full = torch.zeros(self.delta.shape[0], d_in, dtype=self.delta.dtype)
        full[:, self.columns] = self.delta
        return full


@dataclass(frozen=True, slots=True)
class Fit:
    """What training came to."""

    shard: Shard
    iterations: int
    loss: float  #: mean cross entropy over answer positions
    unfit: dict[int, str]  #: facts whose answer is not right in every trained prompt, and why


Report = Callable[[int, int, float], None]  #: (iteration, of, loss)


def random_columns(d_in: int, rho: float, seed: int) -> Tensor:
    """Return the input columns that the shard of ``seed`` may write to, sorted."""
    generator = torch.Generator().manual_seed(seed)
    count = max(1, round(rho * d_in))
    return torch.randperm(d_in, generator=generator)[:count].sort().values


@dataclass(slots=True)
class _Sequences:
    """Captured activations of one batch, with the positions that produce answer tokens."""

    hidden: Tensor  #: (batch, width, d_out)
    row: Tensor  #: (n,) which sequence each answer position is in
    place: Tensor  #: (n,) where in it
    inputs: Tensor  #: (n, d_in)
    targets: Tensor  #: (n,)
    example: Tensor  #: (n,) index of the example


def _answer_positions(batch: Activations, examples: Sequence[Example], alone: bool) -> _Sequences:
    row: list[int] = []
    place: list[int] = []
    targets: list[int] = []
    example: list[int] = []
    for i, index in enumerate(batch.rows):
        made = examples[index]
        row += [i] * len(made.answer)
        place += range(len(made.prompt) - 1, len(made.inputs))
        targets += made.answer
        example += [index] * len(made.answer)
    rows, places = torch.tensor(row), torch.tensor(place)
    hidden, inputs = widen(batch.hidden), widen(batch.inputs[rows, places])
    if alone:  # nothing above mixes positions: each answer position becomes a sequence of its own
        hidden = hidden[rows, places].unsqueeze(1)
        rows, places = torch.arange(len(row)), torch.zeros(len(row), dtype=torch.long)
    return _Sequences(hidden, rows, places, inputs, torch.tensor(targets), torch.tensor(example))


def _split(sequences: _Sequences) -> list[_Sequences]:
    """Cut sequences of one position into pieces of ``ROWS``."""
    parts = zip(
        *(
            t.split(ROWS)
            for t in (
                sequences.hidden,
                sequences.inputs,
                sequences.targets,
                sequences.example,
            )
        ),
        strict=True,
    )
    return [
        _Sequences(h, torch.arange(len(h)), torch.zeros(len(h), dtype=torch.long), a, t, e)
        for h, a, t, e in parts
    ]


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one batch gave."""

    batch: _Sequences
    inputs: Tensor  #: (n, c)
    changed: Tensor  #: (n, d_out) the residual stream with the change
    out: Tensor  #: (n, vocabulary) logits
    loss: float  #: summed
    slope: Tensor  #: (n, d_out) gradient of the summed loss there


class Problem:
    """The captured examples of a shard: losses and gradients for any change of the matrix."""

    def __init__(self, model: nn.Module, site: Site, examples: Sequence[Example]) -> None:
        self.model, self.site, self.examples = model, site, examples
        alone = is_last(model, site)
        sequences = [e.inputs for e in examples]
        found = [_answer_positions(b, examples, alone) for b in capture(model, site, sequences)]
        self._batches = [p for f in found for p in (_split(f) if alone else [f])]
        self._dtype = next(model.parameters()).dtype

    @property
    def keys(self) -> Tensor:
        """Inputs of the edited matrix at each example's last prompt token, (examples, d_in)."""
        keys = torch.empty(len(self.examples), self.site.d_in)
        for batch in self._batches:
            first = torch.ones(len(batch.example), dtype=torch.bool)
            first[1:] = batch.example[1:] != batch.example[:-1]
            keys[batch.example[first]] = batch.inputs[first].cpu()
        return keys

    @property
    def inputs(self) -> Tensor:
        """Inputs of the edited matrix at every answer position, (n, d_in) float32."""
        return torch.cat([b.inputs for b in self._batches])

    def _passes(self, shard: Shard) -> Iterator[_Pass]:
        """Run the layers above for each captured batch with ``shard`` in place."""
        for batch in self._batches:
            inputs = batch.inputs[:, shard.columns]
            changed = batch.hidden[batch.row, batch.place] + inputs @ shard.delta.T
            changed.requires_grad_(True)
            states = batch.hidden.index_put((batch.row, batch.place), changed)
            out = logits(self.model, self.site, states.to(self._dtype))[batch.row, batch.place]
            loss = nn.functional.cross_entropy(out, batch.targets, reduction="sum")
            (slope,) = torch.autograd.grad(loss, changed)
            yield _Pass(batch, inputs, changed.detach(), out.detach(), loss.item(), slope)

    def loss_and_slopes(self, shard: Shard) -> tuple[float, Tensor]:
        """Return the mean loss (nats) and the gradient of the summed loss, (d_out, c)."""
        total, count, slopes = 0.0, 0, torch.zeros_like(shard.delta)
        for one in self._passes(shard):
            total, count = total + one.loss, count + len(one.slope)
            slopes += one.slope.T @ one.inputs
        return total / count, slopes

    def evaluate(self, shard: Shard) -> tuple[float, Tensor, dict[int, tuple[float, int]]]:
        """Return the loss, S and each example's worst answer position.

        The loss is the mean cross entropy (nats) over answer positions; S is (d_out, c); the
        worst position is (margin in nats, target token), negative when the token is not the
        greedy one.
        """
        total, count = 0.0, 0
        pull = torch.zeros_like(shard.delta)
        worst: dict[int, tuple[float, int]] = {}
        for one in self._passes(shard):
            pull += (one.changed.square().sum(1, keepdim=True) * one.slope).T @ one.inputs
            total, count = total + one.loss, count + len(one.slope)
            _note_worst(worst, one.batch, one.out)
        return total / count, pull, worst


def _note_worst(worst: dict[int, tuple[float, int]], batch: _Sequences, out: Tensor) -> None:
    right = out.gather(1, batch.targets[:, None])[:, 0]
    others = out.scatter(1, batch.targets[:, None], float("-inf")).amax(1)
    lead = (right - others).tolist()
    for example, target, margin in zip(
        batch.example.tolist(), batch.targets.tolist(), lead, strict=True
    ):
        if example not in worst or margin < worst[example][0]:
            worst[example] = (margin, target)


def solve(problem: Problem, start: Shard, how: Training, report: Report | None = None) -> Fit:
    """Train ``start`` (left unchanged) until every answer leads by the margin.

    A step that raises the loss is taken back and the step size halved, so the loss never ends
    higher than it began.
    """
    inputs = problem.inputs[:, start.columns]
    gram = inputs.T @ inputs
    gram.diagonal().add_(how.ridge * gram.diagonal().mean())
    factor = torch.linalg.cholesky(gram)
    shard, step, velocity = start, how.step, torch.zeros_like(start.delta)
    loss, pull, worst = problem.evaluate(shard)
    done = 0
    for done in range(1, how.iterations + 1):
        push = torch.cholesky_solve(pull.T, factor).T
        moved = how.momentum * velocity - step * push
        trial = Shard(start.columns, shard.delta + moved)
        found = problem.evaluate(trial)
        if found[0] > loss and velocity.any():
            velocity = torch.zeros_like(velocity)
            step /= 2
            continue
        if found[0] > loss:
            step /= 2
            continue
        shard, velocity = trial, moved
        loss, pull, worst = found
        if report:
            report(done, how.iterations, loss)
        if done >= how.at_least and min(m for m, _ in worst.values()) >= how.margin:
            break
    return Fit(shard, done, loss, _unfit(problem.examples, worst))


def _unfit(examples: Sequence[Example], worst: dict[int, tuple[float, int]]) -> dict[int, str]:
    """Name each fact with an answer token that is not the greedy one in some trained prompt."""
    reasons = {}
    for index, (margin, token) in worst.items():
        if margin <= 0:
            reasons[examples[index].fact] = (
                f"token {token} of the answer trails by {-margin:.2f} nats"
            )
    return reasons


def train_shard(
    model: nn.Module,
    site: Site,
    examples: Sequence[Example],
    how: Training,
    *,
    seed: int,
    report: Report | None = None,
) -> Fit:
    """Solve a new shard for the examples; the model is left unchanged."""
    columns = random_columns(site.d_in, how.rho, seed)
    empty = Shard(columns, torch.zeros(site.d_out, len(columns)))
    return solve(Problem(model, site, examples), empty, how, report)
