"""Errors that reach the operator.

WisedError                exit 1
├── UsageError            exit 2
├── NotFound              exit 3
├── Conflict              exit 4
├── Refused               exit 5   a policy says no
├── Unhealthy             exit 6   a check failed
├── NotRunning            exit 7   daemon not running, or its lock is held
└── IntegrityError        exit 9   checksum, audit chain or database
"""

from __future__ import annotations


class WisedError(Exception):
    """Base of the errors that a command reports; ``hint`` is printed after "Try:"."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(WisedError):
    """The command or the configuration is not one that can be run."""

    exit_code = 2


class NotFound(WisedError):
    """There is no such source, fact or release."""

    exit_code = 3


class Conflict(WisedError):
    """The thing is in another state than the change needs."""

    exit_code = 4


class Refused(WisedError):
    """A policy forbids the change."""

    exit_code = 5


class Unhealthy(WisedError):
    """A check or a verification failed."""

    exit_code = 6


class NotRunning(WisedError):
    """The daemon isn't running where it must, or another one holds the lock."""

    exit_code = 7


class IntegrityError(WisedError):
    """Stored data is not what was written."""

    exit_code = 9
