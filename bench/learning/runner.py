"""Run cells in processes of one thread each, as many at once as asked for, until time is up.

Nothing is kept in this process: whatever ends it, the same command goes on where things stood.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from bench.learning.places import Cell, read_json
from training.metrics import read_metrics
from training.stopping import stop_signals

DONE, FAILED, STOPPED, BUSY = 0, 1, 3, 4  # exit statuses of a cell's process
TELL_EVERY_S = 60.0
BUSY_WAIT_S = 20.0
# Of evaluating and of making data, against training: for the estimate only.
BESIDES = 1.3


@dataclass
class _Job:
    cell: Cell
    process: subprocess.Popen
    log: TextIO


class Runner:
    """Takes cells through to their results."""

    def __init__(self, cells: Sequence[Cell], jobs: int, steps: int, quick: bool = False) -> None:
        """steps: of each cell's training, for the estimate; quick: pass --quick to the cells."""
        self._cells, self._jobs, self._steps, self._quick = list(cells), jobs, steps, quick
        self._running: list[_Job] = []
        self._failed: list[Cell] = []

    def run(self, minutes: float | None = None) -> int:
        """Work until all is done, or for so many minutes; return the exit status.

        0: all done; 1: a cell failed; 3: stopped before the end.
        """
        end = time.monotonic() + 60 * minutes if minutes is not None else float('inf')
        waiting = [cell for cell in self._cells if not cell.done]
        self._say(
            f'{len(self._cells) - len(waiting)} of {len(self._cells)} cells were done before'
        )
        told = time.monotonic()
        with stop_signals() as received:
            while waiting or self._running:
                if received or time.monotonic() >= end:
                    self._stop()
                    self._say('stopped; the same command goes on from here')
                    return STOPPED
                while waiting and len(self._running) < self._jobs:
                    self._start(waiting.pop(0))
                time.sleep(0.2)
                waiting += self._collect()
                if time.monotonic() - told > TELL_EVERY_S:
                    told = time.monotonic()
                    self._tell()
        self._say(f'{len(self._cells) - len(self._failed)} of {len(self._cells)} cells are done')
        return FAILED if self._failed else DONE

    def _start(self, cell: Cell) -> None:
        cell.folder.mkdir(parents=True, exist_ok=True)
        log = open(cell.folder / 'log.txt', 'a', encoding='utf-8')  # noqa: SIM115
        command = [
            *(sys.executable, '-m', 'bench.learning', 'cell', '--out', str(cell.out)),
            *('--study', cell.study, '--method', cell.method, '--seed', str(cell.seed)),
            *(['--quick'] if self._quick else []),
        ]
        threads = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS'), '1')
        root = str(Path(__file__).resolve().parent.parent.parent)
        path = os.pathsep.join([root, *filter(None, [os.environ.get('PYTHONPATH')])])
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **threads, 'PYTHONPATH': path},
            start_new_session=True,  # Ctrl-C is for this process, which then asks the cells
        )
        self._running.append(_Job(cell, process, log))
        self._say(f'begin {cell}')

    def _collect(self) -> list[Cell]:
        """Take note of processes that ended; return cells to try again."""
        again = []
        for job in [job for job in self._running if job.process.poll() is not None]:
            self._running.remove(job)
            job.log.close()
            status, cell = job.process.returncode, job.cell
            if status == BUSY:
                time.sleep(BUSY_WAIT_S)
                again.append(cell)
            elif cell.done:
                result = read_json(cell.result)
                self._say(f'done  {cell}: {_in_short(result)}; {self._left()}')
            else:
                self._failed.append(cell)
                lines = (cell.folder / 'log.txt').read_text(encoding='utf-8').splitlines()
                last = lines[-1] if lines else ''
                self._say(f'FAILED {cell} (status {status}): {last} [{cell.folder}/log.txt]')
        return again

    def _stop(self) -> None:
        """Ask what runs to save and end, and wait for it."""
        for job in self._running:
            job.process.terminate()
        for job in self._running:
            job.process.wait()
            job.log.close()

    def _tell(self) -> None:
        for job in self._running:
            rows = read_metrics(job.cell.folder / 'run')
            step = rows[-1]['step'] if rows else 0
            self._say(f'      {job.cell}: step {step} of {self._steps}; {self._left()}')

    def _left(self) -> str:
        """Return how long it will take, from the cells so far; by CPU time, so at best."""
        done = [read_json(cell.result) for cell in self._cells if cell.done]
        rest = sum(not cell.done for cell in self._cells) - len(self._failed)
        if done:
            each = sum(r['cpu_training_s'] + r['cpu_judging_s'] for r in done) / len(done)
        else:
            each = self._guess()
        minutes = rest * each / 60 / self._jobs
        return f'{rest} cells left, {minutes:.0f} CPU-minutes per job' if each else f'{rest} left'

    def _guess(self) -> float:
        """Return the CPU seconds of a cell, judged from those under way; 0 if too early."""
        for job in self._running:
            rows = read_metrics(job.cell.folder / 'run')
            spent = read_json(job.cell.folder / 'spent.json')
            if rows and spent:
                return BESIDES * spent['cpu_s'] / rows[-1]['step'] * self._steps
        return 0.0

    def _say(self, text: str) -> None:
        print(f'{time.strftime("%H:%M:%S")} {text}', flush=True)


def _in_short(result: dict) -> str:
    """Return a result's rows in a few words."""
    return ', '.join(
        f'{row["task"]} {row["successes"]}/{row["episodes"]}' if 'successes' in row else str(row)
        for row in result['rows']
    )
