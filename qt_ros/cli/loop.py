"""`qt-ros loop`: rounds of collecting, converting, retraining and evaluating."""

from __future__ import annotations

import argparse
from pathlib import Path

from qt_ros.cli.arguments import natural, positive, seconds
from qt_ros.cli.console import DONE, Console
from qt_ros.errors import QtRosError

HELP = 'collect, convert, retrain, evaluate, again, on the simulated robot'
DESCRIPTION = (
    'Let a policy drive the simulated robot, add its attempts to the dataset, train it further, '
    'and again. Round 0 measures the policy as it is; each round after it trains on everything '
    'and drives, which measures the round and gathers data for the next.'
)
TAKES_SETTINGS = True  # key=value may stand anywhere on the line
SEED = 20_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('inputs', nargs='*', metavar='key=value', help='training settings')
    parser.add_argument('--rounds', type=positive, required=True, metavar='N')
    parser.add_argument('--run', dest='run_folder', type=Path, required=True, metavar='RUN',
                        help='the policy to begin with')  # fmt: skip
    parser.add_argument('--dataset', type=Path, required=True, metavar='DATASET',
                        help='what it was trained on; attempts are appended')  # fmt: skip
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='a new folder')
    parser.add_argument('--episodes', type=positive, default=24, metavar='N',
                        help='attempts in each round (24)')  # fmt: skip
    parser.add_argument('--steps', type=positive, metavar='N', help='training steps of a round')
    parser.add_argument(
        '--tasks', nargs='+', default=[], metavar='TEXT', help='instructions (as trained)'
    )
    parser.add_argument(
        '--max-duration-s', type=seconds, default=7.0, metavar='S', help='of an attempt (7)'
    )
    parser.add_argument('--seed', type=natural, default=SEED, metavar='N', help='of scene 0')


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the rounds and show what came of them."""
    from qt_ros.cli.demo import show_rounds
    from qt_ros.cli.evaluate import known_tasks
    from qt_ros.dataset import Dataset
    from qt_ros.loop import Loop, Settings
    from qt_ros.loop.driving import contract_of, instructions_of
    from qt_ros.report import build_report

    contract = contract_of(args.run_folder)
    stored = Dataset(args.dataset).contract
    if stored.hash != contract.hash:
        raise QtRosError(
            f'{args.dataset} was made with contract {stored.name} ({stored.hash[:12]}), '
            f'{args.run_folder} was trained for {contract.name} ({contract.hash[:12]}); '
            'use a dataset and a run of the same contract'
        )
    if args.out.exists() and any(args.out.iterdir()):
        raise QtRosError(f'{args.out} is not empty; name a new folder for the loop')
    loop = Loop(
        root=args.out,
        contract=contract,
        dataset=args.dataset,
        settings=Settings(
            instructions=tuple(known_tasks(args.tasks) or instructions_of(args.run_folder)),
            drive_episodes=args.episodes,
            max_duration_s=args.max_duration_s,
            preset=None,
            overrides=tuple(args.inputs),
            drive_seed=args.seed,
        ),
        tasks=console.task,
        run=args.run_folder,
    )
    for number in range(args.rounds + 1):
        loop.round(number, args.steps)
    summary = loop.summary(dataset=str(args.dataset.resolve()))
    build_report(args.out)
    console.result(summary)
    show_rounds(summary, console)
    console.print(f'\nreport   {args.out / "report.html"}')
    return DONE
