"""`qt-ros train`: learn a policy from datasets."""

from __future__ import annotations

import argparse
from pathlib import Path

from qt_ros.cli.arguments import positive
from qt_ros.cli.console import DONE, STOPPED, Console
from qt_ros.errors import QtRosError

HELP = 'learn a policy from datasets'
DESCRIPTION = (
    'Train a Q-Transformer on datasets of one contract. Any setting of the preset can be changed '
    'with key=value, such as loss.alpha=4 or optim.lr=3e-4. Ctrl-C saves a checkpoint; --resume '
    'goes on from it.'
)
TAKES_SETTINGS = True  # key=value may stand anywhere on the line


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'inputs', nargs='+', metavar='DATASET|key=value', help='datasets, and settings to change'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='RUN', help='run folder')
    parser.add_argument(
        '--preset',
        default='small',
        metavar='P',
        help='tiny, small, base, large or a YAML file (small)',
    )
    parser.add_argument('--steps', type=positive, metavar='N', help='training steps')
    parser.add_argument('--resume', action='store_true', help='go on with the run in RUN')
    parser.add_argument(
        '--init',
        dest='init_from',
        type=Path,
        metavar='RUN',
        help='start from the weights of another run',
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """Train and say what came out."""
    from qt_ros.loop.learning import learn, preset_path
    from training.config import load_config

    settings = [text for text in args.inputs if '=' in text and not Path(text).exists()]
    datasets = [Path(text) for text in args.inputs if text not in settings]
    if not datasets:
        raise QtRosError('no dataset given; name at least one folder that qt-ros convert made')
    if args.steps is not None:
        settings.append(f'optim.steps={args.steps}')
    stored = args.out / 'config.json'
    preset = stored if args.resume and stored.is_file() else preset_path(args.preset)
    config = load_config(preset, settings)
    result = learn(
        datasets,
        args.out,
        config,
        console.task,
        title=f'Training {args.out.name}',
        resume=args.resume,
        init_from=args.init_from,
    )
    console.result(result)
    console.print(
        f'{result.policy_id}: {result.steps} steps in {result.seconds:.0f} s; '
        f'the run is in {args.out}'
    )
    if result.stopped:
        console.say('stopped by hand; a checkpoint is saved, --resume goes on from it')
        return STOPPED
    return DONE
