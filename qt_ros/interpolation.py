"""From one decision a period to one command a slot: straight to the decided targets, in time.

    decided                           x---------x   reached with the last slot of the tick
                                 .
                            .
    sent last    x---------x
                 t_k      first slot after the decision       t_k+1

A decision that comes late has fewer slots left. It goes faster then, up to twice the ordinary
speed; what that does not reach is left out. Nothing goes beyond the decided targets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qt_ros.contract import Contract

Vector = NDArray[np.float64]
HURRY = 2.0  # times the ordinary speed that a late decision may go at
LEAST = 0.05  # share of a movement that a ramp begins with


def at_once(contract: Contract) -> NDArray[np.bool_]:
    """Return (A,): dimensions whose decisions are not spread over a period.

    Velocities, which count for the whole of it, what only opens or closes (two bins), and goals
    of an action, each of which would replace the one before.
    """
    return np.array(
        [
            bool(topic.action) or dim.mode == 'velocity' or dim.bins == 2
            for topic in contract.action
            for dim in topic.dims
        ],
        bool,
    )


class Interpolation:
    """The way from the last sent targets to the decided ones over the slots of a tick.

    >>> way = Interpolation(np.zeros(1), np.ones(1), slots=4, at_once=np.zeros(1, bool))
    >>> way.next(np.zeros(1), left=4), way.next(np.array([0.25]), left=3)
    (array([0.25]), array([0.5]))
    """

    def __init__(
        self, start: Vector, goal: Vector, slots: int, at_once: NDArray[np.bool_]
    ) -> None:
        """start, goal: (A,), NaN in a start that is not known; slots: per period."""
        self.goal = goal.copy()
        # Where nothing is known to start from, there is no way to go along.
        self._at_once = at_once | ~np.isfinite(start) | ~np.isfinite(goal) | (slots <= 1)
        self._most = np.abs(goal - start) * (HURRY / slots)

    def next(self, last: Vector, left: int) -> Vector:
        """Return the targets (A,) of the next command; `left` slots remain, this one included.

        last: the targets that were sent last. With the last slot left they are the goal itself.
        """
        way = self.goal - last
        if left > 1:
            way = way / left
        # A hair of slack, so that rounding does not leave the goal out of reach.
        most = self._most * (1 + 1e-9)
        direct = (np.abs(way) <= most) & (left <= 1)
        return np.where(self._at_once | direct, self.goal, last + np.clip(way, -most, most))

    def speed(self, last: Vector, left: int, slot_s: float) -> Vector:
        """Return how fast the targets move, (A,) per second."""
        if left <= 0:
            return np.zeros(len(self.goal))
        return np.where(self._at_once, 0.0, (self.next(last, left) - last) / slot_s)


class Ramp:
    """Lets movements grow to their full size over a time."""

    def __init__(self) -> None:
        self._start_ns = 0
        self._length_ns = 0

    def start(self, now_ns: int, seconds: float) -> None:
        """Begin to grow at `now_ns`; 0 seconds: full size at once."""
        self._start_ns, self._length_ns = int(now_ns), round(seconds * 1e9)

    def share(self, now_ns: int) -> float:
        """Return the share of a movement that is carried out at `now_ns`, above 0 to 1."""
        if self._length_ns <= 0:
            return 1.0
        share = max(int(now_ns) - self._start_ns, 0) / self._length_ns
        return min(max(share, LEAST), 1.0)
