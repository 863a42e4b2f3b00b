"""Errors that reach the operator.

WisedError                exit 1
├── NotReadable           exit 1   the system does not let a file be read
├── UsageError            exit 2
├── NotFound              exit 3
├── Conflict              exit 4
│   ├── Overtaken         exit 4   another release answers than the change is meant for
│   └── OnHold            exit 4   a person keeps it back
├── Refused               exit 5   a policy says no
├── Unhealthy             exit 6   a check failed
├── NotRunning            exit 7   daemon not running, or its lock is held
├── TimedOut              exit 8   what was waited for did not come in time
├── IntegrityError        exit 9   checksum, audit chain or database
└── InputNeeded           exit 10  a person has to be asked and none is there
"""

from __future__ import annotations

#: what each exit code means; a command that was interrupted ends with 128 and the signal
EXIT_CODES = {
    0: "done",
    1: "failed",
    2: "usage: no such command or option, or a bad configuration",
    3: "not found",
    4: "conflict: it is in another state, or was changed meanwhile",
    5: "refused by policy",
    6: "unhealthy: a check or a verification failed",
    7: "the daemon is not running, or its lock is held",
    8: "timed out",
    9: "integrity failure: checksum, audit log or database",
    10: "a person has to be asked, and there is no terminal",
    130: "interrupted",
    143: "ended by SIGTERM; wised run by a second one, after the first its work may end",
}


class WisedError(Exception):
    """Base of the errors that a command reports; ``hint`` is printed after "Try:"."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NotReadable(WisedError):
    """The system did not let a file be read, so nothing is known of what is in it."""


class UsageError(WisedError):
    """The command or the configuration is not one that can be run."""

    exit_code = 2


class NotFound(WisedError):
    """There is no such source, fact or release."""

    exit_code = 3


class Conflict(WisedError):
    """The thing is in another state than the change needs."""

    exit_code = 4


class Overtaken(Conflict):
    """Another release answers by now than the one that the change was meant for."""


class OnHold(Conflict):
    """A person keeps the daemon from doing it."""


class Refused(WisedError):
    """A policy forbids the change."""

    exit_code = 5


class Unhealthy(WisedError):
    """A check or a verification failed."""

    exit_code = 6


class NotRunning(WisedError):
    """The daemon isn't running where it must, or another one holds the lock."""

    exit_code = 7


class TimedOut(WisedError):
    """What was waited for did not come in time."""

    exit_code = 8


class IntegrityError(WisedError):
    """Stored data is not what was written."""

    exit_code = 9


class InputNeeded(WisedError):
    """A person has to be asked, and standard input or output is no terminal."""

    exit_code = 10
