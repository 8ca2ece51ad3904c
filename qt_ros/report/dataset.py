"""The report on a dataset: outcomes, film strips, actions, and the ages of what was seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qt_ros.dataset import Dataset
from qt_ros.report.episodes import NOT_SUCCESS, film_section, outcomes_section, pick
from qt_ros.report.figures import action_histograms, histograms
from qt_ros.report.numbers import duration
from qt_ros.report.page import Section

SAMPLE = 200  # episodes that are read for histograms, evenly spread


def sections(path: Path) -> tuple[str, str, list[Section]]:
    """Return title, subtitle and sections of the report on a dataset."""
    dataset = Dataset(path)
    contract, episodes = dataset.contract, dataset.episodes
    rows = sum(episode.length for episode in episodes)
    short = Section('In short').tiles(
        {
            'episodes': len(episodes),
            'successes': sum(episode.success for episode in episodes),
            'rows': rows,
            'recorded': duration(rows / contract.rate_hz),
            'rate': f'{contract.rate_hz:g} Hz',
            'state entries': len(contract.state_names),
            'action dimensions': len(contract.dims),
        }
    )
    parts = [short]
    if not episodes:
        short.note('There are no episodes yet; qt-ros convert adds some.')
    else:
        films = Section('Film strips', 'A few moments of one success and of one that was none.')
        film_section(films, dataset, pick(episodes, ('success',)))
        film_section(films, dataset, pick(episodes, NOT_SUCCESS))
        parts += [outcomes_section(episodes), films, *_numbers(dataset)]
    subtitle = f'contract {contract.name} · {contract.hash[:12]} · {path}'
    return f'Dataset {path.name}', subtitle, parts


def _numbers(dataset: Dataset) -> list[Section]:
    """Show the distributions of actions and of the ages of what was seen."""
    contract = dataset.contract
    chosen = np.unique(
        np.linspace(0, len(dataset) - 1, min(SAMPLE, len(dataset))).round().astype(int)
    )
    actions: list[NDArray[np.float32]] = []
    ages: dict[str, list[NDArray[np.float64]]] = {name: [] for name in contract.streams}
    fresh: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in contract.streams}
    for index in chosen:
        columns = dataset.rows(int(index))
        actions.append(columns['action'])
        start_ns = dataset.episodes[int(index)].start_stamp_ns
        ticks_ns = np.array([contract.tick_ns(start_ns, k) for k in range(len(columns['action']))])
        for name in contract.streams:
            ages[name].append((ticks_ns - columns[f'stamp_ns.{name}']) / 1e6)
            fresh[name].append(columns[f'valid.{name}'])
    of = f'{len(chosen)} of {len(dataset)} episodes' if len(chosen) < len(dataset) else 'all rows'
    action = Section('Actions', f'As sent, within the range of the contract ({of}).').figure(
        action_histograms(
            np.concatenate(actions), [(dim.name, dim.low, dim.high) for dim in contract.dims]
        ),
        'distribution of each action dimension',
    )
    joined = {name: np.concatenate(parts) for name, parts in ages.items()}
    age = Section('Observations', f'How old the newest sample was at a tick ({of}).')
    age.figure(
        histograms({name: (values, 'ms', None) for name, values in joined.items()}),
        'age of each stream at the ticks',
    )
    age.table(
        ('stream', 'age p50 ms', 'p99 ms', 'max ms', 'fresh'),
        [
            (
                name,
                *(round(float(np.percentile(values, q)), 1) for q in (50, 99, 100)),
                f'{100 * np.concatenate(fresh[name]).mean():.1f}%',
            )
            for name, values in joined.items()
        ],
    )
    return [action, age]
