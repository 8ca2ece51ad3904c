"""Which frame a tick sees, and which frame's command belongs to it.

Frame j of an episode was taken at j / fps, and its command was sent just after it. Tick k is at
k / rate. It sees the newest frame with j / fps <= k / rate, and its action is the newest command
sent in (k / rate, (k + 1) / rate], that is of the newest frame with j / fps < (k + 1) / rate.

    fps 30, rate 10    tick 0 1 2 ...    sees frame 0 3 6 ...    command of frame 2 5 8 ...
    fps 10, rate 10    tick 0 1 2 ...    sees frame 0 1 2 ...    command of frame 0 1 2 ...
    fps  5, rate 10    tick 0 1 2 ...    sees frame 0 0 1 ...    command of frame 0 0 1 ...
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ticks:
    """The ticks of one episode; times count from its first frame."""

    seen: NDArray[np.int64]  # (T,) frame that each tick sees
    commanded: NDArray[np.int64]  # (T,) frame whose command is the action of the tick
    frame_ns: NDArray[np.int64]  # (T,) time of the frame that is seen [ns]
    age_ns: NDArray[np.int64]  # (T,) how old it is at the tick [ns]

    def __len__(self) -> int:
        return len(self.seen)

    def without_last(self) -> Ticks:
        """Return all ticks but the last."""
        return Ticks(self.seen[:-1], self.commanded[:-1], self.frame_ns[:-1], self.age_ns[:-1])


def ticks_of(frames: int, fps: float, rate_hz: float) -> Ticks:
    """Return the ticks of an episode of `frames` frames; the last is the last with a new frame."""
    per_tick = Fraction(fps) / Fraction(rate_hz)  # frames from one tick to the next
    p, q = per_tick.numerator, per_tick.denominator
    count = (frames - 1) * q // p + 1
    seen = [k * p // q for k in range(count)]
    commanded = [min(((k + 1) * p - 1) // q, frames - 1) for k in range(count)]
    frame_ns = [round(Fraction(j * 10**9) / Fraction(fps)) for j in seen]
    tick_ns = [round(Fraction(k * 10**9) / Fraction(rate_hz)) for k in range(count)]
    times = np.array(frame_ns, np.int64)
    age_ns = np.maximum(np.array(tick_ns, np.int64) - times, 0)
    return Ticks(np.array(seen, np.int64), np.array(commanded, np.int64), times, age_ns)
