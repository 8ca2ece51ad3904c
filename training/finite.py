"""Refuse data with numbers that are not finite, and say where they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from training.errors import TrainingError


def must_be_finite(
    table: np.ndarray, columns: Sequence[str], episodes: Iterable[tuple[str, int, int]]
) -> None:
    """Raise TrainingError naming the first bad number of every episode that has one.

    table: (rows, columns); episodes: (id, first row, number of rows).
    """
    problems = []
    for name, start, length in episodes:
        bad = np.argwhere(~np.isfinite(table[start : start + length]))
        if len(bad):
            row, column = bad[0]
            problems.append(
                f'{columns[column]} is not finite in episode {name}, row {row}; convert that'
                ' recording again or leave it out'
            )
    if problems:
        raise TrainingError(problems)
