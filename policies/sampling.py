"""What a sample says about the whole it was drawn from."""

from __future__ import annotations

import math

#: of the standard normal distribution; two-sided 95 %
Z = 1.959964


def interval(right: int, asked: int, whole: int | None = None) -> tuple[float, float]:
    """Return the 95 % confidence interval of the true share when ``right`` of ``asked`` hold.

    Wilson's score interval (1927). ``whole``: size of what was sampled without replacement; a
    sample of all of it leaves no doubt, and of a large part of it less (finite population
    correction on the sample's size). Nothing asked leaves everything possible. Raises ValueError
    for counts that cannot be.
    """
    if not 0 <= right <= asked or (whole is not None and asked > whole):
        raise ValueError(f"{right} right of {asked} asked of {whole} cannot be")
    if asked == 0:
        return 0.0, 1.0
    share = right / asked
    if whole == asked:
        return share, share
    size = asked if whole is None else asked * (whole - 1) / (whole - asked)
    middle = (share + Z**2 / (2 * size)) / (1 + Z**2 / size)
    spread = Z / (1 + Z**2 / size) * math.sqrt(share * (1 - share) / size + Z**2 / (4 * size**2))
    return max(0.0, middle - spread), min(1.0, middle + spread)
