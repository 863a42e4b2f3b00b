"""Serve the daemon's requests, a JSON line each, until standard input ends."""

from __future__ import annotations

import base64
import os
import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from daemon import config as configuration
from daemon.messages import (
    Answers,
    Ask,
    Build,
    Built,
    Embed,
    Embedded,
    Envelope,
    Failed,
    Progress,
    Reply,
    ReplyLine,
    Said,
)
from daemon.worker import libraries
from daemon.worker.session import MAX_ANSWER_TOKENS, Session


def _embed(session: Session, request: Embed) -> Embedded:
    vectors = session.embedder.encode(
        list(request.texts),
        batch_size=64,
        normalize_embeddings=True,
        convert_to_numpy=True,
        show_progress_bar=False,
    ).astype("<f4")
    text = base64.b64encode(vectors.tobytes()).decode("ascii")
    return Embedded(width=vectors.shape[1], vectors=text)


def _ask(session: Session, request: Ask) -> Answers:
    prompts, tokens = list(request.prompts), request.max_new_tokens or MAX_ANSWER_TOKENS
    bare: Sequence[str | None] = [None] * len(prompts)
    if request.release is None or request.beside_bare:
        bare = session.bare(prompts, tokens)
    if request.release is None:
        return Answers(answers=tuple(Said(text=text or "") for text in bare))
    release = session.load(request.release)
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


def _build(session: Session, request: Build) -> Built:
    from daemon.worker.build import build

    return build(session, request)


def _serve(session: Session, line: str) -> Reply:
    """Return the reply to one line; a failure is a reply too, so the worker lives on."""
    try:
        request = Envelope.model_validate_json(line).request
        if isinstance(request, Embed):
            return _embed(session, request)
        return _ask(session, request) if isinstance(request, Ask) else _build(session, request)
    except Exception as error:  # the parent decides what it means; the process stays usable
        return Failed(
            error=type(error).__name__, message=str(error), hint=getattr(error, "hint", "")
        )


def _read(lines: queue.SimpleQueue[str]) -> None:
    """Pass requests on; when the daemon closes the pipe or dies, end at once, amid any work.

    Nothing is lost: what a worker writes counts only after the daemon has published it.
    """
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def main() -> None:
    """Run until the daemon closes the pipe."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # a library that prints must not break the protocol

    def send(reply: Reply) -> None:
        out.write(ReplyLine(reply=reply).model_dump_json() + "\n")
        out.flush()

    def report(stage: str, done: int, total: int) -> None:
        send(Progress(stage=stage, done=done, total=total))

    settings = configuration.load(Path(sys.argv[1]))
    libraries.settle(settings.log.level)
    session = Session(settings, report)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    while True:
        send(_serve(session, lines.get()))


if __name__ == "__main__":
    main()
