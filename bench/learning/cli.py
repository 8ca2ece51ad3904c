"""The command line: run a study, or one cell of it, or report what is finished.

python -m bench.learning run --study block --jobs 2        the core table, resumable
python -m bench.learning run --study block --minutes 60    stop after an hour, go on later
python -m bench.learning report                            CSV, plots and text so far
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.learning.cell import run_cell
from bench.learning.places import Busy, Cell
from bench.learning.runner import BUSY, DONE, FAILED, STOPPED, Runner
from bench.learning.study import STUDIES, LearningError, Study, load_study
from training.config import load_config
from training.errors import TrainingError

OUT = Path('runs/learning')
RESULTS = Path('docs/results')


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    args = _parser().parse_args(arguments)
    try:
        return args.do(args)
    except Busy as busy:
        print(f'another process works on it: {busy}', file=sys.stderr)
        return BUSY
    except (LearningError, TrainingError) as error:
        print(f'{type(error).__name__}: {error}', file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m bench.learning', description=(__doc__ or '').partition('\n')[0]
    )
    parts = parser.add_subparsers(required=True)
    run = parts.add_parser('run', help='run the cells that are not done yet')
    run.add_argument('--study', choices=STUDIES, default='block')
    run.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    run.add_argument('--methods', nargs='+', help='default: all that are not extras')
    run.add_argument('--extras', action='store_true', help='the extra methods too')
    run.add_argument('--jobs', type=int, default=1, help='processes of one thread each')
    run.add_argument('--minutes', type=float, help='stop cleanly after so long')
    run.set_defaults(do=_run)
    cell = parts.add_parser('cell', help='run one cell in this process')
    cell.add_argument('--study', choices=STUDIES, required=True)
    cell.add_argument('--method', required=True)
    cell.add_argument('--seed', type=int, required=True)
    cell.set_defaults(do=_cell)
    report = parts.add_parser('report', help='write CSV, plots and README of what is finished')
    report.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    report.add_argument('--to', type=Path, default=RESULTS, help='(%(default)s)')
    report.set_defaults(do=_report)
    for part in (run, cell, report):
        part.add_argument('--out', type=Path, default=OUT, help='(%(default)s)')
    for part in (run, cell):
        part.add_argument('--quick', action='store_true', help='tiny sizes: to see that it works')
    return parser


def _run(args: argparse.Namespace) -> int:
    study = load_study(args.study, args.quick)
    cells = cells_of(study, args.out, args.seeds, args.methods, args.extras)
    steps = load_config(study.preset, study.overrides).optim.steps
    return Runner(cells, args.jobs, steps, args.quick).run(args.minutes)


def cells_of(
    study: Study,
    out: Path,
    seeds: Sequence[int],
    methods: Sequence[str] | None = None,
    extras: bool = False,
) -> list[Cell]:
    """Return the cells in the order to run them: the first seed of all methods comes first.

    methods: by name; None for all that are not extras, or all with `extras`.
    """
    if methods is None:
        chosen = [method for method in study.methods if extras or not method.extra]
    else:
        chosen = [study.method(name) for name in methods]
    return [Cell(out, study.name, method.name, seed) for seed in seeds for method in chosen]


def _cell(args: argparse.Namespace) -> int:
    cell = Cell(args.out, args.study, args.method, args.seed)
    return DONE if run_cell(cell, load_study(args.study, args.quick)) else STOPPED


def _report(args: argparse.Namespace) -> int:
    from bench.learning.report import write_report  # matplotlib takes a second to import

    for path in write_report(args.out, args.to, args.seeds):
        print(path)
    return DONE
