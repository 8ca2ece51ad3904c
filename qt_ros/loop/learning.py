"""Train on datasets and say how it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qt_ros.dataset import build_cache
from qt_ros.progress import Tasks
from qt_ros.resources import resource

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
            caches.append(build_cache(dataset, task.update))
    from training.train import train  # after the cheap checks: loading torch takes seconds

    with tasks(title, None) as task:
        return train(
            caches,
            out,
            config,
            resume=resume,
            init_from=init_from,
            progress=lambda row: task.update(row['step'], row['steps'], figures(row)),
        )


def figures(row: Mapping[str, float]) -> str:
    """Write a row of training figures in short.

    Example: 'loss 0.412 (td 0.310, cons. 0.013), Q success 0.71 failure 0.30, gap 0.55, ...'
    """
    return (
        f'loss {row["loss"]:.3f} (td {row["td"]:.3f}, cons. {row["conservative"]:.3f}), '
        f'Q success {row["q_success"]:.2f} failure {row["q_failure"]:.2f}, '
        f'gap {row["gap"]:.2f}, {row["transitions_per_s"]:.0f} transitions/s'
    )


def preset_path(name: str) -> Path:
    """Return the file of a preset: a path as it is, or the name of one that comes along.

    Raises QtRosError that lists those.
    """
    path = Path(name)
    if path.suffix in ('.yaml', '.yml', '.json') or path.exists():
        return path
    return resource(f'config/training/{name}.yaml')
