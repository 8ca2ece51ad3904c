"""The presets of training that come with the package, by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from qt_ros.errors import QtRosError
from qt_ros.resources import share_folders


def presets() -> dict[str, str]:
    """Return {name: what it is for} from the comment each file begins with; small ones first."""
    found = {}
    for folder in reversed(share_folders()):
        for path in (folder / 'config' / 'training').glob('*.yaml'):
            if path.is_file():  # an installed link may have outlived its preset
                found[path.stem] = path
    by_size = sorted(found.values(), key=lambda path: (_ORDER.get(path.stem, 9), path.stem))
    return {path.stem: _purpose(path) for path in by_size}


_ORDER = {name: i for i, name in enumerate(('tiny', 'small', 'base', 'large'))}


def preset_path(name: str) -> Path:
    """Return the file of a preset: a path as it is, or the name of one that comes along.

    Raises QtRosError that lists those.
    """
    path = Path(name)
    if path.suffix in ('.yaml', '.yml', '.json') or path.exists():
        return path
    for folder in share_folders():
        path = folder / 'config' / 'training' / f'{name}.yaml'
        if path.is_file():
            return path
    known = list(presets())
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f'; did you mean {nearest[0]!r}?' if nearest else '.'
    raise QtRosError(
        f'preset {name!r} is not known{hint} There are: {", ".join(known) or "none"}; or name a'
        ' YAML file'
    )


def _purpose(path: Path) -> str:
    """Return the first sentence of the comment that a preset begins with."""
    lines = []
    for line in path.read_text(encoding='utf-8').splitlines():
        if not line.startswith('#'):
            break
        lines.append(line.lstrip('# '))
    first, dot, _ = ' '.join(lines).partition('. ')
    return first + dot.strip()
