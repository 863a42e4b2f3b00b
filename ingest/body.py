"""Reading a response's body under caps, compressed or not. Contains no sockets."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from ingest.errors import FetchError

#: what one step of decompression may yield; a bomb costs at most this beyond the cap
_STEP_BYTES = 64 * 1024
#: from so many bytes on the ratio counts: a short feed may well repeat itself
_RATIO_FROM_BYTES = 1024 * 1024
#: zlib's window argument for a gzip header
_GZIP = 31


def _too_large(what: str, limit: int) -> FetchError:
    return FetchError("fetch.too_large", f"the {what} body is over {limit} bytes")


def _capped(chunks: Iterable[bytes], limit: int, what: str) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise _too_large(what, limit)
        yield chunk


class _Counted:
    """Chunks, and how many bytes they were so far."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.bytes += len(chunk)
            yield chunk


def _in_proportion(chunks: Iterable[bytes], raw: _Counted, ratio: int) -> Iterator[bytes]:
    """Pass on what `raw` inflates to; raise FetchError when that is out of all proportion."""
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > max(_RATIO_FROM_BYTES, ratio * raw.bytes):
            raise FetchError("fetch.bomb", f"the gzip body inflates to over {ratio} times its size")
        yield chunk


def _inflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Inflate the members of a gzip stream in small steps; raise FetchError when it is cut."""
    inflater = zlib.decompressobj(_GZIP)
    for chunk in chunks:
        pending = chunk
        while pending:
            if inflater.eof:
                pending = pending.lstrip(b"\0")  # padding between members is legal
                inflater = zlib.decompressobj(_GZIP) if pending else inflater
            yield inflater.decompress(pending, _STEP_BYTES)
            pending = inflater.unconsumed_tail or (inflater.unused_data if pending else b"")
    # Input can be used up while output still waits behind the step's limit.
    while not inflater.eof and (rest := inflater.decompress(b"", _STEP_BYTES)):
        yield rest
    if not inflater.eof:
        raise FetchError("fetch.bad_encoding", "the gzip body is cut short")


def read(
    chunks: Iterable[bytes], encoding: str, raw_limit: int, decoded_limit: int, ratio: int
) -> bytes:
    """Return the decoded body.

    Raises FetchError ``fetch.too_large`` beyond either limit (bytes), ``fetch.bomb`` when it
    inflates to over `ratio` times what was received, and ``fetch.bad_encoding`` for a content
    encoding that we did not ask for or that does not decode.
    """
    raw = _Counted(_capped(chunks, raw_limit, "received"))
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return b"".join(_capped(raw, decoded_limit, "decoded"))
    if name not in ("gzip", "x-gzip"):
        raise FetchError("fetch.bad_encoding", f"the content encoding {name[:40]!r} is not gzip")
    try:
        inflated = _in_proportion(_inflated(raw), raw, ratio)
        return b"".join(_capped(inflated, decoded_limit, "decoded"))
    except zlib.error as error:
        raise FetchError(
            "fetch.bad_encoding", f"the gzip body does not decode ({error})"
        ) from error
