"""How the imported actions lie in the ranges of the contract: other units show here first.

Nothing is converted in silence. Degrees under a contract in radians end outside of low..high, and
the share of such actions is told for every dimension.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qt_ros.contract import Contract
from qt_ros.episode import Episode

TOLD_SHARE = 0.02  # 1st to 99th percentile is how ranges are usually chosen
ROUNDING = 1e-6  # of the range: float32 and decimals do not count as outside


class Ranges:
    """Counts actions below, within and above each dimension's range."""

    def __init__(self, contract: Contract) -> None:
        self._dims = contract.action_dims
        size = len(self._dims)
        self._low = np.array([dim.low for dim in self._dims])
        self._high = np.array([dim.high for dim in self._dims])
        self._slack = (self._high - self._low) * ROUNDING
        self._below, self._above = np.zeros(size, int), np.zeros(size, int)
        self._least, self._most = np.full(size, np.inf), np.full(size, -np.inf)
        self._rows = 0

    def add(self, episode: Episode) -> None:
        """Count the actions of one episode."""
        actions = episode.action[:, : len(self._dims)].astype(np.float64)
        self._below += (actions < self._low - self._slack).sum(axis=0)
        self._above += (actions > self._high + self._slack).sum(axis=0)
        self._least = np.minimum(self._least, actions.min(axis=0))
        self._most = np.maximum(self._most, actions.max(axis=0))
        self._rows += len(actions)

    def result(self) -> dict[str, dict[str, Any]]:
        """Return {dimension: range, what was found, shares outside}; empty without rows."""
        if not self._rows:
            return {}
        return {
            dim.name: {
                'low': dim.low,
                'high': dim.high,
                'unit': dim.unit,
                'min': float(self._least[at]),
                'max': float(self._most[at]),
                'below_share': round(float(self._below[at]) / self._rows, 6),
                'above_share': round(float(self._above[at]) / self._rows, 6),
            }
            for at, dim in enumerate(self._dims)
        }

    def problems(self) -> list[str]:
        """Return a sentence for every dimension with more than a few actions outside."""
        return [
            self._sentence(name, found)
            for name, found in self.result().items()
            if found['below_share'] + found['above_share'] > TOLD_SHARE
        ]

    def _sentence(self, name: str, found: dict[str, Any]) -> str:
        share = found['below_share'] + found['above_share']
        unit = f' {found["unit"]}' if found['unit'] else ''
        text = (
            f'action {name}: {share:.0%} of the actions lie outside {found["low"]:g} to'
            f' {found["high"]:g}{unit} (found {found["min"]:.4g} to {found["max"]:.4g}); training'
            ' clips them'
        )
        reach = max(abs(found['low']), abs(found['high']))
        wide = max(abs(found['min']), abs(found['max'])) / reach
        if found['unit'] == 'rad' and wide > math.pi:
            return text + ': the set may be in degrees; give the contract its units and ranges'
        return text + ': widen the range, or give the contract the units of the set'
