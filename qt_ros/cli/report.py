"""`qt-ros report`: one HTML file about a run, a dataset, a loop or recordings of a policy."""

from __future__ import annotations

import argparse
from pathlib import Path

from qt_ros.cli.console import DONE, Console

HELP = 'one HTML file with the plots and film strips of a run, a dataset, a loop or recordings'
DESCRIPTION = (
    'Write one self-contained HTML file: learning curves, outcomes, film strips, Q-values along '
    'an episode, timing; of a recorded policy Q of every bin over time, ages, periods and limits. '
    'It lies in the folder that it is about, that on recordings beside them, unless --out says '
    'otherwise.'
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'folder', type=Path, metavar='RUN|DATASET|BAG', help='or what demo and loop made'
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='(report.html there)')


def run(args: argparse.Namespace, console: Console) -> int:
    """Write the report."""
    from qt_ros.report import build_report

    path = build_report(args.folder, args.out)
    console.result({'report': str(path)})
    console.print(str(path))
    return DONE
