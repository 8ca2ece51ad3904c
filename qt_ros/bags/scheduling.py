"""Many bags at once, elsewhere: results in the order of the tasks, bounded, none starved.

Bags begin in the order given, with one exception: a bag that alone is a fair share of all the work
left begins at once, so that the longest bag does not run on by itself at the end. Results that
wait for an earlier bag are held up to `HELD_ROWS` rows; then only the bag that they wait for may
begin. A bag whose worker dies is tried once more, alone on the machine, in case memory ran out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

from qt_ros.bags.work import BagResult, BagTask, not_converted
from qt_ros.errors import QtRosError

HELD_ROWS = 200_000  # of finished bags, not yet committed: some 200 MB


class WorkerDied(QtRosError):
    """The process that converted a bag is gone; the message says how."""


def in_order(
    tasks: Sequence[BagTask],
    call: Callable[[BagTask], BagResult],
    slots: int,
    stack: ExitStack,
    weigh: Callable[[Path], int] | None = None,
) -> Iterator[BagResult]:
    """Yield what `call` returns for each task, in order; `slots` calls at a time, in threads.

    `call` raises `WorkerDied` when it loses its worker; whatever else it raises ends the run.
    Closing `stack` forgets the tasks that have not begun; whoever made `call` ends those running.
    """
    threads = ThreadPoolExecutor(slots, thread_name_prefix='bag')
    stack.callback(threads.shutdown, wait=False, cancel_futures=True)
    agenda = _Agenda([(weigh or bytes_of)(task.path) for task in tasks], slots)
    running: dict[Future[BagResult], int] = {}
    done: dict[int, Future[BagResult]] = {}
    held = 0
    for number, task in enumerate(tasks):
        while number not in done:
            # One more per slot than can run: a worker that is done goes on while we commit.
            while len(running) < 2 * slots and (held < HELD_ROWS or agenda.waits(number)):
                chosen = agenda.take(number if held >= HELD_ROWS else None)
                if chosen is None:
                    break
                running[threads.submit(call, tasks[chosen])] = chosen
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                done[running.pop(future)] = future
                held += _rows(future)
        future = done.pop(number)
        held -= _rows(future)
        if isinstance(future.exception(), WorkerDied):
            wait(running)  # the second attempt has the machine to itself
            future = threads.submit(call, task)
            wait([future])
        yield _result(task, future)


def bytes_of(path: Path) -> int:
    """Return the size of a recording on disk, the measure of its work; 0 where it is not seen."""
    try:
        files = [path] if path.is_file() else [each for each in path.iterdir() if each.is_file()]
        return sum(each.stat().st_size for each in files)
    except OSError:
        return 0


class _Agenda:
    """Which task begins next; every step costs the same, however many tasks there are."""

    def __init__(self, weights: Sequence[int], slots: int) -> None:
        self._weights, self._slots = weights, slots
        self._left = dict.fromkeys(range(len(weights)))  # in order
        self._heavy = sorted(self._left, key=lambda n: weights[n])  # the heaviest last
        self._total = sum(weights)

    def waits(self, number: int) -> bool:
        """Say whether a task has not begun."""
        return number in self._left

    def take(self, number: int | None = None) -> int | None:
        """Return the task to begin now (`number` if given); None when all have begun."""
        if not self._left:
            return None
        if number is None:
            while self._heavy[-1] not in self._left:
                self._heavy.pop()
            number = self._heavy[-1]
            if self._weights[number] * self._slots <= self._total:
                number = next(iter(self._left))
        del self._left[number]
        self._total -= self._weights[number]
        return number


def _rows(future: Future[BagResult]) -> int:
    """Return how many rows a finished bag holds in memory."""
    if future.exception() is not None:
        return 0
    return sum(len(episode) for episode, _ in future.result().episodes)


def _result(task: BagTask, future: Future[BagResult]) -> BagResult:
    """Return a task's result; a bag that cost two workers has failed."""
    try:
        return future.result()
    except WorkerDied as exc:
        return not_converted(
            task,
            f'{exc}, and once more when it was converted alone; its messages are not counted.'
            ' Give the machine more memory, or leave this recording out',
        )
