"""Run cases in a process of their own, watched from outside: it may hang, swell or crash.

The worker is kept from case to case, because importing and preparing cost a second; what it holds
is measured from a fresh mark at each case. It is started anew after a failure of the process and
after `CASES_PER_WORKER` cases.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import shutil
import time
import traceback
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from fuzz_material import Material

MAX_MB = 2000.0  # resident memory at the peak
MAX_WALL_S = 60.0  # a machine that is busy elsewhere stretches the 10 s of CPU that are allowed
KILL_MB = 2500.0
GUARD_BYTES = 6 << 30  # of address space for data: what asks for more gets a MemoryError
FILE_BYTES = 1 << 30  # in one file
CASES_PER_WORKER = 250
_POLL_S = 0.2


def peak_mb(pid: int | str = 'self') -> float:
    """Return the highest resident memory since the last `mark_peak` [MB]; 0 if it is gone."""
    try:
        for line in Path(f'/proc/{pid}/status').read_text().splitlines():
            if line.startswith('VmHWM:'):
                return int(line.split()[1]) / 1000
    except OSError:
        pass
    return 0.0


def mark_peak() -> None:
    """Measure peaks from here on."""
    Path('/proc/self/clear_refs').write_text('5')


def _serve(pipe: Connection, material: Material, folder: Path) -> None:
    """Run cases until the parent has no more; each is answered with its outcome or a traceback."""
    log = (folder / 'worker.log').open('wb', buffering=0)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    faulthandler.enable(log)
    resource.setrlimit(resource.RLIMIT_DATA, (GUARD_BYTES, GUARD_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import cv2
    from fuzz_cases import run_case

    cv2.setNumThreads(1)
    while (case := pipe.recv()) is not None:
        seed, number = case
        mark_peak()
        try:
            answer: Any = run_case(seed, number, material, folder / 'case')
        except Exception:  # noqa: BLE001 - a mistake of the fuzzer itself, told by the parent
            answer = traceback.format_exc()
        pipe.send((answer, peak_mb()))


class Worker:
    """One watched process; `run` never raises for what the case does."""

    def __init__(self, material: Material, folder: Path) -> None:
        self.material = material
        self.folder = folder
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._cases = 0

    def run(self, seed: int, number: int) -> Any:
        """Return the `Outcome` of a case; its input lies in `case/input` until the next."""
        from fuzz_cases import Outcome
        from fuzz_inputs import family_of

        shutil.rmtree(self.folder / 'case', ignore_errors=True)
        self._start()
        assert self._process is not None
        assert self._pipe is not None
        begin = time.perf_counter()
        self._pipe.send((seed, number))
        answer, peak, problem = self._wait(begin)
        wall = time.perf_counter() - begin
        if isinstance(answer, Outcome) and peak <= MAX_MB:
            return Outcome(**{**vars(answer), 'peak_mb': peak})
        if isinstance(answer, Outcome):
            problem = f'took {peak:.0f} MB'
        elif isinstance(answer, str):
            problem = f'the fuzzer itself failed: {answer}'
        self.stop()
        family = family_of(seed, number)
        return Outcome(seed, number, family, '', 'failed', (problem,), wall, wall, peak)

    def stop(self) -> None:
        """End the process; the next case starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def _start(self) -> None:
        if self._cases >= CASES_PER_WORKER:
            self.stop()
        self._cases += 1
        if self._process is not None:
            return
        self._cases = 1
        self.folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context('spawn')
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self.material, self.folder), daemon=True
        )
        self._process.start()
        theirs.close()

    def _wait(self, begin: float) -> tuple[Any, float, str]:
        """Wait for the answer; return (answer or None, peak [MB], why there is none)."""
        assert self._process is not None
        assert self._pipe is not None
        peak = 0.0
        while True:
            try:
                if self._pipe.poll(_POLL_S):
                    answer, peak = self._pipe.recv()
                    return answer, peak, ''
            except (EOFError, OSError):
                self._process.join()
                code = self._process.exitcode
                tail = (self.folder / 'worker.log').read_text(errors='replace')[-1500:]
                return None, peak, f'the process ended with {code}: {tail}'
            peak = max(peak, peak_mb(self._process.pid or 0))
            if peak > KILL_MB:
                return None, peak, f'took {peak:.0f} MB and was killed'
            if time.perf_counter() - begin > MAX_WALL_S:
                return None, peak, f'hung: more than {MAX_WALL_S:.0f} s, and was killed'
