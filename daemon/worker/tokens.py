"""The bytes that a tokenizer's tokens stand for, as lm-format-enforcer takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from daemon.errors import UsageError
from daemon.worker.spelling import as_bytes

if TYPE_CHECKING:
    from lmformatenforcer import TokenEnforcerTokenizerData

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\u2581"  #: how SentencePiece writes a space


def tokenizer_data(tokenizer: Any) -> TokenEnforcerTokenizerData:
    """Return a tokenizer's ordinary tokens with their bytes, each byte a character.

    Raises UsageError for a tokenizer whose tokens do not simply follow each other in a text.
    """
    from lmformatenforcer import TokenEnforcerTokenizerData

    # Each counts as a word's start: what it stands for does not depend on those before it.
    tokens = [(number, spelled, True) for number, spelled in _ordinary(tokenizer) if spelled]
    return TokenEnforcerTokenizerData(tokens, _never, tokenizer.eos_token_id, False, len(tokenizer))


def writable(tokenizer: Any) -> frozenset[str]:
    """Return the bytes, as characters, that have a token of their own."""
    return frozenset(spelled for _, spelled in _ordinary(tokenizer) if len(spelled) == 1)


def _never(tokens: list[int]) -> str:
    raise AssertionError("each token starts a word, so none is decoded beside others")


def _ordinary(tokenizer: Any) -> Iterator[tuple[int, str]]:
    """Yield the tokens that stand for text."""
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    spell = _speller(tokenizer)
    for number, token in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
        if number not in special and token is not None:
            spelled = spell(token)
            if spelled is not None:
                yield number, spelled


def _speller(tokenizer: Any) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = json.loads(backend.to_str()).get("decoder") if backend is not None else None
    kinds = {one.get("type") for one in _parts(decoder)}
    if "ByteLevel" in kinds:
        return _ByteLevel()
    if "ByteFallback" in kinds or "Metaspace" in kinds:
        return _pieces
    raise UsageError(
        "[extraction] model: its tokenizer is neither byte-level nor SentencePiece's",
        hint='take another model, or reader = "endpoint"',
    )


def _parts(decoder: Any) -> list[dict[str, Any]]:
    if not isinstance(decoder, dict):
        return []
    return (
        [part for one in decoder["decoders"] for part in _parts(one)]
        if ("decoders" in decoder)
        else [decoder]
    )


def _pieces(token: str) -> str | None:
    """Return the bytes of a SentencePiece token."""
    if byte := _BYTE.fullmatch(token):
        return chr(int(byte[1], 16))
    return as_bytes(token.replace(_SPACE, " "))


class _ByteLevel:
    """GPT-2's way to write bytes as letters: printable ones stand for themselves."""

    def __init__(self) -> None:
        shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        hidden = [byte for byte in range(0x100) if byte not in shown]
        self._byte_of = {chr(byte): chr(byte) for byte in shown}
        self._byte_of |= {chr(0x100 + place): chr(byte) for place, byte in enumerate(hidden)}

    def __call__(self, token: str) -> str | None:
        """Return a token's bytes; None for one that is not written so."""
        spelled = [self._byte_of.get(char) for char in token]
        return None if None in spelled else "".join(filter(None, spelled))
