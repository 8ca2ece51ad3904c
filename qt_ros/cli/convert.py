"""`qt-ros convert`: recordings and a contract into a dataset."""

from __future__ import annotations

import argparse
import os
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
        '--workers', type=positive, default=cores(), metavar='N', help='processes (%(default)s)'
    )


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1


def run(args: argparse.Namespace, console: Console) -> int:
    """Convert; status 1 if nothing could be, 3 if something was left out."""
    from qt_ros.bags.converter import REPORT, convert
    from qt_ros.contract import Contract
    from qt_ros.loop.rounds import problems

    contract = Contract.load(args.contract)
    with console.task('Converting') as task:
        result = convert(
            args.bags,
            contract,
            args.out,
            labels=args.labels,
            workers=args.workers,
            progress=lambda at: task.update(
                at['done'], at['total'], f'{at["episodes"]} episodes, {at["rows"]} rows'
            ),
        )
    report = result.report
    console.result(report)
    if result.status == FAILED:
        raise QtRosError([f'nothing was written to {args.out}', *problems(report)])
    _show(report, console)
    for problem in problems(report):
        console.say(f'! {problem}')
    console.print(f'{args.out / REPORT} accounts for every message')
    return result.status


def _show(report: dict[str, Any], console: Console) -> None:
    episodes = report['episodes']
    outcomes = ', '.join(f'{count} {name}' for name, count in episodes['by_outcome'].items())
    console.print(
        f'{episodes["new"]} new episodes ({outcomes or "none"}), {report["rows"]} rows; '
        f'{episodes["already_there"]} already there, {episodes["left_out"]} left out; '
        f'{report["seconds"]:.1f} s, {report["times_real_time"]:.1f} times real time'
    )
    rows = []
    for name, stream in report['streams'].items():
        age = stream['age_ms'] or {}
        valid = stream['valid_share']
        rows.append((name, age.get('p50'), age.get('p99'), age.get('max'), valid))
    console.table(('stream', 'age p50 ms', 'p99', 'max', 'fresh share'), rows)
    console.table(
        ('topic', 'read', 'used', 'skipped because'),
        [
            (
                name,
                topic['read'],
                topic['used'],
                ', '.join(f'{why} {count}' for why, count in topic['skipped'].items() if count),
            )
            for name, topic in report['topics'].items()
        ],
    )
