"""`qt-ros demo`: the whole loop on the simulated robot."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qt_ros.cli.arguments import natural, positive, seconds
from qt_ros.cli.console import DONE, Console

HELP = 'the whole loop on the simulated robot: record, convert, train, drive, and again'
DESCRIPTION = (
    'Record demonstrations and failed attempts over real topics, convert them, train a small '
    'policy from pixels, let it drive, learn from what it did, and drive again. What an earlier '
    'demo left is moved aside, never deleted.'
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; sizes that are not given are those of the plan."""
    parser.add_argument('--out', type=Path, default=Path('runs/demo'), metavar='DIR')
    sizes = parser.add_argument_group('sizes')
    for name, kind, words in (
        ('--demonstrations', positive, 'expert attempts'),
        ('--noisy', natural, 'clumsy attempts'),
        ('--random', natural, 'random attempts'),
        ('--drive-episodes', positive, 'attempts of the policy in each round'),
        ('--train-steps', positive, 'training steps of round 1'),
        ('--more-steps', positive, 'training steps of round 2'),
    ):
        sizes.add_argument(name, type=kind, metavar='N', help=words)
    sizes.add_argument('--max-duration-s', type=seconds, metavar='S', help='of an attempt')


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the demo and show what came of it."""
    from dataclasses import fields, replace

    from qt_ros.demo import DemoPlan, run_demo

    given = {f.name: getattr(args, f.name, None) for f in fields(DemoPlan)}
    plan = replace(DemoPlan(), **{name: v for name, v in given.items() if v is not None})
    summary = run_demo(args.out, plan, console.task)
    console.result(summary)
    show_rounds(summary, console)
    console.print(f'\nreport   {args.out / "report.html"}')
    console.print(f'summary  {args.out / "summary.json"}')
    return DONE


def show_rounds(summary: dict[str, Any], console: Console) -> None:
    """Print the tables of a loop."""
    console.print()
    rows: list[tuple[object, ...]] = []
    for key, name in (('random_success_rate', 'random'), ('expert_success_rate', 'expert')):
        if summary.get(key) is not None:
            rows.append((name, '', '', '', '', '', f'{summary[key]:.0%}', ''))
    for each in summary['rounds']:
        rows.append(
            (
                f'round {each["round"]}',
                each['demonstrations'],
                each['failures'],
                each['autonomous'],
                each['transitions'],
                f'{each["train_seconds"]:.0f} s',
                f'{each["success_rate"]:.0%} of {each["episodes"]}',
                '{:.0%} to {:.0%}'.format(*each['interval95']),
            )
        )
    columns = ('policy', 'demos', 'failures', 'own', 'rows', 'training', 'success', '95%')
    console.table(columns, rows, title='Success over real topics')
    console.print()
    console.table(('control loop', ''), list(summary['cadence'].items()))
    console.print()
    console.table(('stage', 'seconds'), list(summary['seconds'].items()))
