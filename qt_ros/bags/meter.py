"""How far the conversion of one bag is: frames encoded, of those that its episodes should have."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from qt_ros.bags.segments import Segment
from qt_ros.contract import Contract
from qt_ros.episode import Episode

Tell = Callable[[float], None]  # called with the share that is done, 0 to 1
PERIOD_S = 0.1  # between two calls, at least


class Meter:
    """Counts the frames of a bag's segments, which are done one after the other."""

    def __init__(self, contract: Contract, segments: Sequence[Segment], tell: Tell | None) -> None:
        per_ns = contract.rate_hz * len(contract.cameras) / 1e9
        sizes = [(each.stop_ns - each.start_ns) * per_ns for each in segments]
        self._ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        self._tell = tell
        self._done = 0.0
        self._told_s = time.monotonic()

    def counted(self, episode: Episode) -> Episode:
        """Return the episode, whose frames count as they are read."""
        if self._tell is None:
            return episode

        def frames() -> Iterator:
            for item in episode.frames():
                yield item
                self._count(1)

        return replace(episode, together=frames)

    def finish(self, segment: int) -> None:
        """Count segment number `segment` as done, whatever came of it."""
        self._done = self._ends[segment]
        self._count(0)

    def _count(self, frames: int) -> None:
        self._done += frames
        now_s = time.monotonic()
        if self._tell is not None and now_s - self._told_s >= PERIOD_S:
            self._told_s = now_s
            self._tell(min(1.0, self._done / max(self._ends[-1], 1.0)))
