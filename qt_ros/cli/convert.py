"""`qt-ros convert`: recordings and a contract into a dataset."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from qt_ros.cli.arguments import positive
from qt_ros.cli.console import FAILED, Console
from qt_ros.errors import QtRosError

HELP = 'recordings and a contract into a dataset (LeRobot v3), appending to it'
DESCRIPTION = (
    'Convert recordings to episodes of a dataset. Episodes that it has already are passed over, '
    'so the command can be repeated when there are new recordings. ROS is not needed.'
)
PROBLEMS_SHOWN = 30
RESULTS = ('converted', 'already there', 'changed', 'failed')  # of a recording
TICKS_LOST = {
    'leading': 'before every stream had a sample',
    'in_gaps': 'in gaps',
    'without_command': 'without a command',
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'bags',
        nargs='+',
        type=Path,
        metavar='BAG',
        help='a recording, or a folder with recordings below it',
    )
    parser.add_argument('--contract', type=Path, required=True, help='contract (YAML)')
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DATASET', help='dataset to make or extend'
    )
    parser.add_argument('--labels', type=Path, metavar='CSV', help='outcomes given after the fact')
    parser.add_argument(
        '--replace',
        action='store_true',
        help='convert anew what the dataset has already, and put it in the place of that',
    )
    parser.add_argument(
        '--workers',
        type=positive,
        metavar='N',
        help=f'recordings converted at a time (default: one for each core, here {cores()})',
    )
    parser.add_argument(
        '--ray',
        nargs='?',
        const='local',
        metavar='ADDRESS',
        help='convert on a Ray cluster: auto or HOST:PORT of its head, which must be trusted and '
        'see the recordings at the same paths; without ADDRESS one is started on this machine',
    )


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1


def run(args: argparse.Namespace, console: Console) -> int:
    """Convert; status 1 if nothing could be, 3 if something was left out."""
    from qt_ros.bags.conversion_report import HISTORY, REPORT
    from qt_ros.bags.converter import convert
    from qt_ros.contract import Contract
    from qt_ros.loop.rounds import problems

    contract = Contract.load(args.contract)
    workers = args.workers or (None if args.ray else cores())
    # Ray prints to stdout what befalls its workers; there only the result belongs.
    with console.task('Converting') as task, redirect_stdout(sys.stderr):
        result = convert(
            args.bags,
            contract,
            args.out,
            labels=args.labels,
            workers=workers,
            ray=args.ray,
            replace=args.replace,
            progress=lambda at: task.update(
                at['done'] + at['under_way'],
                at['total'],
                f'{at["episodes"]} episodes, {at["rows"]} rows',
            ),
        )
    report = result.report
    console.result(report)
    said = problems(report)
    if result.status == FAILED:
        raise QtRosError([f'nothing was written to {args.out}', *said])
    _show(report, contract.rate_hz, console)
    for problem in said[:PROBLEMS_SHOWN]:
        console.say(f'! {problem}')
    if len(said) > PROBLEMS_SHOWN:
        console.say(f'! and {len(said) - PROBLEMS_SHOWN} more, in {args.out / REPORT}')
    console.print(f'{args.out / REPORT} accounts for every message')
    if report['episodes']['already_there']:
        console.print(f'{args.out / HISTORY} does for what earlier runs brought')
    return result.status


def _show(report: dict[str, Any], rate_hz: float, console: Console) -> None:
    for line in _summary(report, rate_hz):
        console.print(line)
    rows = []
    for name, stream in report['streams'].items():
        age = stream['age_ms']
        if age is not None:
            # Whole numbers from 100 ms on, so that a table never says 1e+03.
            ages = [
                round(age[part]) if age[part] >= 100 else age[part]
                for part in ('p50', 'p90', 'p99', 'max')
            ]
            share = _percent(stream['valid_share'])
            rows.append((name, *ages, share, stream['backwards'], stream['duplicates']))
    names = ('stream', 'age p50 [ms]', 'p90', 'p99', 'max', 'in time')
    console.table((*names, 'stamps backwards', 'equal'), rows)
    console.table(
        ('topic', 'read', 'used', 'skipped', 'because'),
        [
            (name, topic['read'], topic['used'], topic['read'] - topic['used'], _because(topic))
            for name, topic in report['topics'].items()
        ],
    )


def _summary(report: dict[str, Any], rate_hz: float) -> Iterator[str]:
    """Yield what a run did, a line for recordings, episodes, ticks that gave no row, and time."""
    bags, episodes, ticks = report['bags'], report['episodes'], report['ticks']
    results = {name: bags[name] for name in RESULTS if name in bags}
    yield f'{_count(bags["total"], "recording")}: {_each(results)}'
    made = [
        f'{_count(episodes["new"], "new episode")}, {_count(report["rows"], "row")}'
        f' ({report["rows"] / rate_hz:.1f} s)'
    ]
    made += [
        f'{_count(episodes[key], "episode")} {word}'
        for word, key in (
            ('of before replaced', 'replaced'),
            ('already there', 'already_there'),
            ('left out for want of a row', 'left_out'),
        )
        if episodes[key]
    ]
    if report['cuts']:
        made.append(f'{_count(report["cuts"], "cut")} at gaps')
    yield '; '.join(made)
    if episodes['new']:
        yield f'outcome: {_each(episodes["by_outcome"])}; source: {_each(episodes["by_source"])}'
    lost = [f'{ticks[key]} {word}' for key, word in TICKS_LOST.items() if ticks.get(key)]
    if lost:
        yield f'{_count(ticks["planned"], "tick")}, of which without a row: {", ".join(lost)}'
    yield (
        f'{report["recorded_s"]:.1f} s of recordings in {report["seconds"]:.1f} s'
        f' ({report["times_real_time"]:.1f} times real time); {report["cpu_seconds"]:.1f} s of CPU'
        f' ({report["times_real_time_per_core"]:.1f} times real time a core)'
    )


def _because(topic: dict[str, Any]) -> str:
    """Return the reasons for which messages of a topic were skipped, the most frequent first."""
    reasons = sorted(topic['skipped'].items(), key=lambda reason: -reason[1])
    if len(reasons) == 1:
        return reasons[0][0]
    return ', '.join(f'{why}: {count}' for why, count in reasons)


def _each(counts: dict[str, int]) -> str:
    return ', '.join(f'{count} {name}' for name, count in counts.items())


def _count(number: int, name: str) -> str:
    return f'{number} {name}' if number == 1 else f'{number} {name}s'


def _percent(share: float) -> str:
    """Return a share as a percentage that says 100 only when nothing is missing."""
    return f'{int(share * 1000) / 10:g}%'
