"""Reading a response's body under caps, compressed or not. Contains no sockets."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from ingest.errors import FetchError

#: what one step of decompression may yield; a bomb costs at most this beyond the cap
_STEP_BYTES = 64 * 1024
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


def read(chunks: Iterable[bytes], encoding: str, raw_limit: int, decoded_limit: int) -> bytes:
    """Return the decoded body.

    Raises FetchError ``fetch.too_large`` beyond either limit (bytes), and ``fetch.bad_encoding``
    for a content encoding that we did not ask for or that does not decode.
    """
    raw = _capped(chunks, raw_limit, "received")
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return b"".join(_capped(raw, decoded_limit, "decoded"))
    if name not in ("gzip", "x-gzip"):
        raise FetchError("fetch.bad_encoding", f"the content encoding {name[:40]!r} is not gzip")
    try:
        return b"".join(_capped(_inflated(raw), decoded_limit, "decoded"))
    except zlib.error as error:
        raise FetchError(
            "fetch.bad_encoding", f"the gzip body does not decode ({error})"
        ) from error
