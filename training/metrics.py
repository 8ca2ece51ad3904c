"""Figures of a run: metrics.csv, TensorBoard, and the checks that stop a run gone wrong."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from training.errors import TrainingError

COLUMNS = (
    'step',
    'wall_s',
    'loss',
    'td',
    'conservative',
    'q_success',
    'q_failure',
    'q_others',
    'gap',
    'grad_norm',
    'lr',
    'transitions_per_s',
)


class MetricsLog:
    """Append figures to RUN/metrics.csv and RUN/tensorboard; a context manager.

    Rows behind `step` (of a run that is resumed from there) are dropped.
    """

    def __init__(self, run: Path, step: int) -> None:
        self.path = run / 'metrics.csv'
        rows = [row for row in read_metrics(run) if row['step'] <= step]
        temporary = self.path.with_name(f'metrics.csv.{os.getpid()}.tmp')
        with open(temporary, 'w', newline='', encoding='utf-8') as file:
            csv.DictWriter(file, COLUMNS).writeheader()
            csv.DictWriter(file, COLUMNS).writerows(rows)
        os.replace(temporary, self.path)
        self._file = open(self.path, 'a', newline='', encoding='utf-8')  # noqa: SIM115
        self._writer = csv.DictWriter(self._file, COLUMNS)
        self._board = SummaryWriter(str(run / 'tensorboard'), purge_step=step + 1)

    def write(self, figures: Mapping[str, float]) -> None:
        """Write one row; `figures` has all COLUMNS."""
        self._writer.writerow(dict(figures))
        self._file.flush()
        for name in COLUMNS[1:]:
            self._board.add_scalar(name, figures[name], int(figures['step']))

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._board.close()


def read_metrics(run: Path) -> list[dict[str, float]]:
    """Return the rows of RUN/metrics.csv, [] if there is none; a torn last row is left out."""
    path = Path(run) / 'metrics.csv'
    if not path.is_file():
        return []
    rows = []
    with open(path, newline='', encoding='utf-8') as file:
        for row in csv.DictReader(file):
            if all(row.get(name) not in (None, '') for name in COLUMNS):
                values = {name: float(row[name]) for name in COLUMNS}
                rows.append({**values, 'step': int(values['step'])})
    return rows


class Health:
    """Stop a run whose Q says the same about everything.

    mean_return: mean return-to-go on successes, 0 if there are none; patience: bad rows in a row
    before the run stops; from_step: Q may take this long to rise from its low start.
    """

    def __init__(self, mean_return: float, from_step: int, patience: int = 5) -> None:
        self.mean_return, self.from_step, self.patience = mean_return, from_step, patience
        self._bad = 0

    def check(self, figures: Mapping[str, float]) -> None:
        """Raise TrainingError where Q has collapsed to 0 or saturated at 1."""
        low = self.mean_return > 0 and figures['q_success'] < 0.02 * self.mean_return
        high = figures['q_others'] > 0.95
        self._bad = self._bad + 1 if figures['step'] >= self.from_step and (low or high) else 0
        if self._bad < self.patience:
            return
        if high:
            raise TrainingError(
                f'Q has saturated: bins that are not in the data have Q {figures["q_others"]:.3f} '
                f'at step {figures["step"]}; raise loss.alpha or lower optim.lr'
            )
        raise TrainingError(
            f'Q has collapsed: {figures["q_success"]:.2g} on successes at step {figures["step"]}, '
            f'their mean return is {self.mean_return:.2g}; use loss.error=cross_entropy, '
            'lower loss.alpha or raise optim.lr'
        )
