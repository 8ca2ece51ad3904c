"""`qt-ros import-lerobot`: a LeRobot v3 set, recorded elsewhere, into a dataset of ours."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qt_ros.cli.console import DONE, FAILED, Console
from qt_ros.errors import DatasetError, QtRosError

if TYPE_CHECKING:
    from qt_ros.contract import Contract
    from qt_ros.lerobot import Source

HELP = 'demonstrations from a LeRobot v3 set into a dataset, appending to it'
DESCRIPTION = (
    'Import the episodes of a LeRobot v3 set. Cameras, joints and actions are matched to the '
    'contract by name. Outcomes come from next.success, or from --outcome. Episodes that the '
    'dataset has already are passed over. The set itself is only read.'
)
_OUTCOMES = ('success', 'failure', 'timeout', 'aborted', 'unknown')
_SOURCES = ('teleop', 'policy', 'mixed')


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('set', type=Path, metavar='DATASET', help='folder of a LeRobot v3 set')
    parser.add_argument('--out', type=Path, metavar='OUT', help='dataset to make or extend')
    parser.add_argument(
        '--contract', type=Path, help='contract (YAML); without it that of OUT, if there is one'
    )
    parser.add_argument(
        '--suggest', type=Path, metavar='FILE', help='write a first contract to this new file'
    )
    parser.add_argument(
        '--outcome', choices=_OUTCOMES, help='outcome of every episode, whatever the set says'
    )
    parser.add_argument(
        '--source', choices=_SOURCES, help='who drove (else what the set says, else teleop)'
    )
    parser.add_argument(
        '--map',
        action='append',
        default=[],
        metavar='OURS=THEIRS',
        help='a camera, state entry or action dimension of the contract, and its name in the set',
    )
    parser.add_argument(
        '--actions',
        choices=('targets', 'changes'),
        help="whether the set's actions say where to go, or how far where the contract says delta",
    )
    parser.add_argument(
        '--episodes', type=episode_numbers, metavar='0,3,5-9', help='only these episodes'
    )


def episode_numbers(text: str) -> list[int]:
    """Parse '0,3,5-9' into numbers."""
    found: list[int] = []
    for part in text.split(','):
        first, dash, last = part.partition('-')
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(
                f'{text!r}: numbers and ranges like 0,3,5-9 are needed'
            )
        low, high = int(first), int(last or first)
        if high < low or high - low > 10**6:
            raise argparse.ArgumentTypeError(f'{part!r}: a range goes from a smaller number up')
        found += range(low, high + 1)
    return found


def run(args: argparse.Namespace, console: Console) -> int:
    """Import; status 1 if nothing could be, 3 if some episodes were left out."""
    from qt_ros.lerobot import Source, import_lerobot, parse_names

    names = parse_names(args.map)
    _check(args)
    source = Source(args.set)
    contract = _contract(args, source, console)
    if args.out is None:
        console.result({'status': DONE, 'contract': str(args.suggest)})
        return DONE
    with console.task('Importing') as task:
        result = import_lerobot(
            source,
            args.out,
            contract,
            outcome=args.outcome,
            source=args.source,
            names=names,
            actions=args.actions,
            episodes=args.episodes,
            progress=lambda at: task.update(
                at['done'], at['total'], f'{at["episodes"]} episodes, {at["rows"]} rows'
            ),
        )
    report = result.report
    console.result(report)
    if result.status == FAILED:
        raise QtRosError([f'nothing was written to {args.out}', *report['problems']])
    _show(report, console)
    for problem in report['problems']:
        console.say(f'! {problem}')
    return result.status


def _check(args: argparse.Namespace) -> None:
    problems = []
    if args.out is None and args.suggest is None:
        problems.append('say where to: --out OUT, or --suggest FILE for a first contract only')
    if args.suggest is not None and args.contract is not None:
        problems.append('give --contract or --suggest, not both')
    if args.suggest is not None and args.suggest.exists():
        problems.append(f'{args.suggest} exists; name a new file for the contract')
    if problems:
        raise DatasetError(problems)


def _contract(args: argparse.Namespace, source: Source, console: Console) -> Contract:
    """Return the contract of the command line, the one that OUT has, or the suggested one."""
    from qt_ros.contract import Contract
    from qt_ros.dataset.layout import CONTRACT
    from qt_ros.lerobot import suggest_contract

    if args.contract is not None:
        return Contract.load(args.contract)
    if args.suggest is None:
        stored = args.out / CONTRACT
        if stored.is_file():
            return Contract.load(stored)
        raise DatasetError(
            f'{args.out} does not exist yet: give --contract FILE, or --suggest FILE to write a'
            ' first one and go on with it'
        )
    text = suggest_contract(source)
    args.suggest.parent.mkdir(parents=True, exist_ok=True)
    args.suggest.write_text(text, encoding='utf-8')
    console.say(f'wrote {args.suggest}: fill in the topics and read what it guesses')
    return Contract.parse(text, origin=str(args.suggest))


def _show(report: dict[str, Any], console: Console) -> None:
    episodes = report['episodes']
    outcomes = ', '.join(f'{count} {name}' for name, count in episodes['by_outcome'].items())
    origin = ', '.join(episodes['outcome_from'])
    console.print(
        f'{episodes["new"]} new episodes ({outcomes or "none"}), {report["rows"]} rows; '
        f'{episodes["already_there"]} already there, {episodes["left_out"]} left out; '
        f'{report["seconds"]:.1f} s'
    )
    console.print(
        f'{report["fps"]:g} frames a second as {report["rate_hz"]:g} ticks; '
        f'actions: {report["actions"]}' + (f'; outcomes from {origin}' if origin else '')
    )
    console.table(
        ('ours', 'theirs'),
        [
            (f'{kind} {ours}', theirs)
            for kind, pairs in report['mapping'].items()
            for ours, theirs in pairs.items()
        ],
    )
    console.table(
        ('action', 'low', 'high', 'found from', 'to', 'share outside'),
        [
            (name, *(each[key] for key in ('low', 'high', 'min', 'max')), _outside(each))
            for name, each in report['ranges'].items()
        ],
    )


def _outside(found: dict[str, Any]) -> float:
    return round(found['below_share'] + found['above_share'], 4)
