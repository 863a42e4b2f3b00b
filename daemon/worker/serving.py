"""What a worker does with a request: embed, ask, build."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Sequence
from pathlib import Path

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
from daemon.worker import faults, libraries
from daemon.worker.build import build
from daemon.worker.session import MAX_ANSWER_TOKENS, Report, Session
from wise.errors import WiseError


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
            traceback.print_exc()  # into the worker's log
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
    return Failed(error=type(error).__name__, message=str(error), hint=hint, is_last=is_last)


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
