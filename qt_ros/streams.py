"""One buffer per stream, sampled causally at ticks: the same code live and in the converter.

    stamps   10   12   15        19
    at(t)    ---- t=14: the sample of 12, age 2 ----     never the sample of 15

A sample is never from the future. One that is older than the stream's `max_age_ns` is still
returned (held), with `valid` false. Messages may arrive out of order or twice; both are counted.
The item is opaque: a message when live, its ordinal in the bag when offline.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """What a stream holds at one time."""

    item: Any
    stamp_ns: int
    age_ns: int
    valid: bool  # False: older than the stream allows, held


class Stream:
    """Samples of one stream in the order of their stamps [ns]; safe to use from several threads.

    `keep_ns` bounds memory when live: samples older than the newest minus `keep_ns` are dropped,
    one always stays. None keeps everything.
    """

    def __init__(self, name: str, max_age_ns: int, keep_ns: int | None = None) -> None:
        self.name = name
        self.max_age_ns = int(max_age_ns)
        self.keep_ns = None if keep_ns is None else int(keep_ns)
        self.backwards = 0  # arrivals with a stamp before the newest
        self.duplicates = 0  # arrivals with a stamp that was there already
        self._stamps: list[int] = []
        self._items: list[Any] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def first_ns(self) -> int | None:
        """Oldest stamp held [ns], None while empty."""
        with self._lock:
            return self._stamps[0] if self._stamps else None

    @property
    def last_ns(self) -> int | None:
        """Newest stamp held [ns], None while empty."""
        with self._lock:
            return self._stamps[-1] if self._stamps else None

    def add(self, stamp_ns: int, item: Any) -> None:
        """Put in a sample; of two with an equal stamp the later arrival stays."""
        stamp_ns = int(stamp_ns)
        with self._lock:
            if self._stamps and stamp_ns < self._stamps[-1]:
                self.backwards += 1
            index = bisect_left(self._stamps, stamp_ns)
            if index < len(self._stamps) and self._stamps[index] == stamp_ns:
                self.duplicates += 1
                self._items[index] = item
                return
            self._stamps.insert(index, stamp_ns)
            self._items.insert(index, item)
            if self.keep_ns is not None:
                self._drop_before(self._stamps[-1] - self.keep_ns)

    def at(self, t_ns: int) -> Sample | None:
        """Return the newest sample with stamp <= `t_ns`, None where there is none."""
        t_ns = int(t_ns)
        with self._lock:
            index = bisect_right(self._stamps, t_ns) - 1
            return None if index < 0 else self._sample(index, t_ns)

    def exactly(self, stamp_ns: int, t_ns: int | None = None) -> Sample | None:
        """Return the sample with this very stamp; its age is counted at `t_ns` (else it is 0)."""
        stamp_ns = int(stamp_ns)
        with self._lock:
            index = bisect_left(self._stamps, stamp_ns)
            if index == len(self._stamps) or self._stamps[index] != stamp_ns:
                return None
            return self._sample(index, stamp_ns if t_ns is None else int(t_ns))

    def _sample(self, index: int, t_ns: int) -> Sample:
        stamp_ns = self._stamps[index]
        age_ns = t_ns - stamp_ns
        return Sample(self._items[index], stamp_ns, age_ns, age_ns <= self.max_age_ns)

    def _drop_before(self, oldest_ns: int) -> None:
        index = min(bisect_left(self._stamps, oldest_ns), len(self._stamps) - 1)
        if index > 0:
            del self._stamps[:index]
            del self._items[:index]
