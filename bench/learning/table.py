"""Results as CSV: one row per cell and task, and sums over them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.learning.places import Cell, read_json
from bench.learning.statistics import wilson
from bench.learning.study import Study

CELL = ('study', 'method', 'seed')
FIGURES = ('train_steps', 'cpu_training_s', 'cpu_judging_s')
ABOUT = ('commit', 'date', 'hardware', 'torch', 'note')


def write_csv(path: Path, study: Study, cells: Iterable[Cell]) -> int:
    """Write the rows of the cells that are done; return how many cells that were."""
    number = 0
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow([*CELL, *study.columns, *FIGURES, *ABOUT])
        for cell in cells:
            result = read_json(cell.result)
            if result is None:
                continue
            number += 1
            figures = [_short(result[name]) for name in FIGURES]
            about = [result[name] for name in ABOUT]
            for row in result['rows']:
                values = [_short(row[name]) for name in study.columns]
                writer.writerow([cell.study, cell.method, cell.seed, *values, *figures, *about])
    return number


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a results file."""
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def _short(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value


@dataclass(frozen=True)
class Score:
    """Successes of a method on a task, or on all of them, over seeds."""

    successes: int
    episodes: int
    by_seed: tuple[float, ...]  # share of successes

    @property
    def share(self) -> float:
        """Return the share of successes."""
        return self.successes / self.episodes if self.episodes else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95% interval of the share, all seeds pooled."""
        return wilson(self.successes, self.episodes)


def score(rows: Sequence[dict[str, str]], method: str, task: str | None = None) -> Score | None:
    """Return how a method did on a task (None: on all), None where it has no rows."""
    chosen = [
        row for row in rows if row['method'] == method and (task is None or row['task'] == task)
    ]
    if not chosen:
        return None
    by_seed = []
    for seed in sorted({int(row['seed']) for row in chosen}):
        mine = [row for row in chosen if int(row['seed']) == seed]
        by_seed.append(_sum(mine, 'successes') / max(1, _sum(mine, 'episodes')))
    return Score(_sum(chosen, 'successes'), _sum(chosen, 'episodes'), tuple(by_seed))


def _sum(rows: Sequence[dict[str, str]], name: str) -> int:
    return sum(int(row[name]) for row in rows)


def tasks_of(rows: Sequence[dict[str, str]]) -> list[str]:
    """Return the tasks in the order of the rows."""
    return list(dict.fromkeys(row['task'] for row in rows))
