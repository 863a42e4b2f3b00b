"""What a worker does with a request: embed, ask, build."""

from __future__ import annotations

import base64
import contextlib
import errno
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError

from daemon import config as configuration
from daemon.errors import UsageError, WisedError
from daemon.messages import (
    AT_WORK,
    Answers,
    Ask,
    Embed,
    Embedded,
    Envelope,
    Failed,
    Read,
    ReadText,
    Reply,
    Request,
    Said,
)
from daemon.render import safe_text
from daemon.secrets import without_secrets
from daemon.worker import faults, libraries
from daemon.worker.build import build
from daemon.worker.session import MAX_ANSWER_TOKENS, Report, Session
from wise.errors import WiseError

#: errors of a disk that is full, for all or for this user, or broken
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


def last_words(error: BaseException) -> str:
    """Return an error's traceback for the worker's log: no secrets, nothing that steers a terminal.

    Its message may quote what a feed has written.
    """
    told = "".join(traceback.format_exception(error))
    return safe_text(without_secrets(told), multiline=True)


class Server:
    """A session and the replies that it gives."""

    def __init__(self, config: Path, report: Report) -> None:
        settings = configuration.load(config)
        libraries.settle(settings.log.level)
        self._session = Session(settings, report)

    def reply(self, line: str) -> Reply:
        """Return the reply to one line; a failure is a reply too.

        After an error that is none of ours, running out of memory say, no one knows what state
        the libraries are in: that reply is the worker's last, and the daemon starts another.
        """
        try:
            return self._serve(Envelope.model_validate_json(line).request)
        except (WisedError, WiseError) as error:
            return _failed(error, is_last=False)
        except Exception as error:
            with contextlib.suppress(OSError):  # its log may lie on the disk that is full
                sys.stderr.write(last_words(error))
            return _failed(error, is_last=True)

    def _serve(self, request: Request) -> Reply:
        if isinstance(request, Embed):
            return embed(self._session, request)
        if isinstance(request, Read):
            return _read(self._session, request)
        if isinstance(request, Ask):
            return ask(self._session, request)
        return build(self._session, request)


def _failed(error: Exception, *, is_last: bool) -> Failed:
    hint = getattr(error, "hint", "")
    return Failed(
        error=type(error).__name__,
        message=str(error),
        hint=hint,
        is_last=is_last,
        disk_failed=_is_of_disk(error),
    )


def _is_of_disk(error: BaseException | None) -> bool:
    """Tell whether an error comes of a disk that is full or broken."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            return True
        # NOTE: what it writes with is in Rust, and says the system's error in words only.
        if isinstance(error, SafetensorError) and _is_told_of_disk(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_told_of_disk(words: str) -> bool:
    return any(f"(os error {number})" in words for number in DISK_ERRORS)


def embed(session: Session, request: Embed) -> Embedded:
    """Return the texts' vectors."""
    embedder = session.embedder
    session.report(AT_WORK, 0, 1)
    faults.strike(request.texts)
    vectors = embedder.encode(
        list(request.texts),
        batch_size=64,
        normalize_embeddings=True,
        convert_to_numpy=True,
        show_progress_bar=False,
    ).astype("<f4")
    text = base64.b64encode(vectors.tobytes()).decode("ascii")
    return Embedded(width=vectors.shape[1], vectors=text)


def ask(session: Session, request: Ask) -> Answers:
    """Return the answers of a release, or of the bare model."""
    prompts, tokens = list(request.prompts), request.max_new_tokens or MAX_ANSWER_TOKENS
    release = None if request.release is None else session.load(request.release)
    session.begin(prompts)
    bare: Sequence[str | None] = [None] * len(prompts)
    if release is None or request.beside_bare:
        bare = session.bare(prompts, tokens)
    if release is None:
        return Answers(answers=tuple(Said(text=text or "") for text in bare))
    with session.attached(release) as memory:
        said = session.ask(prompts, memory, "asking", tokens)
    return Answers(
        answers=tuple(
            Said(
                text=answer.text,
                bare=unedited,
                fact=None if answer.fact is None else release.fact_ids[answer.fact],
                cosine=None if release.threshold is None else answer.cosine,
                threshold=release.threshold,
                routed=answer.routed,
            )
            for answer, unedited in zip(said, bare, strict=True)
        )
    )


def _read(session: Session, request: Read) -> ReadText:
    try:
        return session.reader.read(request)
    except UsageError as error:  # no text's fault: the reader is not one that can be used
        return ReadText(code="reader.unusable", message=str(error), hint=error.hint)
