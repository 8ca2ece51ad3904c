"""`qt-ros evaluate`: measure a policy on the simulated robot."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from qt_ros.cli.arguments import natural, positive, seconds
from qt_ros.cli.console import DONE, Console

HELP = 'measure a policy on the simulated robot, in process or over real topics'
DESCRIPTION = (
    'Let a trained policy try its tasks from fresh start states, and count. In process this needs '
    'no ROS; with --ros the policy node drives the simulated robot over topics in real time, and '
    'the rhythm of its control loop is measured too.'
)
SEED = 5_000_000  # first scene; far from those of demonstrations


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('run_folder', type=Path, metavar='RUN', help='run or checkpoint folder')
    parser.add_argument('--episodes', type=positive, default=20, metavar='N', help='(20)')
    parser.add_argument(
        '--tasks', nargs='+', default=[], metavar='TEXT', help='instructions (as trained)'
    )
    parser.add_argument('--ros', action='store_true', help='over topics, in real time')
    parser.add_argument(
        '--max-duration-s', type=seconds, default=7.0, metavar='S', help='of an attempt (7)'
    )
    parser.add_argument('--seed', type=natural, default=SEED, metavar='N', help='of scene 0')


def run(args: argparse.Namespace, console: Console) -> int:
    """Evaluate and show success by task."""
    found = _over_topics(args, console) if args.ros else _in_process(args, console)
    console.result(found)
    groups = [*found['tasks'].items(), ('all', found)]
    console.table(
        ('instruction', 'episodes', 'success', '95% interval'),
        [
            (
                name,
                group['episodes'],
                f'{group["success_rate"]:.0%}',
                '{:.0%} to {:.0%}'.format(*group['interval95']),
            )
            for name, group in groups
        ],
        title=found['policy_id'],
    )
    if 'cadence' in found:
        console.table(('control loop', ''), list(found['cadence'].items()))
    return DONE


def _in_process(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    from qt_ros.loop.driving import contract_of
    from qt_ros.loop.evaluating import evaluate_in_process

    rate_hz = contract_of(args.run_folder).rate_hz
    with console.task('Evaluating', args.episodes) as task:
        return evaluate_in_process(
            args.run_folder,
            args.tasks,
            args.episodes,
            seed=args.seed,
            max_steps=round(args.max_duration_s * rate_hz),
            task=task,
        )


def _over_topics(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    from qt_ros.cadence import cadence, read_steps
    from qt_ros.loop import drive
    from qt_ros.loop.attempts import bags_of
    from qt_ros.loop.driving import instructions_of, policy_id_of
    from qt_ros.loop.evaluating import rates, store

    tasks = known_tasks(args.tasks) or instructions_of(args.run_folder)
    logs = args.run_folder / 'logs' / 'evaluate'
    with (
        tempfile.TemporaryDirectory(prefix='qt_ros_evaluate_') as bags,
        console.task('Evaluating over topics', args.episodes) as task,
    ):
        attempts = drive(
            args.run_folder,
            tasks,
            args.episodes,
            Path(bags),
            logs,
            seed=args.seed,
            max_duration_s=args.max_duration_s,
            task=task,
        )
        rhythm = cadence(read_steps(bags_of(attempts)))
    summary = {
        'policy_id': policy_id_of(args.run_folder),
        'over_ros': True,
        **rates([(attempt.instruction, attempt.outcome == 'success') for attempt in attempts]),
        'aborted': sum(attempt.outcome == 'aborted' for attempt in attempts),
        'cadence': rhythm,
    }
    store(args.run_folder, summary, {})
    return summary


def known_tasks(tasks: list[str]) -> list[str]:
    """Return instructions as the simulator spells them; raises SimError for unknown ones."""
    from qt_ros.sim.tasks import parse

    return [parse(task).instruction for task in tasks]
