"""Where bags are converted: in this process, in several, or on a Ray cluster.

Workers do all the heavy work: they read, decode, resize, encode, check and sum the videos. What is
left for the committing process is a few milliseconds an episode.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from queue import SimpleQueue
from types import TracebackType

import cv2

from qt_ros.bags.meter import Tell
from qt_ros.bags.scheduling import WorkerDied, in_order
from qt_ros.bags.work import BagResult, BagTask, convert_bag
from qt_ros.errors import BagError, QtRosError

TellOf = Callable[[BagTask, float], None]
PRELOAD = ['qt_ros.bags.pools']  # imported once for all workers, where the platform can fork


def check_pool(workers: int | None, ray: str | None) -> None:
    """Raise `BagError` for what `run_tasks` could not work with, before anything is written."""
    if workers is not None and workers < 1:
        raise BagError(f'workers is {workers}; allowed: 1 or more')
    if ray is not None:
        from qt_ros.bags import ray_pool

        ray_pool.check(ray)


def run_tasks(
    tasks: Sequence[BagTask],
    workers: int | None,
    stack: ExitStack,
    ray: str | None = None,
    tell: TellOf = lambda task, share: None,
) -> Iterator[BagResult]:
    """Yield results in the order of the tasks; closing `stack` ends all processes at once.

    `workers`: bags at a time; None: 1, or with `ray` (an address, see `ray_pool`) as many as the
    cluster has cores. `tell` hears, from any thread, how much of a bag is done while it is being
    converted on this machine. Raises `BagError` if workers cannot be started.
    """
    if not tasks:
        return
    if ray is not None:
        from qt_ros.bags.ray_pool import RayPool

        cluster = stack.enter_context(RayPool(ray, workers))
        yield from in_order(tasks, cluster.call, min(cluster.slots, len(tasks)), stack)
        return
    workers = min(workers or 1, len(tasks))
    if workers == 1:
        for task in tasks:
            yield convert_bag(task, partial(tell, task))
        return
    pool = stack.enter_context(ProcessPool(workers, tell))
    yield from in_order(tasks, pool.call, workers, stack)


class ProcessPool:
    """Worker processes, each converting one bag at a time; a context manager."""

    def __init__(self, workers: int, tell: TellOf) -> None:
        self._context = _context()
        self._tell = tell
        self._workers = workers
        self._all: set[_Worker] = set()
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> ProcessPool:
        with self._lock:
            for _ in range(self._workers):
                self._idle.put(self._start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._closed = True
            for worker in self._all:
                worker.kill()

    def call(self, task: BagTask) -> BagResult:
        """Convert one bag in an idle worker, waiting for one; any thread may call.

        Raises `WorkerDied`, or what the bag's conversion raised. A worker that died is replaced.
        """
        worker = self._idle.get()
        try:
            return worker.call(task, partial(self._tell, task))
        except WorkerDied:
            worker = self._replace(worker)
            raise
        finally:
            self._idle.put(worker)

    def _start(self) -> _Worker:
        worker = _Worker(self._context)
        self._all.add(worker)
        return worker

    def _replace(self, worker: _Worker) -> _Worker:
        with self._lock:
            if self._closed:
                return worker
            self._all.discard(worker)
            worker.kill()
            return self._start()


class _Worker:
    """A process and the pipe to it. It starts while the caller goes on."""

    def __init__(self, context: BaseContext) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs,), name='qt-ros convert', daemon=True
        )
        self._process.start()
        theirs.close()  # so that the pipe ends with the process
        self._ready = False

    def call(self, task: BagTask, tell: Tell) -> BagResult:
        try:
            if not self._ready:
                self._ready = self._pipe.recv()
            self._pipe.send(task)
            while isinstance(answer := self._pipe.recv(), float):
                tell(answer)
        except (EOFError, OSError):
            raise self._loss(task) from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def kill(self) -> None:
        """End the process now, whatever it is doing."""
        self._process.kill()
        self._process.join()

    def _loss(self, task: BagTask) -> QtRosError:
        self._process.join(5)
        how = _how(self._process.exitcode)
        if not self._ready:
            return BagError(
                f'a worker process {how} before it could begin; use one worker, or in a script of'
                " your own call convert() below if __name__ == '__main__':"
            )
        return WorkerDied(f'the process that converted {task.path} {how}')


def _how(status: int | None) -> str:
    """Say how a process ended."""
    if status == -signal.SIGKILL:
        return 'was killed (SIGKILL), most likely because memory ran out,'
    if status is not None and status < 0:
        return f'was ended by {signal.Signals(-status).name}'
    return f'ended with status {status}'


def _context() -> BaseContext:
    """Return how processes start: forked from a clean one that has imported all, or spawned."""
    if sys.platform == 'win32' or 'forkserver' not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(PRELOAD)
    return context


def _serve(pipe: Connection) -> None:
    """Convert what comes through the pipe until the process at its other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the committer ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)  # the workers share the cores already
    with suppress(EOFError, OSError):  # the process at the other end is gone
        pipe.send(True)
        while True:
            task = pipe.recv()
            try:
                answer: BagResult | Exception = convert_bag(task, pipe.send)
            except Exception as exc:  # noqa: BLE001 - it is raised again where the task came from
                answer = exc
            pipe.send(answer)


def _end_with_parent() -> None:
    """End this process when its parent is gone, even by SIGKILL: the next run must find no one
    writing into the dataset's staging folder.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
