"""Parse the command line, run one command, and turn what happened into an exit status.

Exit status: 0 done; 1 failed; 2 wrong usage (argparse's own); 3 done in part; 130 stopped by hand.
Nothing heavy is imported here or at the top of a command's file: `qt-ros --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from qt_ros.cli import (
    cadence,
    collect,
    convert,
    demo,
    evaluate,
    import_lerobot,
    info,
    inspect,
    label,
    loop,
    report,
    train,
)
from qt_ros.cli.console import FAILED, STOPPED, Console
from training.errors import UserError

COMMANDS = (
    demo,
    inspect,
    convert,
    import_lerobot,
    label,
    info,
    train,
    evaluate,
    collect,
    loop,
    cadence,
    report,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `qt-ros` with these arguments (default: the process's own); return its exit status."""
    args = parse(argv)
    console = Console(as_json=args.json)
    try:
        signal.signal(signal.SIGTERM, _as_interrupt)
        return int(args.run(args, console))
    except UserError as error:
        console.error(str(error))
        return FAILED
    except BrokenPipeError:  # the reader of our output, say `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        console.error(_about_file(error))
        return FAILED
    except ModuleNotFoundError as error:
        console.error(_about_module(error))
        return FAILED
    except KeyboardInterrupt:
        console.error('stopped by hand; what was finished before is kept')
        return STOPPED


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog='qt-ros',
        description='Learn one multi-task policy from ROS 2 bags of successes and failures, '
        'run it, and let it improve on what it does.',
        epilog='Exit status: 0 done; 1 failed; 2 wrong usage; 3 done in part.',
    )
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for module in COMMANDS:
        name = module.__name__.rpartition('.')[2].replace('_', '-')
        command = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION)
        command.add_argument(
            '--json', action='store_true', help='print the result as JSON, and nothing else'
        )
        module.configure(command)
        command.set_defaults(
            run=module.run, takes_settings=getattr(module, 'TAKES_SETTINGS', False)
        )
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse arguments; argparse ends the process with status 2 when they are wrong.

    argparse takes positional arguments in one stretch only. Where settings may stand anywhere,
    those behind options come back as unknown, and are put with the others.
    """
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    unknown = [text for text in rest if not args.takes_settings or text.startswith('-')]
    if unknown:
        parser.error(f'unrecognized arguments: {" ".join(unknown)}')
    if rest:
        args.inputs = [*args.inputs, *rest]
    return args


def _as_interrupt(number: int, frame: object) -> None:
    """Let SIGTERM unwind like Ctrl-C, so that the nodes that were started are stopped."""
    raise KeyboardInterrupt


def _about_module(error: ModuleNotFoundError) -> str:
    """Say how to install what is missing."""
    extra = '[ros]' if error.name in ('rclpy', 'q_transformer_ros') else '[sim]'
    return (
        f'{error.name} is not installed; this command needs it: '
        f"pip install 'q-transformer-ros{extra}' (in a checkout: make setup)"
    )


def _about_file(error: OSError) -> str:
    """Say what the system refused, without a traceback: 'runs/x: Permission denied'."""
    name = f'{error.filename}: ' if error.filename else ''
    return f'{name}{error.strerror or error}'
