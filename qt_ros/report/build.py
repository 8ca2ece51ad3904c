"""Find out what a folder is, and write the report that fits it."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from qt_ros.bags.finding import find_bags
from qt_ros.errors import BagError, QtRosError
from qt_ros.report.page import page

KINDS = (
    'a training run (config.json), a dataset (meta/info.json), a loop (summary.json) or recordings'
)


def build_report(folder: Path, out: Path | None = None) -> Path:
    """Write one HTML file about `folder`, `folder`/report.html unless told, and return its path.

    Nothing is written among recordings: the report on NAME lies beside it, as NAME.report.html.
    Raises `QtRosError` if the folder is neither a run, nor a dataset, nor what a loop left, nor a
    recording of a policy.
    """
    folder = Path(folder)
    kind = kind_of(folder)
    title, subtitle, parts = import_module(f'qt_ros.report.{kind}').sections(folder)
    if kind == 'recording':
        beside = folder.resolve().with_name(f'{folder.resolve().name}.report.html')
    else:
        beside = folder / 'report.html'
    out = Path(out) if out else beside
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f'.{out.name}.{os.getpid()}')
    temporary.write_text(page(title, subtitle, parts), encoding='utf-8', errors='replace')
    os.replace(temporary, out)
    return out


def kind_of(folder: Path) -> str:
    """Return 'loop', 'dataset', 'run' or 'recording'; raises `QtRosError` for anything else."""
    if folder.is_file():
        return 'recording'
    if not folder.is_dir():
        raise QtRosError(f'{folder}: no such folder; give {KINDS}')
    if (folder / 'summary.json').is_file():
        return 'loop'
    if (folder / 'meta' / 'info.json').is_file():
        return 'dataset'
    if (folder / 'config.json').is_file():
        return 'run'
    try:
        find_bags(folder)
    except BagError:
        raise QtRosError(f'{folder}: there is nothing to report on here; give {KINDS}') from None
    return 'recording'
