"""Statistics of success rates."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval (low, high) that holds a success rate with the given confidence.

    Wilson's score interval: it stays within 0 and 1 and is honest for few trials and for rates of
    0 and 1, where the usual +-1.96 standard errors is empty. 18 of 20 gives 0.699 to 0.972; no
    trials give 0 to 1. Raises ValueError for counts that cannot be.
    """
    if not 0 <= successes <= trials or not 0 < confidence < 1:
        raise ValueError(
            f'{successes} of {trials} at confidence {confidence}; '
            'allowed: 0 <= successes <= trials, 0 < confidence < 1'
        )
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, spread = successes / trials, z * z / trials
    centre = (rate + spread / 2) / (1 + spread)
    half = z * sqrt(rate * (1 - rate) / trials + spread / (4 * trials)) / (1 + spread)
    # Rounding must not push a bound past the rate itself at 0 of n and n of n.
    return max(0.0, min(centre - half, rate)), min(1.0, max(centre + half, rate))
