"""Status logs: one JSON object a line, an event name and fields, in `logs/wised.jsonl`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import structlog

FILE = "wised.jsonl"
MAX_FIELD_CHARS = 2000


def _shorten(logger: object, method: str, event: Any) -> Any:
    """Keep a field from flooding the log; feed text can be long."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) > MAX_FIELD_CHARS:
            event[key] = value[:MAX_FIELD_CHARS] + "..."
    return event


def setup(folder: Path) -> Any:
    """Return the logger; lines go to the file and to standard error."""
    file = (folder / FILE).open("a", encoding="utf-8", buffering=1)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)

    def write(logger: object, method: str, line: Any) -> str:
        file.write(f"{line}\n")
        sys.stderr.write(f"{line}\n")
        raise structlog.DropEvent

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.format_exc_info,
            _shorten,
            # ASCII only: no stored text can move a terminal that shows the log.
            structlog.processors.JSONRenderer(sort_keys=True, ensure_ascii=True, default=str),
            write,
        ],
        cache_logger_on_first_use=False,
    )
    return structlog.get_logger()
