"""Batches gathered ahead of the training step, by a thread, while the step runs.

Copying frames out of a memory map and pinning them leaves the interpreter free, so the step does
not wait for them. The batch of step k depends on (seed, k) only: who gathers it, and when, changes
nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from training.data import Batch


def batches(
    gather: Callable[[int], Batch], steps: range, ahead: int, device: torch.device
) -> Generator[Batch, None, None]:
    """Yield gather(step) for each of `steps`, up to `ahead` of them gathered in advance.

    For a GPU they lie in pinned memory, which `Batch.to` copies from while the step goes on.
    Close the generator (contextlib.closing) to end its thread; it ends after the batch in hand.
    Raises what `gather` raises, when that batch is due.
    """

    def make(step: int) -> Batch:
        batch = gather(step)
        return batch.pin() if device.type == 'cuda' else batch

    if ahead == 0:
        yield from map(make, steps)
        return
    pool = ThreadPoolExecutor(1, 'batches', _use, (device,))
    try:
        waiting: deque[Future[Batch]] = deque()
        for step in steps:
            waiting.append(pool.submit(make, step))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def useful_ahead(ahead: int | None, device: torch.device) -> int:
    """Return how many batches to gather in advance; None: 2 on a GPU or where a core is free.

    Without a free core a thread would only take turns with the step.
    """
    if ahead is not None:
        return ahead
    free = device.type == 'cuda' or usable_cores() > torch.get_num_threads()
    return 2 if free else 0


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, 'sched_getaffinity'):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _use(device: torch.device) -> None:
    """Pin memory for this GPU: a new thread starts with the first one."""
    if device.type == 'cuda':
        torch.cuda.set_device(device)
