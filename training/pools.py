"""Where batches come from: memory that is used again, and shuffled passes over segments."""

from __future__ import annotations

import weakref

import numpy as np


class Buffers:
    """Memory for batches that is used again once nothing refers to it.

    Fresh memory of this size comes from the kernel page by page, which costs as much as filling
    it. A tensor made of an array keeps that array alive, so the array's end is the end of all use.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = {}

    def array(self, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
        """Return an array of that shape, any content; no slice of it may outlive it."""
        size = int(np.prod(shape)) * kind.itemsize
        free = self._free.setdefault(size, [])
        memory = free.pop() if free else np.empty(size, np.uint8)
        array = memory.view(kind).reshape(shape)
        weakref.finalize(array, free.append, memory).atexit = False
        return array


class Pool:
    """Segments of some episodes in an endless sequence of shuffled passes."""

    def __init__(self, episodes: np.ndarray, sizes: np.ndarray, seed: list[int]) -> None:
        self.episodes = episodes
        self.ends = np.cumsum(sizes)
        self._seed = seed
        self._passes: dict[int, np.ndarray] = {}

    def take(self, position: int, number: int) -> np.ndarray:
        """Return entries `position` to `position + number` of the sequence."""
        size = int(self.ends[-1])
        at = np.arange(position, position + number)
        parts = [self._pass(p)[at[at // size == p] % size] for p in np.unique(at // size)]
        return np.concatenate(parts)

    def _pass(self, number: int) -> np.ndarray:
        if number not in self._passes:
            self._passes = {k: v for k, v in self._passes.items() if k == number - 1}
            rng = np.random.default_rng([*self._seed, int(number)])
            self._passes[number] = rng.permutation(int(self.ends[-1]))
        return self._passes[number]
