"""What a failed command says and the exit code it ends with."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import typer

from daemon.errors import IntegrityError, WisedError
from daemon.render import note, safe_json
from ingest import IngestError
from wise.errors import BadArtifact, WiseError

INTERRUPTED = 130  #: 128 + SIGINT, as shells have it
OUTPUT_CLOSED = 1  #: as typer has it when the reader goes away before the command ends
_SUFFIX = re.compile(r"_error$")


@dataclass(frozen=True, slots=True)
class Failure:
    """An expected error, as it is told."""

    code: str  #: stable: ``not_found``, ``worker.died``, ``fetch.gone``
    message: str
    hint: str  #: what the operator can do; may be empty
    exit: int


def report(error: Exception, arguments: Sequence[str]) -> int:
    """Write an expected error to standard error and return its exit code; raise any other."""
    failure = _failure(error)
    if failure is None:
        raise error
    from daemon.secrets import without_secrets  # few commands fail

    # An argument that is repeated may be a URL with a password in it.
    failure = replace(failure, message=without_secrets(failure.message))
    if _wants_json(arguments):
        document = {
            "code": failure.code,
            "message": failure.message,
            "hint": failure.hint,
            "exit": failure.exit,
        }
        sys.stderr.write(safe_json({"error": document}, indent=None) + "\n")
        return failure.exit
    note(f"Error: {failure.message}")
    if failure.hint:
        note(f"Try: {failure.hint}")
    return failure.exit


def _wants_json(arguments: Sequence[str]) -> bool:
    words = list(arguments)
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _failure(error: Exception) -> Failure | None:
    """Return what to tell of an expected error; None for a bug."""
    if isinstance(error, WisedError):
        code = getattr(error, "code", "") or _code(error)
        return Failure(code, str(error), error.hint, error.exit_code)
    if isinstance(error, WiseError):
        status = IntegrityError.exit_code if isinstance(error, BadArtifact) else 1
        return Failure(_code(error), str(error), error.hint, status)
    if isinstance(error, IngestError):
        return Failure(error.code, error.message, error.hint or "", 1)
    if isinstance(error, typer.TyperException):
        return Failure("usage", error.format_message(), _usage_hint(error), error.exit_code)
    if isinstance(error, typer.Abort):
        return Failure("interrupted", "interrupted", "", INTERRUPTED)
    return _foreign(error)


def _foreign(error: Exception) -> Failure | None:
    if isinstance(error, sqlite3.OperationalError):
        return Failure("database", f"the database: {error}", "try again; is the disk full?", 1)
    if isinstance(error, sqlite3.DatabaseError):
        hint = "restore a backup made by wised db backup"
        return Failure("integrity", f"the database: {error}", hint, IntegrityError.exit_code)
    if isinstance(error, OSError):
        return Failure("os", str(error), "", 1)
    return None


def _code(error: Exception) -> str:
    """Return the error's class as a stable code: ``NotFound`` is ``not_found``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()
    return _SUFFIX.sub("", words)


def _usage_hint(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context is not None else "wised --help"
