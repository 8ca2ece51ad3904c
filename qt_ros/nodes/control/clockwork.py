"""The command slots in time: on the steady clock, or along with a simulated one.

It also says when ROS time jumped: then nothing that was stamped before means anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock
from rclpy.lifecycle import LifecycleNode

SIM_POLL_S = 0.001  # in simulated time the loop looks at every move of the clock
STANDING_SLOTS = 3  # without a move: the simulated clock waits
SETTLE_S = 0.5  # a simulated clock that moves on by itself is not waited for longer
JUMP_NS = 50_000_000  # between two slots; a clock that is slewed moves far less


class Clockwork:
    """Calls back at every slot, once it was started."""

    def __init__(
        self,
        node: LifecycleNode,
        steady: Clock,
        command_rate_hz: float,
        advance: Callable[[int, int, bool, bool], None],
        jumped: Callable[[str, int], None],
        rate_hz: float | None = None,
    ) -> None:
        """advance(when it was due, when it is, at a tick, at a slot), jumped(how, when it is).

        Times are ROS time [ns]. rate_hz: of ticks that lie apart from the slots, see `start`;
        None: ticks lie on slots.
        """
        self._node = node
        self._steady = steady
        self._advance_to, self._jumped = advance, jumped
        self._sim_time = node.get_parameter('use_sim_time').value
        self._seen_ns = self._standing = 0  # simulated time at the last slot, slots since
        self._asked_s = 0.0  # monotonic clock: when a goal came
        self._last: tuple[int, int] | None = None  # (ROS, steady) [ns] at the last slot
        slots = node.create_timer(1.0 / command_rate_hz, self._on_slot, clock=steady)
        self._timers: list[Any] = [slots]
        self._ticks: Any = None
        if self._sim_time:
            self._timers.append(node.create_timer(SIM_POLL_S, self._on_clock))
        elif rate_hz is not None:
            self._ticks = node.create_timer(1.0 / rate_hz, self._on_tick, clock=steady)
            self._lead = node.create_timer(1.0 / rate_hz, self._on_lead, clock=steady)
            self._timers += [self._ticks, self._lead]
        self.stop()

    def start(self, lead_ns: int = 0) -> None:
        """Begin to call, or begin anew.

        lead_ns: how long after each tick a slot comes, where they lie apart; 0: anywhere.
        """
        self._last = None
        if lead_ns:
            self._lead.timer_period_ns = lead_ns
        for timer in self._timers:
            timer.reset()
        if self._ticks is not None:
            self._timers[0].cancel()  # slots begin when the first lead is over

    def stop(self) -> None:
        """Call no more."""
        for timer in self._timers:
            timer.cancel()

    def close(self) -> None:
        """Destroy the timers."""
        for timer in self._timers:
            self._node.destroy_timer(timer)
        self._timers = []

    def asked(self) -> None:
        """Note that a goal came."""
        self._asked_s = time.monotonic()
        self._standing = 0

    def waited_s(self) -> float:
        """Return how long ago the goal came [s]."""
        return time.monotonic() - self._asked_s

    def may_begin(self) -> bool:
        """Say whether this is a good moment for tick 0."""
        if not self._sim_time or self._standing >= STANDING_SLOTS:
            return True
        return self.waited_s() > SETTLE_S

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds

    def _on_slot(self) -> None:
        """Act on a slot of the command timer (steady clock)."""
        now_ns = self._now_ns()
        if self._sim_time:
            self._standing = self._standing + 1 if now_ns == self._seen_ns else 0
            self._seen_ns = now_ns
            self._on_clock()
            return
        self._advance(_due_ns(self._timers[0], now_ns), now_ns, tick=self._ticks is None)

    def _on_tick(self) -> None:
        """Act on a tick that lies apart from the slots."""
        now_ns = self._now_ns()
        self._advance(_due_ns(self._ticks, now_ns), now_ns, slot=False)

    def _on_lead(self) -> None:
        """Let the slots begin: a lead after a tick."""
        self._lead.cancel()
        self._timers[0].reset()

    def _on_clock(self) -> None:
        """Act on the simulated clock.

        What is due at a time is done once the clock has passed it: a simulator publishes the time
        of its sensors before the sensors. An episode begins when the clock stands, for a simulator
        that waits for commands has then gone as far as it may, and each tick will find it there.
        """
        now_ns = self._now_ns()
        self._advance(now_ns - 1, now_ns)

    def _advance(
        self, schedule_ns: int, now_ns: int, tick: bool = True, slot: bool = True
    ) -> None:
        jump = self._jump(now_ns, self._steady.now().nanoseconds)
        if jump:
            self._jumped(jump, now_ns)
        self._advance_to(schedule_ns, now_ns, tick, slot)

    def _jump(self, now_ns: int, steady_ns: int) -> str:
        """Say if ROS time went back or, outside simulated time, left the steady clock behind."""
        before, self._last = self._last, (now_ns, steady_ns)
        if before is None:
            return ''
        moved_ns = now_ns - before[0]
        if moved_ns < 0:
            return f'the clock went back by {-moved_ns / 1e9:g} s'
        jump_ns = abs(moved_ns - (steady_ns - before[1]))
        if not self._sim_time and jump_ns > JUMP_NS:
            return f'the clock jumped by {jump_ns / 1e9:g} s'
        return ''


def _due_ns(timer: Any, now_ns: int) -> int:
    """Return when a timer's call was due: a late call must not shift the grid."""
    return now_ns - (timer.timer_period_ns - timer.time_until_next_call())
