"""Where bags are converted: in this process, or in several; results come in the tasks' order."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack

import cv2

from qt_ros.bags.work import BagResult, BagTask, convert_bag
from qt_ros.errors import BagError


def run_tasks(tasks: Iterator[BagTask], workers: int, stack: ExitStack) -> Iterator[BagResult]:
    """Yield results in the order of the tasks; few are in flight, so memory stays bounded."""
    if workers == 1:
        yield from map(convert_bag, tasks)
        return
    pool = stack.enter_context(
        ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context('spawn'), initializer=_start_worker
        )
    )
    waiting: deque[tuple[BagTask, Future[BagResult]]] = deque()
    for task in tasks:
        waiting.append((task, pool.submit(convert_bag, task)))
        if len(waiting) >= 4 * workers:
            yield _finished(*waiting.popleft())
    while waiting:
        yield _finished(*waiting.popleft())


def _finished(task: BagTask, future: Future[BagResult]) -> BagResult:
    try:
        return future.result()
    except BrokenProcessPool as exc:
        raise BagError(
            f'a worker process died at or before {task.path} (out of memory?); try fewer --workers'
        ) from exc


def _start_worker() -> None:
    cv2.setNumThreads(1)  # the workers share the cores already
