"""How far a source is believed."""

from __future__ import annotations

from enum import StrEnum


class Tier(StrEnum):
    """A source's trust, given by the operator and never by the source."""

    TRUSTED = "trusted"
    NORMAL = "normal"
    UNTRUSTED = "untrusted"

    @property
    def rank(self) -> int:
        """Return 0 for untrusted up to 2 for trusted."""
        return _RANKS[self]

    def at_least(self, other: Tier) -> bool:
        """Tell whether this tier is as trusted as the other, or more.

        ``<`` compares the words of the tiers, not their trust.
        """
        return self.rank >= other.rank


_RANKS = {Tier.UNTRUSTED: 0, Tier.NORMAL: 1, Tier.TRUSTED: 2}
