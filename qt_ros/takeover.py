"""Who drives: the policy, or a person whose commands come on topics of their own.

A person takes over by sending a command, and gives back by falling silent for `timeout_s`. All of
a person's newest values count, topic by topic; dimensions that were not commanded stay.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


class Takeover:
    """A multiplexer with two inputs, of which the person's has priority."""

    def __init__(self, size: int, timeout_s: float) -> None:
        """size: A, the number of commanded dimensions."""
        self.timeout_ns = round(timeout_s * 1e9)
        self.count = 0  # times that a person took over
        self._targets: Vector = np.full(size, np.nan)
        self._heard_ns: int | None = None
        self._active = False

    @property
    def active(self) -> bool:
        """True while a person drives, as of the last `update`."""
        return self._active

    def command(self, columns: slice, values: Vector, now_ns: int) -> bool:
        """Take in a person's command for some dimensions; False if it holds no finite number."""
        finite = np.isfinite(values)
        if not finite.any():
            return False
        if not self._active and not self._fresh(now_ns):
            self._targets[:] = np.nan  # of an earlier takeover
        self._targets[columns][finite] = np.asarray(values, np.float64)[finite]
        self._heard_ns = int(now_ns)
        return True

    def update(self, now_ns: int) -> bool:
        """Look at the time; True if the driver changed."""
        before, self._active = self._active, self._fresh(now_ns)
        if self._active and not before:
            self.count += 1
        return before != self._active

    def targets(self, last: Vector) -> Vector:
        """Return what the person wants (A,); where nothing was said, what was sent last."""
        return np.where(np.isfinite(self._targets), self._targets, last)

    def release(self) -> None:
        """Forget the person: the episode is over."""
        self._heard_ns, self._active = None, False
        self._targets[:] = np.nan

    def _fresh(self, now_ns: int) -> bool:
        return self._heard_ns is not None and int(now_ns) - self._heard_ns <= self.timeout_ns
