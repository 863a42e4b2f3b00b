"""Reading free text with a local language model that can only write what the text has."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from daemon.errors import UsageError
from daemon.messages import Read, ReadText

if TYPE_CHECKING:
    from daemon.worker.spelling import Form

#: an answer takes no more beyond the facts that are expected of it
BUDGET_BYTES_A_FACT = 160
#: fewer tokens hold no fact
_LEAST_TOKENS = 64


@dataclass
class LocalReader:
    """A language model and what its tokenizer can write, kept between requests."""

    model: Any
    tokenizer: Any

    @cached_property
    def _data(self) -> Any:
        from daemon.worker.tokens import tokenizer_data

        return tokenizer_data(self.tokenizer)

    @cached_property
    def _writable(self) -> frozenset[str]:
        from daemon.worker.tokens import writable

        return writable(self.tokenizer)

    def read(self, request: Read) -> ReadText:
        """Return a whole answer of the form, or why this text has none."""
        from daemon.worker.spelling import Form, Spans

        prompt = self._prompt(request.prompt)
        room = self._max_tokens - len(prompt)
        spans = Spans(request.sentences, self._writable)
        form = Form(spans, request.relations, request.max_facts, 0)
        wanted = BUDGET_BYTES_A_FACT * request.max_facts
        budget = min(wanted, room - form.longest_answer)
        if budget < _LEAST_TOKENS:
            need = len(prompt) + form.longest_answer + _LEAST_TOKENS
            what = f"prompt and answer may take {need} tokens, the model {self._max_tokens}"
            return ReadText(code="reader.too_long", message=what)
        return self._answered(
            prompt, Form(spans, request.relations, request.max_facts, budget), request
        )

    @property
    def _max_tokens(self) -> int:
        return int(getattr(self.model.config, "max_position_embeddings", 2048))

    def _prompt(self, text: str) -> list[int]:
        """Return the prompt's tokens; what looks like a control token in it is none."""
        text = defused(text, (*self.tokenizer.all_special_tokens, *self._added))
        if self.tokenizer.chat_template is None:
            return list(self.tokenizer(f"{text}Answer: ")["input_ids"])
        message = [{"role": "user", "content": text}]
        chat = self.tokenizer.apply_chat_template(
            message, add_generation_prompt=True, tokenize=False
        )
        return list(self.tokenizer(chat, add_special_tokens=False)["input_ids"])

    @property
    def _added(self) -> list[str]:
        return [str(token) for token in self.tokenizer.added_tokens_decoder.values()]

    @torch.no_grad()
    def _answered(self, prompt: list[int], form: Form, request: Read) -> ReadText:
        """Write the likeliest allowed token, one after another, until the answer is whole."""
        from lmformatenforcer import TokenEnforcer

        from daemon.worker.spelling import Spelling, as_text

        enforcer = TokenEnforcer(self._data, Spelling(form))
        deadline = time.monotonic() + request.timeout_seconds
        written: list[int] = []
        cache, unseen = None, prompt  # tokens that the model has not seen yet
        while True:
            if time.monotonic() > deadline:
                what = f"no whole answer within {request.timeout_seconds:g} s"
                return ReadText(code="reader.timeout", message=what)
            allowed = enforcer.get_allowed_tokens(written).allowed_tokens
            if self.tokenizer.eos_token_id in allowed:
                break
            if len(allowed) > 1:  # where there is no choice, the model need not be asked
                ids = torch.tensor([unseen], device=self.model.device)
                out = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
                cache, unseen, scores = out.past_key_values, [], out.logits[0, -1]
                best = scores[torch.tensor(allowed, device=scores.device)].argmax()
                allowed = [allowed[int(best)]]
            written += allowed
            unseen = unseen + allowed
        spelled = "".join(self._data.tokenizer_tree.tokens_to_strs[token] for token in written)
        return ReadText(text=as_text(spelled))


def defused(text: str, control: tuple[str, ...]) -> str:
    """Return a text with a space inside whatever its tokenizer takes for a control token."""
    for token in sorted(filter(None, control), key=len, reverse=True):
        if len(token) > 1:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def checked_library() -> None:
    """Raise UsageError when lm-format-enforcer is not installed."""
    if importlib.util.find_spec("lmformatenforcer") is None:
        raise UsageError(
            '[extraction] reader = "local" needs lm-format-enforcer',
            hint="install it: pip install 'wised[reader]'",
        )
