"""Action values to bins and back: every dimension has its own range and its own number of bins.

The centres of a dimension are `linspace(low, high, bins)`, so both ends (and zero, for a symmetric
range with an odd number of bins) can be represented exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.errors import TrainingError


@dataclass(frozen=True)
class ActionDim:
    """One action dimension: its range and how finely it is cut."""

    name: str
    low: float
    high: float
    bins: int  # >= 2

    def problems(self) -> list[str]:
        """Say what is wrong with this dimension, nothing if it is fine."""
        found = []
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            found.append(
                f'action {self.name}: range [{self.low}, {self.high}]; low must be below high'
            )
        if self.bins < 2:
            found.append(f'action {self.name}: {self.bins} bins; at least 2 are needed')
        return found


class ActionSpace:
    """All action dimensions in order.

    Example: one dimension with range [-1, 1] and 5 bins has centres -1, -.5, 0, .5, 1; the value
    .3 falls into bin 3 and comes back as .5; 7.0 is clipped into bin 4.
    """

    def __init__(self, dims: Sequence[ActionDim]) -> None:
        found = [problem for dim in dims for problem in dim.problems()]
        if not dims:
            found.append('the action has no dimensions; at least one is needed')
        if found:
            raise TrainingError(found)
        self.dims = tuple(dims)
        self.bins = tuple(dim.bins for dim in self.dims)
        self.centres = tuple(np.linspace(dim.low, dim.high, dim.bins) for dim in self.dims)
        self._low = np.array([dim.low for dim in self.dims])
        self._high = np.array([dim.high for dim in self.dims])
        self._count = np.array(self.bins)

    def __len__(self) -> int:
        return len(self.dims)

    def to_bins(self, values: np.ndarray) -> np.ndarray:
        """Return the nearest bin (..., A) int64 of each value (..., A), clipped to the range.

        Raises TrainingError where a value is not finite.
        """
        values = np.asarray(values, dtype=np.float64)
        if not np.isfinite(values).all():
            bad = ~np.isfinite(values).reshape(-1, len(self)).all(axis=0)
            names = ', '.join(
                dim.name for dim, is_bad in zip(self.dims, bad, strict=True) if is_bad
            )
            raise TrainingError(
                f'actions hold values that are not finite ({names}); '
                'convert the recordings again or leave these episodes out'
            )
        unit = (np.clip(values, self._low, self._high) - self._low) / (self._high - self._low)
        return np.rint(unit * (self._count - 1)).astype(np.int64)

    def to_values(self, bins: np.ndarray) -> np.ndarray:
        """Return the centres (..., A) float64 of the bins (..., A)."""
        bins = np.asarray(bins)
        values = np.empty(bins.shape, dtype=np.float64)
        for i, centres in enumerate(self.centres):
            values[..., i] = centres[bins[..., i]]
        return values

    def to_json(self) -> list[dict[str, Any]]:
        """Return a list of plain mappings, the form stored in caches and checkpoints."""
        return [
            {'name': dim.name, 'low': dim.low, 'high': dim.high, 'bins': dim.bins}
            for dim in self.dims
        ]

    @classmethod
    def from_json(cls, dims: Sequence[Mapping[str, Any]]) -> ActionSpace:
        """Read what `to_json` wrote."""
        return cls(
            [
                ActionDim(str(d['name']), float(d['low']), float(d['high']), int(d['bins']))
                for d in dims
            ]
        )
