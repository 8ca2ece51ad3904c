"""Find the files that come with the package, wherever it was installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from qt_ros.errors import QtRosError

PACKAGE = 'q_transformer_ros'


def share_folders() -> list[Path]:
    """Places where `config/`, `launch/` and `msg/` may lie, first match wins.

    A checkout, a colcon workspace (`AMENT_PREFIX_PATH`) and pip's prefix.
    """
    prefixes = [p for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    folders = [Path(__file__).resolve().parent.parent]
    folders += [Path(prefix) / 'share' / PACKAGE for prefix in (*prefixes, sys.prefix)]
    return [folder for folder in folders if (folder / 'package.xml').is_file()]


def resource(relative: str) -> Path:
    """Path of a file that comes with the package, such as `config/robots/block_arm.yaml`.

    Raises `QtRosError` naming the files of that folder when there is no such file.
    """
    folders = share_folders()
    for folder in folders:
        path = folder / relative
        if path.exists():
            return path
    siblings = sorted(
        {p.name for folder in folders for p in (folder / relative).parent.glob('*') if p.is_file()}
    )
    raise QtRosError(
        f'{relative}: this file does not come with the package; '
        f'there is: {", ".join(siblings) or "nothing (is the package installed?)"}'
    )
