"""`qt-ros report`: one HTML file about a run, a dataset or a loop."""

from __future__ import annotations

import argparse
from pathlib import Path

from qt_ros.cli.console import DONE, Console

HELP = 'one HTML file with the plots and film strips of a run, a dataset or a loop'
DESCRIPTION = (
    'Write one self-contained HTML file: learning curves, outcomes, film strips, Q-values along '
    'an episode, timing. It lies in the folder that it is about unless --out says otherwise.'
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'folder', type=Path, metavar='RUN|DATASET', help='or what demo and loop made'
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='(report.html in that folder)')


def run(args: argparse.Namespace, console: Console) -> int:
    """Write the report."""
    from qt_ros.report import build_report

    path = build_report(args.folder, args.out)
    console.result({'report': str(path)})
    console.print(str(path))
    return DONE
