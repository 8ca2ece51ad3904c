"""Find out what a folder is, and write the report that fits it."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from qt_ros.errors import QtRosError
from qt_ros.report.page import page

KINDS = 'a training run (config.json), a dataset (meta/info.json) or a loop (summary.json)'


def build_report(folder: Path, out: Path | None = None) -> Path:
    """Write one HTML file about `folder`, `folder`/report.html unless told, and return its path.

    Raises `QtRosError` if the folder is neither a run, nor a dataset, nor what a loop left.
    """
    folder = Path(folder)
    kind = kind_of(folder)
    title, subtitle, parts = import_module(f'qt_ros.report.{kind}').sections(folder)
    out = Path(out) if out else folder / 'report.html'
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f'.{out.name}.{os.getpid()}')
    temporary.write_text(page(title, subtitle, parts), encoding='utf-8', errors='replace')
    os.replace(temporary, out)
    return out


def kind_of(folder: Path) -> str:
    """Return 'loop', 'dataset' or 'run'; raises `QtRosError` for anything else."""
    if not folder.is_dir():
        raise QtRosError(f'{folder}: no such folder; give {KINDS}')
    if (folder / 'summary.json').is_file():
        return 'loop'
    if (folder / 'meta' / 'info.json').is_file():
        return 'dataset'
    if (folder / 'config.json').is_file():
        return 'run'
    raise QtRosError(f'{folder}: there is nothing to report on here; give {KINDS}')
