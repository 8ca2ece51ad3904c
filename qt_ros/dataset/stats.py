"""Statistics as LeRobot names and shapes them: per episode, and put together over episodes.

Every feature has min, max, mean, std, count and the quantiles q01 q10 q50 q90 q99. A vector's are
(D,) lists, a scalar's (1,), an image's (3, 1, 1) in 0..1 per channel; count is (1,) rows, or
sampled frames for an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FeatureStats = dict[str, NDArray]  # 'min', 'max', ..., 'q99' -> array
Stats = dict[str, FeatureStats]  # feature -> its statistics

QUANTILES = {'q01': 0.01, 'q10': 0.10, 'q50': 0.50, 'q90': 0.90, 'q99': 0.99}
NAMES = ('min', 'max', 'mean', 'std', 'count', *QUANTILES)
ROUNDING = 1e-9  # 0.1 * 30 is a little more than 3
IMAGE_SIDE = 300  # pictures from this size on are thinned out, to about half of it


def row_stats(columns: Mapping[str, NDArray]) -> Stats:
    """Return the statistics of columns (T,) or (T, D) of any numeric dtype."""
    widths = {name: 1 if c.ndim == 1 else c.shape[1] for name, c in columns.items()}
    rows = len(next(iter(columns.values())))
    # One matrix for all columns: sorting it once costs less than 25 quantile calls.
    table = np.empty((rows, sum(widths.values())))
    at = 0
    for name, column in columns.items():
        table[:, at : at + widths[name]] = column.reshape(rows, -1)
        at += widths[name]
    table.sort(axis=0)
    values = {
        'min': table[0],
        'max': table[-1],
        'mean': table.mean(axis=0),
        'std': table.std(axis=0),
        **{name: _quantile(table, share) for name, share in QUANTILES.items()},
    }
    found: Stats = {}
    at = 0
    for name, width in widths.items():
        found[name] = {key: value[at : at + width].copy() for key, value in values.items()}
        found[name]['count'] = np.array([rows])
        at += width
    return found


def _quantile(table: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return of each sorted column the first value that `share` of the rows do not exceed.

    LeRobot reads the same off a histogram; nothing is interpolated between rows.
    """
    return table[max(math.ceil(share * len(table) - ROUNDING) - 1, 0)]


class ImageStats:
    """Per-channel statistics of the frames of one episode, from histograms of 256 values."""

    def __init__(self, frames: int) -> None:
        samples = max(min(frames, 100), min(int(frames**0.75), 10_000))  # as LeRobot
        self._wanted = set(np.round(np.linspace(0, frames - 1, samples)).astype(int).tolist())
        self._counts = np.zeros((3, 256), dtype=np.int64)
        self._index = 0
        self._taken = 0

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Look at the next frame (H, W, 3), or pass over it."""
        if self._index in self._wanted:
            side = max(frame.shape[:2])
            stride = side // (IMAGE_SIDE // 2) if side >= IMAGE_SIDE else 1
            thinned = frame[::stride, ::stride]
            for channel in range(3):
                self._counts[channel] += np.bincount(thinned[..., channel].ravel(), minlength=256)
            self._taken += 1
        self._index += 1

    def result(self) -> FeatureStats:
        """Return the statistics, (3, 1, 1) each, pixel values divided by 255."""
        level = np.arange(256) / 255.0
        share = self._counts / self._counts.sum(axis=1, keepdims=True)
        reached = np.cumsum(share, axis=1)
        mean = share @ level
        values = {
            'min': level[np.argmax(self._counts > 0, axis=1)],
            'max': level[255 - np.argmax(self._counts[:, ::-1] > 0, axis=1)],
            'mean': mean,
            'std': np.sqrt(np.maximum(share @ level**2 - mean**2, 0.0)),
            **{
                name: level[np.argmax(reached >= quantile - 1e-12, axis=1)]
                for name, quantile in QUANTILES.items()
            },
        }
        found = {name: value.reshape(3, 1, 1) for name, value in values.items()}
        found['count'] = np.array([self._taken])
        return found


def together(parts: Iterable[Stats]) -> Stats:
    """Put statistics together: exact but for the quantiles.

    Those cannot be had from quantiles; as in LeRobot 0.6 they are the mean of the parts' own,
    weighted by their rows.
    """
    by_feature: dict[str, list[FeatureStats]] = {}
    for stats in parts:
        for feature, values in stats.items():
            by_feature.setdefault(feature, []).append(values)
    return {feature: _merge(found) for feature, found in by_feature.items()}


def _merge(parts: Sequence[FeatureStats]) -> FeatureStats:
    # Sets extended by an older LeRobot lack the quantiles of some episodes.
    names = [name for name in NAMES if all(name in part for part in parts)]
    stacked = {name: np.stack([part[name] for part in parts]) for name in names}
    count = stacked['count'].reshape(-1, *[1] * (stacked['mean'].ndim - 1))
    total = stacked['count'].sum()
    mean = (stacked['mean'] * count).sum(axis=0) / total
    spread = stacked['std'] ** 2 + (stacked['mean'] - mean) ** 2
    merged = {
        'min': stacked['min'].min(axis=0),
        'max': stacked['max'].max(axis=0),
        'mean': mean,
        'std': np.sqrt((spread * count).sum(axis=0) / total),
        'count': np.array([total]),
    }
    for name in QUANTILES:
        if name in stacked:
            merged[name] = (stacked[name] * count).sum(axis=0) / total
    return merged


def to_json(stats: Stats) -> dict[str, dict[str, list]]:
    """Return `stats` as plain lists, as stats.json holds them."""
    return {
        feature: {name: values[name].tolist() for name in NAMES if name in values}
        for feature, values in stats.items()
    }


def from_json(raw: Mapping[str, Mapping[str, list]]) -> Stats:
    """Return what `to_json` was given."""
    return {
        feature: {name: np.asarray(value) for name, value in values.items()}
        for feature, values in raw.items()
    }
