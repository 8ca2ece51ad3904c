"""How old the samples of a stream were when ticks used them: a count of each age, not every age.

    ages 12.001, 12.004, 33.37 ms  ->  {12.00 ms: 2, 33.37 ms: 1}

So the memory of a report does not grow with its recordings, and counts of several bags add up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP_NS = 10_000  # ages are told apart to 0.01 ms
PERCENTILES = {'p50': 50, 'p90': 90, 'p99': 99, 'max': 100}


def _nothing() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass
class Ages:
    """Ages of one stream over some rows. steps: (n,) different ages, rising; counts: (n,)."""

    rows: int = 0
    valid_rows: int = 0
    steps: NDArray[np.int64] = field(default_factory=_nothing)
    counts: NDArray[np.int64] = field(default_factory=_nothing)

    def add(self, age_ns: NDArray[np.int64], valid: NDArray[np.bool_]) -> None:
        """Count the ages (T,) [ns] of T rows, and the rows whose sample was valid (T,)."""
        steps, counts = np.unique((age_ns + STEP_NS // 2) // STEP_NS, return_counts=True)
        self.merge(Ages(len(age_ns), int(np.count_nonzero(valid)), steps, counts))

    def merge(self, other: Ages) -> None:
        """Count the rows of another bag as well."""
        self.rows += other.rows
        self.valid_rows += other.valid_rows
        steps, at = np.unique(np.concatenate([self.steps, other.steps]), return_inverse=True)
        counts = np.zeros(len(steps), np.int64)
        np.add.at(counts, at.reshape(-1), np.concatenate([self.counts, other.counts]))
        self.steps, self.counts = steps, counts

    def summary(self) -> dict[str, Any]:
        """Return `age_ms` {p50, p90, p99, max} and `valid_share`; both None without rows."""
        if not self.rows:
            return {'age_ms': None, 'valid_share': None}
        ends = np.cumsum(self.counts)
        last = int(ends[-1]) - 1
        found = {}
        for name, percent in PERCENTILES.items():
            place = last * percent / 100  # linear between neighbours, as numpy's percentile
            low, high = self.steps[np.searchsorted(ends, [int(place), -int(-place // 1)], 'right')]
            value = low + (high - low) * (place - int(place))
            found[name] = round(float(value) * STEP_NS / 1e6, 3)
        return {'age_ms': found, 'valid_share': round(self.valid_rows / self.rows, 6)}
