"""What probes came to. Apart from the messages it travels in: status reads it without them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """A share of probes: how many were as expected."""

    right: int
    asked: int
    whole: int | None = None  #: how many there are; None: all of them were asked
