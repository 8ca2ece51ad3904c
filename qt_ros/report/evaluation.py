"""The part of a run's report that shows how its evaluations went (see `loop.evaluating`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from qt_ros.loop.evaluating import FOLDER
from qt_ros.report.figures import q_along_episode
from qt_ros.report.film import film_strip
from qt_ros.report.numbers import interval, percent
from qt_ros.report.page import Section


def evaluation_section(run: Path) -> Section:
    """Show each evaluation of a run in a table, and the newest one's film strips."""
    section = Section('Evaluation', 'Success on fresh start states, drawn from the task.')
    files = sorted((run / FOLDER).glob('*.json'), key=lambda path: path.stat().st_mtime)
    results = [json.loads(file.read_text()) for file in files]
    rows = [
        (
            result['policy_id'],
            name,
            task['episodes'],
            percent(task['success_rate']),
            interval(task['interval95']),
        )
        for result in results
        for name, task in (*result['tasks'].items(), ('all', result))
    ]
    section.table(('policy', 'instruction', 'episodes', 'success', '95% interval'), rows)
    if files and files[-1].with_suffix('.npz').is_file():
        _films(section, results[-1], files[-1].with_suffix('.npz'))
    return section


def _films(section: Section, result: dict[str, Any], path: Path) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        for kept in result.get('films', ()):
            prefix = f'{kept["outcome"]}.'
            frames = {
                name.removeprefix(f'{prefix}images.'): arrays[name]
                for name in arrays.files
                if name.startswith(f'{prefix}images.')
            }
            q = arrays[f'{prefix}q']
            section.heading(f'A {kept["outcome"]}: {kept["instruction"]}')
            section.figure(
                film_strip(frames, result['rate_hz'], kept['outcome']),
                f'film strip of a {kept["outcome"]}',
            )
            section.figure(
                q_along_episode(np.arange(len(q)) / result['rate_hz'], q, result['dims']),
                'Q of the chosen bins over time',
                'Q of the chosen bin of each action dimension along this episode.',
            )
