"""One poll of one source: fetch or read, parse, extract. Contains no schedule and no store."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from ingest import feed, isolated, ladder, log
from ingest.entries import Parsed
from ingest.errors import FeedError
from ingest.extract import Extractor
from ingest.fetch import Limits, Response, fetch
from ingest.formats import AUTO
from ingest.lines import HEAD_BYTES, open_plain, wrapped
from ingest.networks import NONE, Allowed
from ingest.types import DeadLetter, Item, LogPosition, Poll
from ingest.urls import base


def _is_future(last_modified: str, now: datetime) -> bool:
    try:
        moment = parsedate_to_datetime(last_modified)
        return moment.timestamp() > (now + timedelta(hours=24)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return False


def _lasting(
    etag: str | None, last_modified: str | None, now: datetime
) -> tuple[str | None, str | None]:
    """Return the validators to send back; none where Last-Modified is far in the future.

    Sent back, it would mean 304 until then, and a server with such a clock is not believed.
    """
    if last_modified is not None and _is_future(last_modified, now):
        return None, None
    return etag, last_modified


def _is_unchanged(answer: Response, etag: str | None) -> bool:
    """Tell whether nothing is new: 304, or the same strong ETag with the body sent anyway."""
    is_strong = etag is not None and not etag.startswith("W/")
    return answer.not_modified or (is_strong and answer.etag == etag)


def poll_feed(
    url: str,
    *,
    etag: str | None,
    last_modified: str | None,
    extractor: Extractor,
    now: datetime,
    allowed: Allowed = NONE,
    limits: Limits | None = None,
    ca_file: str | None = None,
) -> Poll:
    """Return what a feed brings that is new since the validators were given.

    An entry without any fact is an item without candidates. The new validators belong into the
    same transaction as the items. Raises FetchError and FeedError.
    """
    answer = fetch(
        url,
        etag=etag,
        last_modified=last_modified,
        limits=limits,
        allowed=allowed,
        ca_file=ca_file,
        now=now,
    )
    if _is_unchanged(answer, etag):
        etag, last_modified = _lasting(
            answer.etag or etag, answer.last_modified or last_modified, now
        )
        return Poll(
            etag=etag,
            last_modified=last_modified,
            not_modified=True,
            retry_after=answer.retry_after,
            received_bytes=len(answer.body),
            moved_to=answer.moved_to,
        )
    parsed = isolated.parse(answer.body, answer.content_type, now, base=base(answer.url))
    items, dead = _read(parsed, extractor)
    etag, last_modified = _lasting(answer.etag, answer.last_modified, now)
    return Poll(
        items=items,
        dead=dead,
        etag=etag,
        last_modified=last_modified,
        retry_after=answer.retry_after,
        received_bytes=len(answer.body),
        moved_to=answer.moved_to,
    )


def _read(parsed: Parsed, extractor: Extractor) -> tuple[tuple[Item, ...], tuple[DeadLetter, ...]]:
    read = [ladder.item(entry, extractor) for entry in parsed.entries]
    dead = tuple(letter for _, letters in read for letter in letters)
    return tuple(item for item, _ in read), parsed.dead + dead


def poll_document(path: Path, extractor: Extractor, now: datetime) -> Poll | None:
    """Return what a feed document in a file would bring; None where the file is something else.

    Raises FeedError for one that cannot be used, LogError for what is not a plain file.
    """
    limit = Limits().decoded_bytes
    with wrapped(path), open_plain(path) as file:
        if not feed.looks_like_one(file.read(HEAD_BYTES)):
            return None
        file.seek(0)
        body = file.read(limit + 1)
    if len(body) > limit:
        raise FeedError("feed.too_large", f"{path} is over {limit} bytes")
    items, dead = _read(isolated.parse(body, None, now), extractor)
    return Poll(items=items, dead=dead)


def poll_log(
    path: Path | str,
    position: LogPosition | None,
    extractor: Extractor,
    max_rows: int = 500,
    now: datetime | None = None,
    format: str = AUTO,
) -> Poll:
    """Return the next rows of a correction log, as `ingest.log.read` does. Raises LogError."""
    return log.read(path, position, extractor, max_rows, now, format)
