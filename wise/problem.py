"""The captured examples of a shard: what any change of the edited matrix does to them.

The lower layers run once, at capture; every evaluation runs only the layers above, the head only
for the positions that produce answer tokens, and where no layer mixes positions above the edited
one, nothing but those.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from wise.activations import Activations, capture
from wise.facts import Example
from wise.positions import Positions, alone, chosen, narrowed, regrouped
from wise.precision import mixed_pays, products
from wise.shard import Shard
from wise.site import Site, device_of, values
from wise.spill import Spill
from wise.untouched import for_a_pass, untouched
from wise.upper import Tail, is_last, logits, require_writable, widen

ROWS = 1024  #: positions that go through the head at once; bounds the logits' memory
RIVALS = 4  #: tokens a position whose logits come nearest to its target's
SCATTER_FACTS = 256  #: facts that `Problem.scatter` looks at, at most twice as many
BUDGET_MB = 4096  #: of captured activations in memory; the rest is mapped from disk


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a change of the matrix does to the examples that were looked at.

    The *odds* of a token are log p / (1 - p), in nats: by how much its logit leads all others
    together. A token with odds above 0 is the greedy one.
    """

    odds: Tensor  #: (n,) of the target at each answer position looked at, float32 or float64
    lead: Tensor  #: (n,) nats by which the target's logit leads the best other one
    example: Tensor  #: (n,) index of the example of each
    target: Tensor  #: (n,) token
    pull: Tensor | None  #: S of `train`, (d_out, c)
    rivals: Tensor | None  #: (w,) targets and the tokens nearest to them; None: words were given

    @property
    def loss(self) -> float:
        """Mean cross entropy over the answer positions, nats; 0 when there are none."""
        return float(nn.functional.softplus(-self.odds).mean()) if len(self.odds) else 0.0

    def shortfall(self, aim: float) -> Tensor:
        """Return by how much each position's odds fall short of ``aim``, (n,), at least 0."""
        return (aim - self.odds).clamp(min=0)

    def objective(self, aim: float) -> float:
        """Return f of `train`: half the summed squares of the shortfall."""
        return float(self.shortfall(aim).double().square().sum()) / 2


