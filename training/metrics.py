"""Figures of a run in metrics.csv and TensorBoard."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from training.histograms import Histograms

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

    def write(self, figures: Mapping[str, float], histograms: Histograms | None = None) -> None:
        """Write one row; `figures` has all COLUMNS. The histograms go to TensorBoard only."""
        self._writer.writerow(dict(figures))
        self._file.flush()
        for name in COLUMNS[1:]:
            self._board.add_scalar(name, figures[name], int(figures['step']))
        for name, (values, edges) in (histograms or {}).items():
            self._board.add_histogram(name, values, int(figures['step']), bins=edges)

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
