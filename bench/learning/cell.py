"""One cell: train one method on one seed's data, judge it, write its result."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bench.learning.places import Cell, locked, read_json, ready_data
from bench.learning.study import LearningError, Study
from training import checkpoint
from training.checkpoint import write_json
from training.config import TrainConfig, load_config
from training.errors import TrainingError
from training.train import train


def run_cell(cell: Cell, study: Study) -> bool:
    """Take a cell as far as it goes; return False if a signal stopped its training.

    What was done before is kept: training goes on from its newest checkpoint. Raises Busy where
    another process works on it, LearningError where the folder holds another cell.
    """
    torch.set_num_threads(1)
    with locked(cell.folder / 'lock', wait=False):
        if cell.done:
            return True
        method = study.method(cell.method)
        seed = (f'optim.seed={cell.seed}',)
        config = load_config(study.preset, [*study.overrides, *method.overrides, *seed])
        data, digest = ready_data(cell.out, study, cell.seed)
        _claim(cell, config, digest)
        trained = _train(cell, config, data / 'train')
        if trained is None:
            return False
        began = time.process_time()
        rows = study.evaluate(cell.folder / 'run', data, cell.seed)
        judging_s = time.process_time() - began
        _write_result(cell, study.columns, rows, {**trained, 'cpu_judging_s': judging_s})
    return True


def _claim(cell: Cell, config: TrainConfig, digest: str) -> None:
    """Note what this cell is, or check that it still is."""
    note = {'config': config.to_json(), 'data': digest}
    before = read_json(cell.folder / 'cell.json')
    if before is None:
        write_json(cell.folder / 'cell.json', note)
        return
    then, now = TrainConfig.from_json(before['config']), config
    if then != now or before['data'] != digest:
        what = 'data' if then == now else 'settings'
        raise LearningError(
            f'{cell.folder} was begun with other {what}; finish it with the version of the'
            ' code that began it, choose another --out, or delete it'
        )


def _train(cell: Cell, config: TrainConfig, cache: Path) -> dict[str, Any] | None:
    """Train, or go on; return steps, CPU seconds and what went wrong, None if stopped.

    A training that gave up (its Q collapsed) is judged by its newest checkpoint, and says so.
    """
    run, spent = cell.folder / 'run', cell.folder / 'spent.json'
    before = (read_json(spent) or {'cpu_s': 0.0})['cpu_s']
    began = time.process_time()

    def cpu_s() -> float:
        return before + time.process_time() - began

    def keep(_: Any = None) -> None:
        write_json(spent, {'cpu_s': cpu_s()})

    note = ''
    resume = (run / 'latest.json').exists()
    if resume:
        checkpoint.read_state(checkpoint.find(run))  # a damaged one is not a training that gave up
    try:
        result = train([cache], run, config, resume=resume, progress=keep)
        if result.stopped:
            keep()
            return None
    except TrainingError as error:
        if not (run / 'latest.json').exists():
            raise
        note = f'training gave up: {error}'
    keep()
    steps = checkpoint.read_state(checkpoint.find(run))['step']
    return {'train_steps': steps, 'cpu_training_s': cpu_s(), 'note': note}


def _write_result(
    cell: Cell, columns: Sequence[str], rows: Sequence[Any], figures: dict[str, Any]
) -> None:
    for row in rows:
        if set(row) != set(columns):
            raise LearningError(f'a row of {cell} has {sorted(row)}, expected {sorted(columns)}')
    about = {
        'commit': commit(),
        'date': datetime.now(timezone.utc).date().isoformat(),
        'hardware': hardware(),
        'torch': version('torch'),
    }
    write_json(cell.result, {'rows': [dict(row) for row in rows], **figures, **about})


def commit() -> str:
    """Return the commit of this code, with a + where files were changed since; '' if unknown."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(['git', '-C', here, *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ''

    try:
        changed = git('status', '--porcelain', '--untracked-files=no')
        return git('rev-parse', '--short=10', 'HEAD') + ('+' if changed else '')
    except FileNotFoundError:
        return ''


def hardware() -> str:
    """Return what this ran on: the processor's name and how many threads were used."""
    name = platform.processor() or platform.machine()
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            models = [line.partition(':')[2].strip() for line in file if 'model name' in line]
            name = models[0] if models else name
    except OSError:
        pass
    return f'{name}, 1 thread'
