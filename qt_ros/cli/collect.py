"""`qt-ros collect`: let a policy make attempts on the simulated robot, recorded and labelled."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from qt_ros.cli.arguments import natural, positive, seconds
from qt_ros.cli.console import DONE, PARTLY, Console

HELP = 'autonomous attempts on the simulated robot, recorded and labelled'
DESCRIPTION = (
    'Let a trained policy drive the simulated robot over topics in real time; each attempt is '
    'recorded as a bag and labelled by the simulator. For your own robot use '
    '`ros2 launch q_transformer_ros collect.launch.py`.'
)
SEED = 7_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('run_folder', type=Path, metavar='RUN', help='run or checkpoint folder')
    parser.add_argument('--episodes', type=positive, required=True, metavar='N')
    parser.add_argument(
        '--out', type=Path, required=True, metavar='BAGS', help='folder for the recordings'
    )
    parser.add_argument(
        '--tasks', nargs='+', default=[], metavar='TEXT', help='instructions (as trained)'
    )
    parser.add_argument(
        '--max-duration-s', type=seconds, default=7.0, metavar='S', help='of an attempt (7)'
    )
    parser.add_argument('--seed', type=natural, default=SEED, metavar='N', help='of scene 0')


def run(args: argparse.Namespace, console: Console) -> int:
    """Collect; status 3 if some attempts were aborted."""
    from qt_ros.cli.evaluate import known_tasks
    from qt_ros.loop import drive
    from qt_ros.loop.driving import instructions_of

    tasks = known_tasks(args.tasks) or instructions_of(args.run_folder)
    with console.task('Collecting', args.episodes) as task:
        attempts = drive(
            args.run_folder,
            tasks,
            args.episodes,
            args.out,
            args.out / '.logs',
            seed=args.seed,
            max_duration_s=args.max_duration_s,
            task=task,
        )
    console.result(
        {
            'bags': str(args.out),
            'outcomes': Counter(attempt.outcome for attempt in attempts),
            'attempts': attempts,
        }
    )
    counts = Counter((attempt.instruction, attempt.outcome) for attempt in attempts)
    console.table(
        ('instruction', 'outcome', 'attempts'),
        [(*key, count) for key, count in sorted(counts.items())],
    )
    aborted = [attempt for attempt in attempts if attempt.outcome == 'aborted']
    for attempt in aborted:
        console.say(f'! aborted: {attempt.message}')
    return PARTLY if aborted or len(attempts) < args.episodes else DONE
