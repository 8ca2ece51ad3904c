"""The report on recordings of a policy: its rhythm, and what it saw, valued and did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qt_ros.bags.finding import find_bags
from qt_ros.cadence import PARTS, StepRow, cadence_report, timing
from qt_ros.errors import QtRosError
from qt_ros.report.figures import histograms
from qt_ros.report.film import MOMENTS, film_strip
from qt_ros.report.numbers import words
from qt_ros.report.page import Section
from qt_ros.report.step_figures import limits_over_time, q_strips, times_over_time
from qt_ros.report.steps import DrivenEpisode, film_frames, read_episodes

EPISODES = 4  # that are shown one by one


def sections(path: Path) -> tuple[str, str, list[Section]]:
    """Return title, subtitle and sections of the report on one recording or a folder of them.

    Raises `QtRosError` if no policy was recorded there.
    """
    problems: list[str] = []
    bags = find_bags(path)
    episodes = read_episodes(bags, problems)
    if not episodes:
        raise QtRosError(
            [f'{path}: no policy was recorded there (no PolicyStep to show)', *problems]
        )
    rows = [row for episode in episodes for row in episode.rows]
    report = cadence_report(rows)
    parts = [_short(report), _rhythm(report, rows, problems)]
    parts += [_episode(episode) for episode in episodes[:EPISODES]]
    if len(episodes) > EPISODES:
        rest = Section('Other episodes')
        parts.append(rest.note(f'{len(episodes) - EPISODES} more episodes are not shown here.'))
    tasks = dict.fromkeys(episode.instruction for episode in episodes if episode.instruction)
    subtitle = ' · '.join(f'"{task}"' for task in tasks) or str(path)
    return f'Recording {path.resolve().name}', subtitle, parts


def _short(report: Mapping[str, Any]) -> Section:
    ticks = report['ticks']
    return Section('In short').tiles(
        {
            'episodes': report['episodes'],
            'ticks': ticks['total'],
            'ticks over budget': ticks['over_budget'],
            'decisions per second': report['decisions']['hz'],
            'commands per second': report['commands']['hz'],
            'age of the newest image, 99%': _ms(report['observation_age_p99_ms']),
        }
    )


def _rhythm(
    report: Mapping[str, Any], rows: Sequence[StepRow], problems: Sequence[str]
) -> Section:
    measured = timing(rows)
    section = Section('Control loop', 'From the PolicyStep messages: what the policy node did.')
    section.table(
        ('', 'asked for [Hz]', 'was [Hz]', 'period std [ms]', '99% [ms]', 'longest [ms]'),
        [(name, *map(_exact, report[name].values())) for name in ('decisions', 'commands')],
    )
    ages = [(name.replace('_', ' '), report[name]) for name in ('observation_age', 'command_age')]
    section.table(
        ('time', 'median [ms]', '99% [ms]'),
        [
            (name, _exact(time['p50_ms']), _exact(time['p99_ms']))
            for name, time in [*ages, *((part, report['split'][part]) for part in PARTS)]
            if time['p50_ms'] is not None
        ],
    )
    section.table(
        ('stream', 'received', 'lost'),
        [(name, each['received'], each['lost']) for name, each in report['streams'].items()],
    )
    asked = report['commands']['asked_hz']
    section.figure(
        histograms(
            {
                'Period between commands': (
                    measured.command_periods_ms,
                    'ms',
                    1e3 / asked if asked else None,
                ),
                'Age of the newest image': (measured.ages_ms, 'ms', None),
                'Time for a decision': (measured.inference_ms, 'ms', None),
            }
        ),
        'histograms of periods, ages and inference times',
    )
    for problem in problems:
        section.note(problem)
    return section


def _episode(episode: DrivenEpisode) -> Section:
    """Show one episode: film strip, Q of every bin over time, times and limits."""
    name = episode.instruction or episode.episode_id or 'without a name'
    section = Section(
        f'{episode.outcome or "episode"}: {name}',
        f'{episode.episode_id}, {len(episode.rows)} ticks, {words(episode.times_s[-1])} s',
    )
    frames, rate_hz, problems = film_frames(episode, MOMENTS)
    section.figure(
        film_strip(frames, rate_hz, episode.outcome),
        'film strip',
        'What the policy saw, at evenly spaced ticks.',
    )
    section.figure(
        q_strips(episode),
        'Q of every bin over time',
        'Q of every bin (upwards) of every dimension over time; the line is the chosen bin.',
    )
    section.figure(
        times_over_time(episode),
        'ages, periods and the parts of a tick over time',
        'Ages when commands went out, periods between them, and where the time of a tick went.',
    )
    section.figure(
        limits_over_time(episode),
        'fates of ticks and limits over time',
        'Ticks that sent nothing, and dimensions that a limit changed.',
    )
    for problem in problems:
        section.note(problem)
    return section


def _exact(value: float | None) -> str:
    """Write a number with two decimals: a period of 100.4 ms is not one of 100."""
    return '–' if value is None else f'{value:.2f}'


def _ms(value: float | None) -> str:
    return '–' if value is None else f'{words(value)} ms'
