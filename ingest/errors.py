"""What goes wrong while reading sources.

IngestError
  FetchError    a feed could not be fetched
  FeedError     what was fetched is not a usable feed
  LogError      a correction log could not be read
  RowError      one row says nothing usable
  PayloadError  the structured facts that an entry carries are not of the form
  ReaderError   a language model was asked for the facts of a text in vain
"""

from __future__ import annotations

#: codes that no later attempt can cure without a change of configuration or of the server's mind
_PERMANENT = frozenset(
    {
        "fetch.gone",
        "fetch.bad_url",
        "fetch.refused_address",
        "fetch.redirect_refused",
        "log.not_regular",
    }
)
#: faults of a reader that the text it was given may have caused
_ENTRYS_OWN = frozenset(
    {
        "reader.bad_answer",
        "reader.bug",
        "reader.crashed",
        "reader.died",
        "reader.failed",
        "reader.killed",
        "reader.memory",
        "reader.silent",
        "reader.timeout",
        "reader.too_large",
        "reader.too_long",
        "reader.status_400",
        "reader.status_413",
        "reader.status_422",
        "reader.status_500",
    }
)


class IngestError(Exception):
    """Say what is wrong with a source, under a stable code."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        """Take a stable code, a sentence, and what the operator can do about it."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return ``code: message``."""
        return f"{self.code}: {self.message}"

    @property
    def retryable(self) -> bool:
        """Tell whether the same request may succeed later."""
        return self.code not in _PERMANENT


class FetchError(IngestError):
    """Say why a feed could not be fetched; its URL appears redacted only."""

    def __init__(
        self,
        code: str,
        message: str,
        hint: str | None = None,
        retry_after: float | None = None,
        busy_host: str | None = None,
    ) -> None:
        """Take also the seconds that the server asked us to wait, already clamped.

        ``busy_host`` is the host that asked it for all that is fetched from it.
        """
        super().__init__(code, message, hint)
        self.retry_after = retry_after
        self.busy_host = busy_host


class FeedError(IngestError):
    """Say why a document is not a usable feed."""


class LogError(IngestError):
    """Say why a correction log cannot be read."""


class RowError(IngestError):
    """Say why one row gives no fact."""


class PayloadError(IngestError):
    """Say why the structured facts of an entry cannot be used."""


class ReaderError(IngestError):
    """Say why a language model gave no facts of a text; the text and the key never appear."""

    @property
    def is_entrys_own(self) -> bool:
        """Tell whether the text may be to blame, and not only the model or the way to it."""
        return self.code in _ENTRYS_OWN
