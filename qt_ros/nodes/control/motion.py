"""What to command next: the decision on its way, a person's wish, or what was sent last.

    decision --ramp--> goal --interpolation--.
    a person's command -----------------------+--> limiter --> targets of this slot
    what was sent last -----------------------'

Knows no clock: times come in as numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qt_ros.commands import HasState, action_from_targets, initial_targets, targets_from_action
from qt_ros.contract import Contract
from qt_ros.interpolation import Interpolation, Ramp, at_once
from qt_ros.safety import Limited, Limiter
from qt_ros.takeover import Takeover

Targets = NDArray[np.float64]
RETURN_S = 0.5  # the least time in which movements grow after a person gave back control


@dataclass
class Plan:
    """A decision that is being carried out."""

    way: Interpolation
    wanted: Targets  # (A,) what was decided, before the ramp
    ramped: NDArray[np.bool_]  # (A,)
    slot_ns: int


class Motion:
    """The commands of one episode, slot after slot."""

    def __init__(self, contract: Contract, slot_ns: int | None, takeover_s: float) -> None:
        """slot_ns: between two commands; None, or a period: one command per decision."""
        self._contract = contract
        period_ns = contract.period_ns
        self.slots = max(round(period_ns / (slot_ns or period_ns)), 1)  # per period
        self.slot_ns = slot_ns if slot_ns and self.slots > 1 else period_ns
        self._period_ns = period_ns
        self._limiter = Limiter(contract)
        self._ramp = Ramp()
        self._at_once = at_once(contract)
        self._is_velocity = np.array([d.mode == 'velocity' for d in contract.action_dims], bool)
        self.takeover = Takeover(len(contract.action_dims), takeover_s)
        self.clear()

    def clear(self) -> None:
        """Begin an episode: nothing is known, nobody drives."""
        self.base: Targets | None = None  # the newest command when the tick began
        self.sent: Targets | None = None  # the last that went out, as the messages say
        self.plan: Plan | None = None
        self._limited_ns = 0  # when the limiter was last asked
        self._ramp.start(0, 0.0)
        self.takeover.release()

    def begin(self, now_ns: int) -> None:
        """Let the first movements of the episode grow."""
        self._ramp.start(now_ns, self._contract.safety.ramp_s)

    def measure(self, observation: HasState) -> None:
        """Start from where the robot is."""
        self.base = initial_targets(self._contract, observation)
        self._limiter.reset(self.base)
        self._limited_ns = 0

    def next_tick(self) -> None:
        """Leave what is left of the last decision, and count from what was sent last."""
        self.plan = None
        if self.sent is not None:
            self.base = self.sent

    def decide(self, action: Targets, now_ns: int, whole: bool) -> None:
        """Set out for what an action (A,) means; `whole`: with a single command."""
        assert self.base is not None
        wanted = targets_from_action(self._contract, action, self.base)
        share = self._ramp.share(now_ns)
        start = np.where(self._is_velocity, 0.0, self.base)
        ramped = np.isfinite(start) & (~self._at_once | self._is_velocity) & (share < 1.0)
        goal = np.where(ramped, start + share * (wanted - start), wanted)
        slots = 1 if whole else self.slots
        way = Interpolation(self._limiter.last, goal, slots, self._at_once)
        self.plan = Plan(way, wanted, ramped & (goal != wanted), self._period_ns // slots)

    def drivers(self, now_ns: int) -> bool:
        """Look who drives; True if that changed. The policy then starts over, gently."""
        changed = self.takeover.update(now_ns)
        if changed:
            self.plan = None
            self._ramp.start(now_ns, max(self._contract.safety.ramp_s, RETURN_S))
        return changed

    def command(self, left: int, now_ns: int) -> Limited | None:
        """Return the limited targets of this slot, None if there is nothing to command.

        left: slots until the end of the tick, this one included.
        """
        speed, slot_ns = None, self.slot_ns
        if self.takeover.active and self.base is not None:
            wanted = self.takeover.targets(self._last())
        elif self.plan is not None:
            last = self._last()
            wanted = self.plan.way.next(last, left)
            speed = self.plan.way.speed(last, left, self.plan.slot_ns / 1e9)
            slot_ns = self.plan.slot_ns
        elif self.sent is not None:
            wanted = self.sent
        else:
            return None
        dt_ns = now_ns - self._limited_ns if self._limited_ns else slot_ns
        self._limited_ns = now_ns
        return self._limiter.limit(wanted, dt_ns / 1e9, speed)

    def action(self) -> Targets:
        """Return what was sent in this tick as an action (A,), as a recording will say it."""
        assert self.base is not None
        assert self.sent is not None
        return action_from_targets(self._contract, self.sent, self.base)

    def reasons(self, out: Targets, limits: list[set[str]]) -> tuple[str, ...]:
        """Say per dimension why the targets `out` (A,) are not what was decided; '' if they are.

        limits: what the limiter said in the course of the tick.
        """
        if self.plan is None:
            return ('takeover',) * len(out)
        found = []
        for i, wanted in enumerate(self.plan.wanted):
            names = ['ramp'] if self.plan.ramped[i] else []
            names += [name for name in ORDER if name in limits[i]]
            found.append('' if out[i] == wanted else '+'.join(names) or 'late')
        return tuple(found)

    def _last(self) -> Targets:
        """Return where the next command starts from, (A,)."""
        return self._limiter.last


ORDER = ('nonfinite', 'position', 'step', 'velocity', 'acceleration')
