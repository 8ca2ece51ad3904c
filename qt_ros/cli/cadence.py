"""`qt-ros cadence`: how regular a recorded policy was, and how old what it acted on."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qt_ros.cli.console import DONE, PARTLY, Console
from qt_ros.errors import BagError

HELP = 'rates, periods, ages and lost messages of a recorded policy'
DESCRIPTION = (
    'Say how regularly the policy of a recording decided and commanded, how old the images were '
    'when its commands went out, where the time of a tick went, and what messages it lost. ROS is '
    'not needed. Exit status 3: some recordings could not be read whole, or hold no policy.'
)
SHOWN = 20  # problems that are printed; --json has all


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'bags', type=Path, nargs='+', metavar='BAG', help='recordings, or folders of them'
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """Print the report; status 1 if no recording holds a policy's steps, 3 if some do not."""
    found = measure(args.bags)
    if not found['bags']:
        raise BagError(
            found['problems'] or [f'{_names(args.bags)}: no PolicyStep; record a policy node']
        )
    console.result(found)
    _show(found, console)
    for problem in found['problems'][:SHOWN]:
        console.say(f'! {problem}')
    if len(found['problems']) > SHOWN:
        console.say(f'! and {len(found["problems"]) - SHOWN} more')
    return PARTLY if found['problems'] else DONE


def measure(paths: Sequence[Path]) -> dict[str, Any]:
    """Return {'all': report, 'bags': {path: report}, 'problems': sentences} of recordings."""
    from qt_ros.bags.finding import find_bags
    from qt_ros.cadence import cadence_report, read_steps

    problems: list[str] = []
    rows, reports = [], {}
    for path in paths:
        try:
            bags = find_bags(path)
        except BagError as error:
            problems.append(str(error))
            continue
        for bag in bags:
            try:
                steps = read_steps([bag], problems)
            except BagError as error:
                problems.append(f'{bag}: {error}' if str(bag) not in str(error) else str(error))
                continue
            if steps:
                reports[str(bag)] = cadence_report(steps)
                rows += steps
            else:
                problems.append(f'{bag}: no PolicyStep that can be read; no policy was recorded')
    return {
        'all': cadence_report(rows),
        'bags': reports,
        'problems': list(dict.fromkeys(problems)),
    }


def _show(found: dict[str, Any], console: Console) -> None:
    report = found['all']
    bags = len(found['bags'])
    ticks = report['ticks']
    fates = [
        f'{count} {name}'
        for name, count in ticks.items()
        if not name.startswith(('total', 'over_budget'))
    ]
    console.print(
        f'{report["episodes"]} episode{"s" if report["episodes"] != 1 else ""} in {bags} '
        f'recording{"s" if bags != 1 else ""}, {ticks["total"]} ticks: {", ".join(fates)}; '
        f'{100 * ticks["over_budget_share"]:.2g}% over budget'
    )
    rhythm = ('asked_hz', 'hz', 'period_std_ms', 'period_p99_ms', 'period_max_ms')
    console.table(
        ('rate', 'asked [Hz]', 'is [Hz]', 'period std [ms]', 'p99', 'max'),
        [
            (name, *(_number(report[name][key]) for key in rhythm))
            for name in ('decisions', 'commands')
        ],
    )
    times = [
        ('observation age', report['observation_age']),
        ('command age', report['command_age']),
        *report['split'].items(),
    ]
    console.table(
        ('time [ms]', 'p50', 'p99'),
        [
            (name, _number(time['p50_ms']), _number(time['p99_ms']))
            for name, time in times
            if time['p50_ms'] is not None
        ],
    )
    console.table(
        ('stream', 'received', 'lost', 'share lost'),
        [
            (name, each['received'], each['lost'], f'{100 * (each["lost_share"] or 0):.2g}%')
            for name, each in report['streams'].items()
        ],
    )
    if bags > 1:
        _each(found['bags'], console)


def _each(reports: dict[str, Any], console: Console) -> None:
    """Print a line for each recording, named by what its path does not share with the others."""
    shared = os.path.commonpath(list(reports))
    console.table(
        ('recording', 'ticks', 'over budget', 'Hz', 'std [ms]', 'max', 'age p99'),
        [
            (
                os.path.relpath(path, shared),
                report['ticks']['total'],
                report['ticks']['over_budget'],
                _number(report['rate_hz']),
                _number(report['period_std_ms']),
                _number(report['period_max_ms']),
                _number(report['observation_age_p99_ms']),
            )
            for path, report in reports.items()
        ],
    )


def _number(value: float | None) -> str:
    """Write a number with two decimals: a period of 100.41 ms is not one of 100."""
    return '-' if value is None else f'{value:.2f}'


def _names(paths: Sequence[Path]) -> str:
    return ', '.join(map(str, paths))
