"""Intervals of what was counted."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # two-sided 95% of the normal distribution


def wilson(successes: int, episodes: int, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's score interval of a share (Wilson 1927), (0, 1) without any episode.

    It says how sure a count is for these trained networks; pooled over seeds, it leaves out how
    much trainings differ, so plots show each seed beside it.
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f'{successes} successes of {episodes} episodes')
    if episodes == 0:
        return 0.0, 1.0
    share = successes / episodes
    middle = share + z * z / (2 * episodes)
    spread = z * math.sqrt(share * (1 - share) / episodes + z * z / (4 * episodes**2))
    scale = 1 + z * z / episodes
    low, high = (middle - spread) / scale, (middle + spread) / scale
    # At the ends these are exactly 0 and 1, up to rounding.
    return (0.0 if successes == 0 else low), (1.0 if successes == episodes else high)


def ratio_interval(
    successes: int, episodes: int, base_successes: int, base_episodes: int, z: float = Z95
) -> tuple[float, float]:
    """Return the interval of a ratio of two shares, by its logarithm (Katz et al. 1978).

    Raises ValueError where either has no success: the ratio has no such interval then.
    """
    if min(successes, base_successes) < 1:
        raise ValueError(f'{successes} and {base_successes} successes; at least 1 each')
    ratio = (successes / episodes) / (base_successes / base_episodes)
    spread = z * math.sqrt(1 / successes - 1 / episodes + 1 / base_successes - 1 / base_episodes)
    return ratio * math.exp(-spread), ratio * math.exp(spread)


def precision_recall_f1(hits: int, false_alarms: int, misses: int) -> tuple[float, float, float]:
    """Return precision, recall and F1; 0 where nothing was claimed or nothing was there."""
    precision = hits / (hits + false_alarms) if hits + false_alarms else 0.0
    recall = hits / (hits + misses) if hits + misses else 0.0
    f1 = 2 * hits / (2 * hits + false_alarms + misses) if hits else 0.0
    return precision, recall, f1
