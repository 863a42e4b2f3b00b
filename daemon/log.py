"""Status logs: one JSON object a line, an event name and fields, in `logs/wised.jsonl`.

Records of libraries pass the same chain as our own. On a terminal, standard error shows them for
a person; elsewhere it has the same lines as the file.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import sys
from pathlib import Path
from typing import IO, Any

import structlog
from structlog.stdlib import ProcessorFormatter

from daemon import log_chain
from daemon.config import Log
from daemon.log_chain import Processor

FILE = "wised.jsonl"
NAME = "wised"
#: loggers that say at INFO what our own records say better, or that put whole URLs in them
QUIET = ("apscheduler", "httpx2", "httpcore2", "transformers", "sentence_transformers")


class _File(logging.handlers.RotatingFileHandler):
    """The log on disk: rotated by size, for its owner alone; a full disk never stops the work."""

    def _open(self) -> Any:
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(handle, "a", encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line: what matters later is in the audit log."""

    def close(self) -> None:
        """Close the file, whether or not its last line still fits on the disk."""
        with contextlib.suppress(OSError):
            super().close()


class _Stream(logging.StreamHandler[Any]):
    """Standard error; a reader that has gone away never stops the work."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line."""


def _shared() -> list[Any]:
    """Return what every record passes first, ours and those of libraries."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]


def _formatter(render: Processor) -> logging.Formatter:
    return ProcessorFormatter(
        foreign_pre_chain=[log_chain.of_a_library, *_shared()],
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            log_chain.harmless,
            log_chain.in_order,
            render,
        ],
        keep_exc_info=False,
    )


def _rendered_for(stream: IO[str]) -> Processor:
    return log_chain.readable_line if stream.isatty() else log_chain.json_line


def setup(folder: Path, settings: Log | None = None) -> Any:
    """Return the logger; lines go to the file in ``folder`` and to standard error.

    Setting up again closes what was set up before; so does `close`.
    """
    settings = settings or Log()
    file = _File(
        folder / FILE,
        maxBytes=int(settings.file_max_mb * 1_000_000),
        backupCount=settings.keep_files,
        encoding="utf-8",
        delay=True,
    )
    file.setFormatter(_formatter(log_chain.json_line))
    return _begin([file, _standard_error()], settings.level)


def to_standard_error(level: str = "info") -> Any:
    """Return a logger that writes to standard error alone: the worker's."""
    return _begin([_standard_error()], level)


def _standard_error() -> logging.Handler:
    shown = _Stream(sys.stderr)
    shown.setFormatter(_formatter(_rendered_for(sys.stderr)))
    return shown


def _begin(handlers: list[logging.Handler], level: str) -> Any:
    close()
    root = logging.getLogger()
    for handler in handlers:
        root.addHandler(handler)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(NAME).setLevel(level.upper())
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return structlog.stdlib.get_logger(NAME)


def close() -> None:
    """Take away what `setup` put in place, and close the file."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, (_File, _Stream))]:
        root.removeHandler(handler)
        handler.close()
    logging.captureWarnings(False)
