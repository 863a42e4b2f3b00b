"""A new configuration for a running daemon: what changed, and whether it can be taken over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from daemon import config as configuration
from daemon.config import Config
from daemon.errors import Conflict
from daemon.state import State

#: sections that stay as they are for a daemon's life: the releases were made for that model, and
#: who scrapes or collects looks where the figures were
FIXED = ("model", "metrics")


def changed(old: Config, new: Config) -> tuple[str, ...]:
    """Return the keys whose values differ, as ``section.key``, in alphabetical order."""
    before = dict(_leaves(old.model_dump(mode="json")))
    after = dict(_leaves(new.model_dump(mode="json")))
    lacks = object()
    keys = before.keys() | after.keys()
    return tuple(sorted(k for k in keys if before.get(k, lacks) != after.get(k, lacks)))


def to_come(state: State, new: Config) -> tuple[str, ...]:
    """Return the keys in which the configuration in force differs from a new one."""
    return changed(configuration.load(state.running_file), new)


def check(keys: tuple[str, ...]) -> None:
    """Raise Conflict when one of the changed ``keys`` needs a restart."""
    fixed = [key for key in keys if key.split(".")[0] in FIXED]
    if fixed:
        raise Conflict(
            f"{', '.join(fixed)} can't change while wised runs", hint="stop it and start it again"
        )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value
