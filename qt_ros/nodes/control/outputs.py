"""What the control loop can cause: the node implements it, and tests on a clock of their own."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qt_ros.nodes.control.records import EpisodeEnd, Goal, StepRecord, Tick

Targets = NDArray[np.float64]


class Outputs(Protocol):
    """The loop's way out."""

    def prepare(self, goal: Goal) -> bool:
        """Tell the policy its instruction; False while an earlier thought still runs."""

    def blocked(self) -> str:
        """Say why nothing may move (emergency stop, not enabled), or ''."""

    def may_begin(self) -> bool:
        """Say whether this is a good moment for tick 0."""

    def think(self, tick: Tick) -> bool:
        """Start deciding on a tick; False while an earlier thought still runs."""

    def send(self, targets: Targets, stamp_ns: int) -> Targets:
        """Publish the commands for (A,) targets, all or none; return them as the messages say."""

    def report(self, record: StepRecord) -> None:
        """Tell what became of a tick."""

    def noticed(self, began: list[str], ended: list[str]) -> None:
        """Tell, once, what began and what ended: a stale stream, a takeover."""

    def took_over(self, goal: Goal, by_person: bool, now_ns: int) -> None:
        """Tell who drives from now on: a person, or the policy again."""

    def ended(self, end: EpisodeEnd) -> None:
        """Tell how the episode ended; the fallback has been sent."""
