"""Where a bench keeps things, and how it writes them: whole or not at all, one process at a time.

OUT/data/<data>/seed_0/           `train` and what else a study made; data.json when complete
OUT/cells/<study>/<method>/seed_0/
    cell.json      what the cell is: settings and data; another one is refused
    spent.json     CPU seconds of training so far, over all interruptions
    run/           the training run with its checkpoints
    result.json    the rows; the cell is done when it exists
    log.txt        what its process said
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.learning.study import LearningError, Study
from training.cache import read_meta
from training.checkpoint import write_json


class Busy(Exception):
    """Another process is at it."""


@dataclass(frozen=True)
class Cell:
    """One study, method and seed, and its folder below `out`."""

    out: Path
    study: str
    method: str
    seed: int

    @property
    def folder(self) -> Path:
        return self.out / 'cells' / self.study / self.method / f'seed_{self.seed}'

    @property
    def result(self) -> Path:
        return self.folder / 'result.json'

    @property
    def done(self) -> bool:
        return self.result.is_file()

    def __str__(self) -> str:
        return f'{self.study} {self.method} seed {self.seed}'


def data_folder(out: Path, study: Study, seed: int) -> Path:
    """Return where the data of a seed lie, or will."""
    return out / 'data' / study.data_name / f'seed_{seed}'


def read_json(path: Path) -> Any:
    """Return the content of a file, None where there is none."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None


@contextmanager
def locked(path: Path, wait: bool) -> Iterator[None]:
    """Hold the lock file `path`; the system lets go of it however this process ends.

    Raises Busy at once where another process holds it, unless told to wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a', encoding='utf-8') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Busy(str(path)) from None
        yield


def ready_data(out: Path, study: Study, seed: int) -> tuple[Path, str]:
    """Return the data folder of a seed and its digest, making the data if they are not there.

    Raises LearningError where what lies there is not what the study would make.
    """
    folder = data_folder(out, study, seed)
    with locked(folder.with_suffix('.lock'), wait=True):
        note = read_json(folder / 'data.json')
        if note is None:
            _make(study, seed, folder)
            note = read_json(folder / 'data.json')
        if note['recipe'] != study.recipe:
            raise LearningError(
                f'{folder} was made as {note["recipe"]!r}, the study asks for {study.recipe!r};'
                ' choose another --out or delete it'
            )
        if note['digest'] != digest(folder / 'train'):
            raise LearningError(f'{folder} has changed since it was made; delete it')
    return folder, note['digest']


def _make(study: Study, seed: int, folder: Path) -> None:
    for left in folder.parent.glob(f'.{folder.name}.*.tmp'):
        shutil.rmtree(left)
    if folder.exists():
        raise LearningError(f'{folder} holds something that was not made here; move it away')
    making = folder.with_name(f'.{folder.name}.{os.getpid()}.tmp')
    making.mkdir(parents=True)
    study.make_data(seed, making)
    note = {'recipe': study.recipe, 'digest': digest(making / 'train'), 'seed': seed}
    write_json(making / 'data.json', note)
    os.replace(making, folder)


def digest(cache: Path) -> str:
    """Return the SHA-256 of a cache but for its images, whose sizes are checked.

    Raises TrainingError for a damaged cache.
    """
    meta = read_meta(cache)
    found = hashlib.sha256((cache / 'meta.json').read_bytes())
    for name in sorted(meta.arrays()):
        if not name.startswith('images.'):
            found.update((cache / name).read_bytes())
    return found.hexdigest()
