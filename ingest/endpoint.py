"""A reader behind HTTP: a server that speaks OpenAI's chat completions, with a JSON schema.

The server is the operator's own choice, so its address may be private; what it answers is
believed no more than a feed.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpcore2
import httpx2

from ingest import body, strict_json
from ingest.address import Deadline, GuardedBackend, HeadBudget
from ingest.errors import FetchError, ReaderError
from ingest.fetch import Limits, user_agent
from ingest.networks import ANY
from ingest.reading import MAX_ANSWER_BYTES, Passage, schema
from ingest.strict_json import NotStrict
from ingest.urls import redact

VERSION = "reader-endpoint/1"
#: room for the answer's envelope: usage, ids, a reasoning text beside it
MAX_BODY_BYTES = 4 * MAX_ANSWER_BYTES
_LIMITS = Limits()
#: an honest fact takes far fewer
_TOKENS_PER_FACT = 200
_STOP_LOOK_SECONDS = 0.2


class Stop(Protocol):
    """Says whether to give up; a ``threading.Event`` is one."""

    def is_set(self) -> bool:
        """Return True from the moment on when nothing is to be waited for any more."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Asks a model at an OpenAI-compatible server."""

    url: str  #: base, e.g. ``http://127.0.0.1:8000/v1``
    model: str  #: as the server names it
    timeout_seconds: float  #: from the first name lookup to the last byte
    key: str | None = field(default=None, repr=False)  #: bearer token
    stop: Stop = field(default_factory=threading.Event)  #: gives up when it is set

    @property
    def name(self) -> str:
        """Return name, version and model, as facts record it."""
        return f"{VERSION}:{self.model}"

    def read(self, passage: Passage) -> str:
        """Return the text of the model's message. Raises ReaderError."""
        headers = self._headers()
        content = json.dumps(_question(self.model, passage)).encode()
        data = self._waited(lambda: _post(self._target(), headers, content, self.timeout_seconds))
        return _said(data)

    def _target(self) -> str:
        return self.url.rstrip("/") + "/chat/completions"

    def _headers(self) -> dict[str, str]:
        headers = {
            "User-Agent": user_agent(),
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
        }
        if self.key is None:
            return headers
        # The client's own complaint about a bad header would show the key.
        if not self.key.isascii() or not self.key.isprintable() or " " in self.key:
            raise ReaderError("reader.bad_key", "the key has characters that no header may have")
        return headers | {"Authorization": f"Bearer {self.key}"}

    def _waited(self, work: Callable[[], bytes]) -> bytes:
        """Do the work in a thread, so that a daemon that stops need not wait for an answer."""
        done: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

        def act() -> None:
            try:
                done.put(work())
            except Exception as error:  # raised again by the one who waits
                done.put(error)

        threading.Thread(target=act, daemon=True).start()
        while not self.stop.is_set():
            try:
                result = done.get(timeout=_STOP_LOOK_SECONDS)
            except queue.Empty:
                continue  # the request's own deadline ends it
            if isinstance(result, Exception):
                raise result
            return result
        raise ReaderError("reader.stopped", "the daemon is stopping")


def _question(model: str, passage: Passage) -> dict[str, Any]:
    form = {"name": "facts", "strict": True, "schema": schema(passage)}
    return {
        "model": model,
        "messages": [{"role": "user", "content": passage.prompt}],
        "temperature": 0,
        "max_tokens": _TOKENS_PER_FACT * passage.max_facts,
        "stream": False,
        "response_format": {"type": "json_schema", "json_schema": form},
    }


def _post(url: str, headers: dict[str, str], content: bytes, seconds: float) -> bytes:
    """Return the body of a 200; whatever else there is, is a ReaderError."""
    shown = redact(url)
    head = HeadBudget(_LIMITS.head_bytes)
    # The operator names the server, which often is on this machine.
    backend = GuardedBackend(Deadline(seconds), ANY, head)
    head.begin()
    # Proxies and certificates come from the configuration, never from the environment.
    tls = httpx2.create_ssl_context(trust_env=False)
    timeouts = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), seconds)}
    try:
        with (
            httpcore2.ConnectionPool(ssl_context=tls, network_backend=backend) as pool,
            pool.stream(
                "POST", url, headers=list(headers.items()), content=content, extensions=timeouts
            ) as answer,
        ):
            head.end()
            _check_status(answer.status, shown)
            return _content(answer)
    except FetchError as why:  # of `body`: over a limit, or not gzip
        code = why.code.replace("fetch.", "reader.", 1)
        raise ReaderError(code, f"{shown}: {why.message}") from why
    except httpcore2.TimeoutException as error:
        what = f"{shown} gave no whole answer within {seconds:g} s"
        raise ReaderError("reader.timeout", what, "raise [extraction] timeout_seconds") from error
    except httpcore2.ConnectError as error:
        hint = "is the server running, and [extraction] endpoint its base URL?"
        raise ReaderError("reader.connect", f"no connection to {shown}: {error}", hint) from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError, UnicodeError) as error:
        what = f"the answer of {shown} broke off or is not HTTP"
        raise ReaderError("reader.broken", what) from error


def _content(answer: httpcore2.Response) -> bytes:
    named = {name.lower(): value for name, value in answer.headers}
    encoding = named.get(b"content-encoding", b"").decode("latin-1")
    return body.read(
        answer.iter_stream(), encoding, MAX_BODY_BYTES, MAX_BODY_BYTES, _LIMITS.inflation
    )


def _check_status(status: int, shown: str) -> None:
    if status == 200:
        return
    if 300 <= status < 400:
        raise ReaderError(
            "reader.redirect",
            f"{shown} redirects, and a key and a text are sent nowhere else",
            "set [extraction] endpoint to where it leads, if that is right",
        )
    hints = {
        401: "is the key in the variable that [extraction] api_key_env names?",
        403: "may this key use the model?",
        404: "is [extraction] endpoint the base URL, and model a model of the server?",
    }
    raise ReaderError(f"reader.status_{status}", f"{shown} answered {status}", hints.get(status))


def _said(data: bytes) -> str:
    try:
        document = strict_json.decode(data)
    except NotStrict as why:
        what = f"the server's answer is no strict JSON: {why.message}"
        raise ReaderError("reader.bad_answer", what) from why
    try:
        content = document["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise ReaderError("reader.bad_answer", "the server's answer has no message") from error
    if not isinstance(content, str):
        raise ReaderError("reader.bad_answer", "the message has no text")
    return content
