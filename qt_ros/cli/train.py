"""`qt-ros train`: learn a policy from datasets."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from qt_ros.cli.arguments import positive
from qt_ros.cli.console import DONE, STOPPED, Console
from qt_ros.errors import QtRosError
from qt_ros.presets import preset_path, presets
from qt_ros.progress import nobody

if TYPE_CHECKING:
    from training.train import TrainResult

HELP = 'learn a policy from datasets'
DESCRIPTION = (
    'Train a Q-Transformer on datasets of one contract. Any setting of the preset can be changed '
    'with key=value, such as loss.alpha=4 or optim.lr=3e-4; docs/training.md lists them. Ctrl-C '
    'saves a checkpoint; --resume goes on from it.'
)
TAKES_SETTINGS = True  # key=value may stand anywhere on the line


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(DESCRIPTION, 79)
    parser.epilog = 'presets:\n' + '\n'.join(
        textwrap.fill(f'{name:<8}{purpose}', 79, initial_indent='  ', subsequent_indent=' ' * 10)
        for name, purpose in presets().items()
    )
    parser.add_argument(
        'inputs', nargs='+', metavar='DATASET|key=value', help='datasets, and settings to change'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='RUN', help='run folder')
    parser.add_argument(
        '--preset',
        default='small',
        metavar='P',
        help='one of those below, or a YAML file (small)',
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
    from qt_ros.loop.learning import leads, learn
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
        console.task if leads() else nobody,
        title=f'Training {args.out.name}',
        resume=args.resume,
        init_from=args.init_from,
    )
    if leads():
        _report(console, args.out, result)
    return STOPPED if result.stopped else DONE


def _report(console: Console, out: Path, result: TrainResult) -> None:
    """Say what came out."""
    console.result(result)
    console.print(
        f'{result.policy_id}: {result.steps} steps in {result.seconds:.0f} s; the run is in {out}'
    )
    if result.stopped:
        console.say('stopped by hand; a checkpoint is saved, --resume goes on from it')
