"""`wised wait`: until a release has become something, for scripts."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.common import Json, number, place
from daemon.errors import NotFound, TimedOut, Unhealthy
from daemon.render import fields, print_json

if TYPE_CHECKING:
    from daemon.state import State

LOOK_SECONDS = 0.5
#: states from which a release never comes to the one waited for
_NEVER = {
    "verified": ("refused", "pruned"),
    "promoted": ("refused", "pruned"),
    "refused": ("promoted", "previous", "retained", "pruned"),
}
#: states that a release has passed once it was what is waited for
_PASSED = {
    "verified": ("verified", "promoted", "previous", "retained"),
    "promoted": ("promoted",),
    "refused": ("refused",),
}


class Becomes(StrEnum):
    """What a release can be waited for to become."""

    verified = "verified"
    promoted = "promoted"
    refused = "refused"


def wait(
    context: typer.Context,
    which: Annotated[str, typer.Argument(metavar="N", help="A release, there already or to be.")],
    until: Annotated[
        Becomes, typer.Option("--for", help="What it is to become.")
    ] = Becomes.promoted,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, metavar="SECONDS", help="Then exit 8.")
    ] = 600,
    as_json: Json = False,
) -> None:
    """Wait until a release was promoted, verified or refused; exit 6 when it can't be any more.

    Example: wised wait 3 --for promoted --timeout 900
    """
    state, wanted = place(context), number(which, "r")
    deadline = time.monotonic() + timeout
    while (found := _state_of(state, wanted)) not in _PASSED[until.value]:
        if found in _NEVER[until.value]:
            raise Unhealthy(
                f"release {wanted} is {found}; it will not be {until.value}",
                hint=f"wised release show {wanted} says why",
            )
        if time.monotonic() >= deadline:
            now = f"is {found}" if found else "is not there yet"
            raise TimedOut(f"release {wanted} {now} after {timeout:g} s", hint="wised status")
        time.sleep(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
    if as_json:
        print_json({"release": wanted, "state": found})
    else:
        fields([(f"release {wanted}", found)])


def _state_of(state: State, wanted: int) -> str | None:
    """Return a release's state, None before there is such a release."""
    from daemon import releases

    with state.store(read_only=True) as store:
        try:
            return releases.get(store, wanted).state
        except NotFound:
            return None


def register(parent: typer.Typer) -> None:
    """Add the command to the top level."""
    parent.command()(wait)