class Problem:
    """Examples with everything below the layers above the edited matrix computed once."""

    def __init__(
        self,
        model: nn.Module,
        site: Site,
        examples: Sequence[Example],
        budget_mb: int = BUDGET_MB,
        *,
        mixed: bool | None = False,
    ) -> None:
        """Capture ``examples``; the model is left as it was.

        budget_mb: of captured activations in memory, MiB; mixed: see `precision`, None for
        where it pays. Raises
        UnsupportedModel where the edited matrix can't be written to (`upper`, `precision`).
        """
        self.model, self.site, self.examples = model, site, examples
        matrix = values(model, site)
        self.device, self._dtype = device_of(model.get_submodule(site.module)), matrix.dtype
        if mixed is None:
            mixed = mixed_pays(self._dtype, self.device)
        self._products = partial(products, mixed, self._dtype, self.device)
        self.scale = float(matrix.float().norm())  #: Frobenius norm of the edited matrix
        self._alone, self._tail = is_last(model, site), Tail(model, site)
        self._spill = Spill(budget_mb)
        sequences = [e.inputs for e in examples]
        if sequences:
            require_writable(model, self._tail, sequences[0])
        shared = [e.shared for e in examples]
        with self._products():
            parts = map(self._part, capture(model, site, sequences, shared))
            whole = regrouped(parts, ROWS) if self._alone else parts
            self._batches = [self._kept(part) for part in whole]

    @property
    def spilled(self) -> int:
        """Bytes of captured activations that are mapped from disk."""
        return self._spill.spilled

    def part(self, only: Tensor) -> Problem:
        """Return the problem of some examples, (examples,) bool; indices stay as they are."""
        part = copy.copy(self)
        taken = [narrowed(at, only.to(self.device)) for at in self._batches]
        taken = [at for at in taken if len(at.row)]
        part._batches = list(regrouped(taken, ROWS)) if self._alone else taken
        return part

    def _part(self, batch: Activations) -> Positions:
        made = [self.examples[index] for index in batch.rows]
        sizes = torch.tensor([len(e.answer) for e in made])
        starts = torch.tensor([len(e.prompt) - 1 - batch.start for e in made])
        row = torch.arange(len(made)).repeat_interleave(sizes)
        nth = torch.cat([torch.arange(size) for size in sizes.tolist()])
        place = starts[row] + nth
        target = torch.tensor([token for e in made for token in e.answer])
        example = torch.tensor(batch.rows)[row]
        index = [t.to(self.device) for t in (row, place, target, example, nth)]
        row, place, target, example, nth = index
        beside = self._tail.beside(batch.outputs, batch.hidden)
        states = batch.hidden if beside is None else batch.outputs
        inputs = batch.inputs[row, place]
        if self._alone:
            return alone(Positions(states, beside, row, place, inputs, target, example, nth))
        states, beside = self._with_context(batch, states, beside)
        place = place + batch.start
        first = int(place.min())
        before = None if beside is None else beside[:, :first]
        seen = self._tail(states[:, :first], before).to(self._dtype)
        cache = untouched(self.model, self._tail, seen, self._spill)
        if cache is not None:
            states, beside = states[:, first:], None if beside is None else beside[:, first:]
            place = place - first
        return Positions(states, beside, row, place, inputs, target, example, nth, cache)

    def _with_context(
        self, batch: Activations, states: Tensor, beside: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Put the shared context's stream before each row: the layers above attend to it."""
        context = batch.context.expand(len(states), -1, -1)
        if beside is None:
            return torch.cat([context, states], 1), None
        # Where outputs are normed, an output of 0 adds norm(0) = 0 to the stream as it was.
        return torch.cat([torch.zeros_like(context), states], 1), torch.cat([context, beside], 1)

    def _kept(self, at: Positions) -> Positions:
        keep = self._spill.keep
        beside = None if at.beside is None else keep(at.beside)
        return replace(at, states=keep(at.states), inputs=keep(at.inputs), beside=beside)

    def _ready(self, at: Positions) -> Positions:
        """Bring what was spilled to the device, and half precision to float32 where it is added."""
        beside = None if at.beside is None else widen(at.beside.to(self.device))
        states, inputs = widen(at.states.to(self.device)), at.inputs.to(self.device)
        if inputs.dtype == self._dtype:  # else it is for products in mixed precision
            inputs = widen(inputs)
        cache = None if at.cache is None else for_a_pass(at.cache, None, self.device)
        return replace(at, states=states, inputs=inputs, beside=beside, cache=cache)

    @property
    def keys(self) -> Tensor:
        """Inputs of the edited matrix at each example's last prompt token, (examples, d_in)."""
        keys = torch.empty(len(self.examples), self.site.d_in)
        for at in self._batches:
            keys[at.example[at.is_key].cpu()] = (
                at.inputs[at.is_key.to(at.inputs.device)].float().cpu()
            )
        return keys

    def gram(self, columns: Tensor) -> Tensor:
        """Return A^T A of the inputs at all answer positions, restricted to columns, (c, c).

        In float32 as shards are, whatever the model's type.
        """
        count = len(columns)
        total = torch.zeros(count, count, device=self.device)
        for at in self._batches:
            part = at.inputs.to(self.device)[:, columns].float()
            total += part.T @ part
        return total

    def scatter(self, columns: Tensor) -> Tensor:
        """Return how the inputs at one answer token of one fact differ, (c, c) float32.

        The sum over all answer positions of (a - m)^T (a - m), m being the mean input at that
        token of that fact over its phrasings and contexts; of many facts only a part is looked
        at, and the sum is scaled to all positions.
        """
        count = len(columns)
        if not self._batches:
            return torch.zeros(count, count, device=self.device)
        place = self._sampled()
        means, sizes = self._means(columns, place)
        total = torch.zeros(count, count, device=self.device)
        for rows, group in self._grouped(columns, place):
            apart = rows - means[group]
            total += apart.T @ apart
        return total * (sum(len(at.row) for at in self._batches) / float(sizes.sum()))

    def fact_inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean input at each answer token of each fact, whose it is, and the token.

        (n, d_in) float32 over the fact's phrasings and contexts; (n,) the fact's place among all,
        in the order of the examples; (n,) the token that is produced there. All on the CPU.
        """
        none = torch.zeros(0, dtype=torch.long)
        if not self._batches:
            return torch.zeros(0, self.site.d_in), none, none
        order = dict.fromkeys(e.fact for e in self.examples)
        places = {fact: place for place, fact in enumerate(order)}
        place = torch.tensor([places[e.fact] for e in self.examples], device=self.device)
        means, sizes = self._means(torch.arange(self.site.d_in, device=self.device), place)
        token = torch.zeros(len(sizes), dtype=torch.long, device=self.device)
        for at in self._batches:
            token[place[at.example] * self._tokens + at.nth] = at.target
        fact = torch.arange(len(order)).repeat_interleave(self._tokens)
        there = (sizes > 0).cpu()
        return means.cpu()[there], fact[there], token.cpu()[there]

    def _means(self, columns: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean input at each token of each fact, (g, c), and of how many, (g,)."""
        sums = torch.zeros((int(place.max()) + 1) * self._tokens, len(columns), device=self.device)
        sizes = torch.zeros(len(sums), device=self.device)
        for rows, group in self._grouped(columns, place):
            sums.index_add_(0, group, rows)
            sizes += group.bincount(minlength=len(sizes))
        return sums / sizes.clamp(min=1)[:, None], sizes

    @property
    def _tokens(self) -> int:
        """How many tokens the longest answer has."""
        return 1 + max(int(at.nth.max()) for at in self._batches)

    def _sampled(self) -> Tensor:
        """Return each example's place among the facts that are looked at, (examples,); -1: not."""
        held = {self.examples[i].fact for at in self._batches for i in at.example.tolist()}
        facts = sorted(held)[:: max(1, len(held) // SCATTER_FACTS)]
        place = {fact: index for index, fact in enumerate(facts)}
        return torch.tensor([place.get(e.fact, -1) for e in self.examples], device=self.device)

    def _grouped(self, columns: Tensor, place: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs, (n, c), and which token of which fact each produces, (n,)."""
        tokens = self._tokens
        for at in self._batches:
            there = place[at.example]
            some = there >= 0
            rows = at.inputs.to(self.device)[some][:, columns].float()
            yield rows, there[some] * tokens + at.nth[some]

    def judge(
        self,
        shard: Shard,
        aim: float = 0.0,
        *,
        pull: bool = True,
        few: bool = False,
        words: Tensor | None = None,
    ) -> Judgement:
        """Judge a change of the matrix.

        aim: nats that the odds are pulled to (see `train`); few: expect few positions to fall
        short of it, so that going forward twice for those costs less than going back for all;
        words: (w,) sorted tokens that logits are compared with, all targets among them; None for
        the vocabulary.
        """
        few = few and self._alone  # elsewhere a position's gradient needs its whole sequence
        odds, leads, rivals = [], [], []
        # NOTE: the whole matrix, since taking columns out of all inputs costs more than it saves
        dense = shard.dense(self.site.d_in)
        total = torch.zeros_like(dense) if pull else None
        for at in map(self._ready, self._batches):
            direct = total is not None and not few
            seen, push = self._compared(at, dense, aim, words, pull=direct)
            if total is not None and few:
                short = seen.odds < aim
                if bool(short.any()):
                    some = chosen(at, short)
                    _, push = self._compared(some, dense, aim, words, pull=True)
            if total is not None and push is not None:
                total += push
            odds.append(seen.odds)
            leads.append(seen.lead)
            rivals.append(seen.rivals)
        target = _joined([at.target for at in self._batches])
        return Judgement(
            _joined(odds),
            _joined(leads),
            _joined([at.example for at in self._batches]),
            target,
            None if total is None else total[:, shard.columns],
            None if words is not None else _joined([*rivals, target]).unique(),
        )

    def _compared(
        self, at: Positions, dense: Tensor, aim: float, words: Tensor | None, *, pull: bool
    ) -> tuple[_Compared, Tensor | None]:
        """Return the logits of one batch, compared, and its part of S, (d_out, d_in)."""
        states = self._states(at)
        states = states + at.inputs.to(states) @ dense.to(states).T
        with self._products():
            states.requires_grad_(pull)
            with torch.set_grad_enabled(pull):
                out = self._logits(at, states, words)
            seen = _compare(out.detach(), _index(at.target, words), words is None)
            if not pull:
                return seen, None
            (slope,) = torch.autograd.grad(out, states, seen.slope(aim))
            size = states.detach().square().sum(1, keepdim=True)
            return seen, (size * slope).T @ at.inputs.to(slope)

    def _states(self, at: Positions) -> Tensor:
        """Return what the change is added to at the answer positions, (n, d_out)."""
        return at.states.squeeze(1) if self._alone else at.states[at.row, at.place]

    def _logits(self, at: Positions, changed: Tensor, words: Tensor | None) -> Tensor:
        """Return the logits at the answer positions, (n, w)."""
        if self._alone:  # no gathering: an index's gradient would cost as much as the head's
            states, where = changed.unsqueeze(1), None
        else:
            states = at.states.index_put((at.row, at.place), changed)
            where = (at.row, at.place)
        states = self._tail(states, at.beside).to(self._dtype)
        return logits(self.model, self._tail, states, where, words, at.cache)


@dataclass(frozen=True, slots=True)
class _Compared:
    """Logits of one batch beside those of their targets."""

    odds: Tensor  #: (n,)
    lead: Tensor  #: (n,)
    rivals: Tensor  #: (m,) tokens whose logits are highest, targets left out
    target: Tensor  #: (n,) column of each position's target
    others: Tensor  #: (n, w) logits, -inf at the target
    level: Tensor  #: (n,) logarithm of the others' summed exponentials

    def slope(self, aim: float) -> Tensor:
        """Return the gradient of half the summed squared shortfall in the logits, (n, w).

        By its formula: autograd would fill a matrix of this size for each step in between.
        """
        short = (aim - self.odds).clamp(min=0)[:, None]
        found = (self.others - self.level[:, None]).exp_().mul_(short)
        return found.scatter_(1, self.target[:, None], -short)


def _compare(out: Tensor, target: Tensor, near: bool) -> _Compared:
    """Compare logits, (n, w), with those of their targets; ``near``: several rivals each."""
    own = out.gather(1, target[:, None])[:, 0]
    others = out.scatter(1, target[:, None], float("-inf"))
    level = others.logsumexp(1)
    best = others.topk(min(RIVALS, others.shape[1]) if near else 1, dim=1)
    rivals = best.indices.flatten()
    return _Compared(own - level, own - best.values[:, 0], rivals, target, others, level)


def _index(target: Tensor, words: Tensor | None) -> Tensor:
    return target if words is None else torch.searchsorted(words, target)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0)
