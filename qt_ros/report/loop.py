"""The report on a whole loop, such as `qt-ros demo` leaves behind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qt_ros.bags.finding import find_bags
from qt_ros.cadence import StepRow, read_steps, timing
from qt_ros.dataset import Dataset, EpisodeMeta
from qt_ros.report.episodes import NOT_SUCCESS, film_section, outcomes_section, pick
from qt_ros.report.figures import (
    BLUE,
    GREEN,
    QUIET,
    Bar,
    histograms,
    learning_curves,
    success_rates,
)
from qt_ros.report.numbers import duration, interval, percent, words
from qt_ros.report.page import Section
from qt_ros.report.run import read_metrics

WHAT = {  # stage -> what happened in it
    'record_demonstrations': 'a scripted teleoperator demonstrated the tasks over topics',
    'record_noisy': 'it made clumsy attempts, most of which fail',
    'record_random': 'random moves, to know what luck is worth',
    'convert': 'recordings were converted to episodes of the dataset',
    'train': 'the Q-Transformer was trained',
    'drive': 'the policy node drove the arm in real time; attempts were recorded and judged',
}


def sections(root: Path) -> tuple[str, str, list[Section]]:
    """Return title, subtitle and sections of the report on a loop."""
    summary = json.loads((root / 'summary.json').read_text(encoding='utf-8'))
    dataset = _dataset(root, summary)
    newest = root / 'bags' / f'round_{summary["rounds"][-1]["round"]}'
    steps = read_steps(find_bags(newest)) if newest.is_dir() else []
    episodes = dataset.episodes if dataset else []
    driven = [e for e in episodes if Path(e.bag_uri).parent.name == newest.name]
    parts = [
        _short(summary),
        _rates(summary),
        _stages(summary),
        _learning(root, summary),
        *([outcomes_section(episodes)] if episodes else []),
        *([_films(dataset, driven, episodes, steps)] if dataset else []),
        _rhythm(summary, steps, dataset.contract.rate_hz if dataset else None),
    ]
    tasks = list(dict.fromkeys(episode.instruction for episode in episodes))
    subtitle = ' · '.join(f'"{task}"' for task in tasks) or str(root)
    return f'The closed loop: {root.name}', subtitle, parts


def _dataset(root: Path, summary: Mapping[str, Any]) -> Dataset | None:
    path = Path(summary.get('dataset', root / 'dataset'))
    return Dataset(path) if (path / 'meta' / 'info.json').is_file() else None


def _short(summary: Mapping[str, Any]) -> Section:
    final = summary['rounds'][-1]
    facts: dict[str, object] = {}
    for key, name in (
        ('random_success_rate', 'success by chance'),
        ('expert_success_rate', 'success of the expert'),
    ):
        if summary.get(key) is not None:
            facts[name] = percent(summary[key])
    facts[f'success of the policy, round {final["round"]}'] = percent(final['success_rate'])
    facts['95% interval of that'] = interval(final['interval95'])
    facts['transitions learned from'] = final['transitions']
    facts['rate of commands'] = _unit(summary['cadence']['rate_hz'], 'Hz')
    facts['time'] = duration(summary['seconds'].get('total'))
    where = 'over ROS 2 topics' if summary['over_ros'] else 'in process'
    return Section('In short', f'Rates of the policy were measured {where}.').tiles(facts)


def _rates(summary: Mapping[str, Any]) -> Section:
    bars: list[Bar] = []
    if summary.get('random_success_rate') is not None:
        bars.append(('random', summary['random_success_rate'], None, QUIET))
    for each in summary['rounds']:
        low, high = each['interval95']
        bars.append((f'round {each["round"]}', each['success_rate'], (low, high), BLUE))
    if summary.get('expert_success_rate') is not None:
        bars.append(('expert', summary['expert_success_rate'], None, GREEN))
    section = Section('Success', 'Each attempt began at a start state that no one had seen.')
    section.figure(success_rates(bars), 'success rates')
    return section.table(
        ('round', 'demonstrations', 'failures', 'own attempts', 'transitions', 'training',
         'success', 'episodes', '95% interval'),
        [
            (
                each['round'],
                each['demonstrations'],
                each['failures'],
                each['autonomous'],
                each['transitions'],
                duration(each['train_seconds']),
                percent(each['success_rate']),
                each['episodes'],
                interval(each['interval95']),
            )
            for each in summary['rounds']
        ],
    )  # fmt: skip


def _stages(summary: Mapping[str, Any]) -> Section:
    rows = []
    for stage, seconds in summary['seconds'].items():
        if stage != 'total':
            key = stage if stage in WHAT else stage.partition('_')[0]
            rows.append((stage.replace('_', ' '), WHAT.get(key, ''), duration(seconds)))
    rows.append(('together', '', duration(summary['seconds'].get('total'))))
    return Section('What happened').table(('stage', 'what', 'time'), rows)


def _learning(root: Path, summary: Mapping[str, Any]) -> Section:
    runs = []
    for each in summary['rounds']:
        metrics = read_metrics(root / f'round_{each["round"]}' / 'metrics.csv')
        if metrics:
            runs.append((f'round {each["round"]}', metrics))
    section = Section(
        'Learning',
        'Losses, and the Q-values given to recorded actions: those that led to success should '
        'stand above those that did not.',
    )
    return section.figure(learning_curves(runs), 'losses and Q-values over training steps')


def _films(
    dataset: Dataset,
    driven: Sequence[EpisodeMeta],
    episodes: Sequence[EpisodeMeta],
    steps: Sequence[StepRow],
) -> Section:
    """Show a success and a failure of the newest policy; where it had none, somebody else's."""
    section = Section(
        'Film strips', 'What both cameras saw in one success and in one attempt that was none.'
    )
    earlier = [episode for episode in episodes if episode.source == 'policy']
    for outcomes in (('success',), NOT_SUCCESS):
        chosen = pick(driven, outcomes) or pick(earlier, outcomes) or pick(episodes, outcomes)
        film_section(section, dataset, chosen, steps)
    return section


def _rhythm(
    summary: Mapping[str, Any], steps: Sequence[StepRow], rate_hz: float | None
) -> Section:
    cadence = summary['cadence']
    measured = timing(steps)
    section = Section(
        'Control loop', 'The newest round, from the PolicyStep messages of its recordings.'
    )
    section.tiles(
        {
            'commands per second': words(cadence['rate_hz']),
            'spread of the period (std)': _unit(cadence['period_std_ms'], 'ms'),
            'longest period': _unit(cadence['period_max_ms'], 'ms'),
            'age of the newest image, median': _unit(cadence['observation_age_p50_ms'], 'ms'),
            'age of the newest image, 99%': _unit(cadence['observation_age_p99_ms'], 'ms'),
            'time for a decision, median': _unit(cadence['inference_p50_ms'], 'ms'),
        }
    )
    wanted = 1e3 / rate_hz if rate_hz else None
    section.figure(
        histograms(
            {
                'Period between commands': (measured.periods_ms, 'ms', wanted),
                'Age of the newest image': (measured.ages_ms, 'ms', None),
                'Time for a decision': (measured.inference_ms, 'ms', None),
            }
        ),
        'histograms of periods, ages and inference times',
    )
    late = Counter(step.late for step in steps)[True]
    if late:
        section.note(f'{late} of {len(steps)} decisions missed their tick and were discarded.')
    return section


def _unit(value: float | None, unit: str) -> str:
    return '–' if value is None else f'{words(value)} {unit}'
