"""The report on a training run: how it learned, on what, and how well it did when evaluated."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros.errors import QtRosError
from qt_ros.report.evaluation import evaluation_section
from qt_ros.report.figures import learning_curves
from qt_ros.report.numbers import duration
from qt_ros.report.page import Section

TAIL = 20  # the last numbers of a run are means over so many rows of metrics.csv


def sections(run: Path) -> tuple[str, str, list[Section]]:
    """Return title, subtitle and sections of the report on a run."""
    metrics = read_metrics(run / 'metrics.csv')
    parts = [
        _facts(metrics),
        Section(
            'Learning', 'Losses, and the Q-values that the policy gives to recorded actions.'
        ).figure(
            learning_curves([(run.name, metrics)]), 'losses and Q-values over training steps'
        ),
        evaluation_section(run),
        _configuration(run),
    ]
    return f'Training run {run.name}', _subtitle(run), parts


def read_metrics(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read metrics.csv into {column: (rows,) float64}, NaN where a cell is empty; {} if absent."""
    if not path.is_file():
        return {}
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return {}
    try:
        return {
            name: np.array([_value(row[name]) for row in rows], dtype=np.float64)
            for name in rows[0]
        }
    except ValueError as error:
        raise QtRosError(f'{path}: not a table of numbers ({error})') from None


def last(metrics: Mapping[str, NDArray[np.float64]], column: str) -> float | None:
    """Return the mean of a column's last rows, or None where it holds nothing."""
    values = metrics.get(column, np.empty(0))[-TAIL:]
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None


def _value(cell: str | None) -> float:
    return float(cell) if cell else float('nan')


def _facts(metrics: Mapping[str, NDArray[np.float64]]) -> Section:
    section = Section('In short')
    if not metrics:
        return section.note('Nothing has been trained here yet: metrics.csv is missing or empty.')
    return section.tiles(
        {
            'training steps': int(np.nanmax(metrics['step'])),
            'time': duration(float(np.nanmax(metrics['wall_s']))),
            'transitions per second': last(metrics, 'transitions_per_s'),
            'Q on steps of successes': last(metrics, 'q_success'),
            'Q on steps of failures': last(metrics, 'q_failure'),
            'gap to other bins': last(metrics, 'gap'),
        }
    )


def _subtitle(run: Path) -> str:
    state = latest_state(run)
    words = [str(state['policy_id'])] if 'policy_id' in state else []
    words += [f'"{text}"' for text in state.get('instructions', ())]
    return ' · '.join(words) or str(run)


def latest_state(run: Path) -> dict[str, Any]:
    """Return state.json of the newest checkpoint; {} if there is none."""
    states = sorted((run / 'checkpoints').glob('step_*/state.json'))
    if not states:
        return {}
    loaded = json.loads(states[-1].read_text())
    return loaded if isinstance(loaded, dict) else {}


def _configuration(run: Path) -> Section:
    config = json.loads((run / 'config.json').read_text())
    section = Section('Configuration', 'Everything that was set, as saved with the run.')
    return section.pairs(list(_flat(config)))


def _flat(config: Any, prefix: str = '') -> Iterator[tuple[str, str]]:
    """Yield ('loss.alpha', '1.0') for nested configuration."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _flat(value, f'{prefix}.{key}' if prefix else str(key))
    else:
        yield prefix, config if isinstance(config, str) else json.dumps(config)
