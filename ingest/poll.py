"""One poll of one source: fetch or read, parse, extract. Contains no schedule and no store."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from ingest import isolated, ladder, log
from ingest.extract import Extractor
from ingest.fetch import Limits, Response, fetch
from ingest.formats import AUTO
from ingest.types import LogPosition, Poll
from ingest.urls import base


def _lasting(last_modified: str | None, now: datetime) -> str | None:
    """Drop a Last-Modified far in the future: sent back, it would mean 304 until then."""
    try:
        moment = parsedate_to_datetime(last_modified or "")
        is_future = moment.timestamp() > (now + timedelta(hours=24)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return last_modified
    return None if is_future else last_modified


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
    allow_private: bool = False,
    limits: Limits | None = None,
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
        allow_private=allow_private,
        now=now,
    )
    if _is_unchanged(answer, etag):
        return Poll(
            etag=answer.etag or etag,
            last_modified=_lasting(answer.last_modified or last_modified, now),
            not_modified=True,
            retry_after=answer.retry_after,
            received_bytes=len(answer.body),
        )
    parsed = isolated.parse(answer.body, answer.content_type, now, base=base(answer.url))
    read = [ladder.item(entry, extractor) for entry in parsed.entries]
    return Poll(
        items=tuple(item for item, _ in read),
        dead=parsed.dead + tuple(letter for _, dead in read for letter in dead),
        etag=answer.etag,
        last_modified=_lasting(answer.last_modified, now),
        retry_after=answer.retry_after,
        received_bytes=len(answer.body),
    )


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
