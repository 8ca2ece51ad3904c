"""Train on datasets and say how it goes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qt_ros.dataset import build_cache
from qt_ros.dataset.files import Busy
from qt_ros.progress import Task, Tasks

if TYPE_CHECKING:
    from training.config import TrainConfig
    from training.train import TrainResult


def learn(
    datasets: Sequence[Path],
    out: Path,
    config: TrainConfig | None,
    tasks: Tasks,
    *,
    title: str = 'Training',
    resume: bool = False,
    init_from: Path | None = None,
) -> TrainResult:
    """Bring the datasets' caches up to date, train into the run folder `out`, return the result.

    Raises DatasetError or TrainingError when data, settings or checkpoints do not fit.
    """
    caches = []
    for dataset in datasets:
        with tasks(f'Cache of {dataset.name}', None) as task:
            caches.append(_built(dataset, task))
    from training.metrics import read_metrics
    from training.train import train  # after the cheap checks: loading torch takes seconds

    with tasks(title, None) as task:
        before = read_metrics(out)[-1:] if resume else []
        steps = config.optim.steps if config else None
        for row in before:
            task.update(row['step'], steps, figures(row))
        if not before:
            task.update(0, steps)
        return train(
            caches,
            out,
            config,
            resume=resume,
            init_from=init_from,
            progress=lambda row: task.update(row['step'], row['steps'], figures(row)),
        )


def figures(row: Mapping[str, float]) -> str | None:
    """Write a row of training figures in short, on two lines that fit into 80 columns.

    None where there are none yet. Example:
    'loss 0.412: td 0.310, conservative 0.013; gradient 0.52, 912 transitions/s' and
    'Q on successes 0.71, on failures 0.30, on bins not in the data 0.016, gap 0.55'
    """
    if 'loss' not in row:
        return None
    return (
        f'loss {row["loss"]:.3g}: td {row["td"]:.3g}, conservative {row["conservative"]:.3g}; '
        f'gradient {row["grad_norm"]:.3g}, {row["transitions_per_s"]:.0f} transitions/s\n'
        f'Q on successes {row["q_success"]:.2f}, on failures {row["q_failure"]:.2f}, '
        f'on bins not in the data {row["q_others"]:.2g}, gap {row["gap"]:.2f}'
    )


def _built(dataset: Path, task: Task) -> Path:
    """Return the cache of a dataset; of several processes one builds it and the others wait."""
    while True:
        try:
            return build_cache(dataset, task.update)
        except Busy:
            if alone():
                raise
            time.sleep(1.0)


def alone() -> bool:
    """Say whether this is no process of `torchrun`."""
    return int(os.environ.get('WORLD_SIZE', '1')) == 1


def leads() -> bool:
    """Say whether this is the process that talks, of those that `torchrun` started or alone."""
    return os.environ.get('RANK', '0') == '0'
