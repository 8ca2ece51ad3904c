"""A decision and what went out for it, from the slot that took it up to the end of its tick."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qt_ros.nodes.control.freshness import Freshness
from qt_ros.nodes.control.motion import Motion
from qt_ros.nodes.control.records import Decided, StepRecord
from qt_ros.safety import Limited


class Carried:
    """Collects the commands of one tick for its report."""

    def __init__(self, decided: Decided, fresh: Freshness, size: int) -> None:
        """`size`: A, the number of commanded dimensions."""
        self.decided = decided
        self.out: NDArray[np.float64] | None = None  # the last limited targets; None: nothing yet
        self._limits: list[set[str]] = [set() for _ in range(size)]
        self._fresh = fresh
        self._stamp_ns = self._age_ns = 0
        self._wait_s = self._limit_s = self._publish_s = 0.0

    def add(
        self, limited: Limited, stamp_ns: int, now_ns: int, limit_s: float, publish_s: float
    ) -> None:
        """Note a command; the first one is what ages and durations are told of."""
        if self.out is None:
            tick = self.decided.tick
            self._age_ns = self._fresh.age_ns(tick.samples, now_ns)
            self._wait_s = max((now_ns - tick.t_ns) / 1e9 - self.decided.inference_s, 0.0)
            self._limit_s, self._publish_s = limit_s, publish_s
        self.out = limited.targets
        self._stamp_ns = stamp_ns
        for names, reason in zip(self._limits, limited.reasons, strict=True):
            names |= set(reason.split('+')) - {''}

    def record(self, motion: Motion, is_dry: bool) -> StepRecord:
        """Describe the tick's commands as (A,) actions, as a converter will see it."""
        assert self.out is not None
        terminate = self.decided.action[len(self.out) :]
        reasons = (*motion.reasons(self.out, self._limits), *('' for _ in terminate))
        return StepRecord(
            tick=self.decided.tick,
            decided=self.decided,
            sent=None if is_dry else np.concatenate([motion.action(), terminate]),
            reasons=reasons,
            command_ns=0 if is_dry else self._stamp_ns,
            age_ns=self._age_ns,
            wait_s=self._wait_s,
            limit_s=self._limit_s,
            publish_s=self._publish_s,
        )
