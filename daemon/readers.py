"""The configured reader of free text: a local model in the worker, an endpoint, or none."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from daemon.child import ShouldStop, WorkerError
from daemon.config import Config
from daemon.messages import Read, ReadText
from ingest import Passage, Reader, ReaderError

#: hands a request to the worker
AskWorker = Callable[[Read], ReadText]
LOCAL_VERSION = "reader-local/1"


@dataclass(frozen=True, slots=True)
class Local:
    """Asks the worker's model, which can only write what the text has."""

    model: str
    timeout_seconds: float
    ask: AskWorker

    @property
    def name(self) -> str:
        """Return name, version and model, as facts record it."""
        return f"{LOCAL_VERSION}:{self.model}"

    def read(self, passage: Passage) -> str:
        """Return the model's answer. Raises ReaderError."""
        request = Read(
            prompt=passage.prompt,
            sentences=passage.sentences,
            relations=passage.relations,
            max_facts=passage.max_facts,
            timeout_seconds=self.timeout_seconds,
        )
        try:
            reply = self.ask(request)
        except WorkerError as error:
            code = error.code.replace("worker.", "reader.", 1)
            raise ReaderError(code, str(error), error.hint or None) from error
        if reply.code:
            raise ReaderError(reply.code, reply.message, reply.hint or None)
        return reply.text


def configured(config: Config, ask: AskWorker, stop: ShouldStop) -> Reader | None:
    """Return the reader that the configuration names; None when it names none."""
    section = config.extraction
    if section.reader == "none":
        return None
    if section.reader == "local":
        return Local(section.model or config.model.name, section.timeout_seconds, ask)
    from ingest.endpoint import Endpoint

    assert section.model is not None, "checked when the configuration was loaded"
    key = os.environ.get(section.api_key_env) or None
    return Endpoint(section.endpoint, section.model, section.timeout_seconds, key, stop)
