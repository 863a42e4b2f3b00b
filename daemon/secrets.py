"""Passwords, tokens and keys, hidden in texts that leave the daemon: logs, errors, events."""

from __future__ import annotations

import re

from ingest.urls import redact

HIDDEN = "***"

_SECRET = r"(?:token|secrets?|passwords?|passwd|pwd|api[_-]?keys?|access[_-]?keys?|credentials?)"
_NAME = re.compile(
    rf"(?:^|[_.-])(?:{_SECRET}|tokens)$|^(?:set-)?cookie$|authorization$", re.IGNORECASE
)
_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,15}://[^\s\"'<>]+", re.IGNORECASE)
#: the secret is what comes after the group
_PATTERNS = (
    re.compile(r"(\b(?:bearer|basic)\s+)[A-Za-z0-9+/._~-]{6,}=*", re.IGNORECASE),
    re.compile(
        rf"(\b(?:[a-z0-9]+[_-])?{_SECRET}[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;]+", re.IGNORECASE
    ),
    re.compile(r"(\b[A-Z][A-Z0-9_]*_KEY\s*=\s*[\"']?)[^\s\"'&,;]+"),  # of an environment
    re.compile(
        r"(\bauthorization[\"']?\s*[=:]\s*[\"']?(?:(?:bearer|basic|token|digest|apikey)\s+)?)"
        r"[^\s\"',;]+",
        re.IGNORECASE,
    ),
    re.compile(r"\b(hf_|gh[opsu]_|github_pat_|glpat-|sk-|xox[abpr]-|AKIA)[A-Za-z0-9_-]{8,}"),
    re.compile(r"\b(eyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"),
    re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END|$)", re.DOTALL),
)


def without_secrets(text: str) -> str:
    """Return a text with the passwords, tokens, keys and URL secrets in it hidden."""
    text = _URL.sub(lambda found: redact(found[0]), text)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return text


def names_a_secret(key: str) -> bool:
    """Tell whether a field of that name holds a secret, whatever its value looks like."""
    return _NAME.search(key) is not None
