"""The control loop of one policy as a state machine: no ROS, no threads, no clock of its own.

    idle --start--> waiting --fresh and prepared--> running --limit, cancel, fault--> idle

Whoever owns it calls `on_time` at every command slot and `on_decided` for every decision; it calls
back through `Outputs`. A slot is a point of the command timer's grid, ticks lie on that grid:

    t_0                      t_1             decisions, every contract period
    |----|----|----|----|----|----|----      slots, every command period
      think..|    |    |    |                a decision is on its way from the slot after it is
             send send send send             made to the slot at t_1, which still belongs to tick 0

The slots may also lie apart from the ticks, as long after them as thinking takes (`lead`): then
commands go out sooner after what they are based on, and a decision waits for the slot that is its.

Until there is a decision, slots repeat what was sent last. One that is made after the next tick
began is late, counted and discarded. With one slot a period, or none (in simulated time the clock
may wait for the command), a decision goes out at once and as a whole. A person who takes over
drives instead of the policy, which goes on deciding.

The order of safety: interlocks (emergency stop, enabling), fresh streams, finite numbers, limits,
all commands encoded before the first is published, the watchdog. What ends an episode, for
whatever reason, is the fallback.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qt_ros.contract import Contract
from qt_ros.errors import QtRosError
from qt_ros.interlocks import ReceiveGate, start_problems
from qt_ros.nodes.control.carried import Carried
from qt_ros.nodes.control.freshness import Freshness
from qt_ros.nodes.control.motion import Motion
from qt_ros.nodes.control.outputs import Outputs
from qt_ros.nodes.control.records import OUTCOMES, Decided, EpisodeEnd, Goal, StepRecord, Tick
from qt_ros.nodes.control.sending import Sender, in_words
from qt_ros.nodes.control.telling import Reports, Telling
from qt_ros.observation import ObservationSampler
from qt_ros.safety import Limited, Watchdog

Targets = NDArray[np.float64]
ON_TERMINATE = 'the policy chose to terminate'
TAKEOVER_S = 0.5


class ControlLoop:
    """Ticks, decisions, limits and the watchdog of a policy that drives a robot."""

    def __init__(
        self,
        contract: Contract,
        sampler: ObservationSampler,
        outputs: Outputs,
        slot_ns: int | None,
        gate: ReceiveGate | None = None,
        takeover_s: float = TAKEOVER_S,
        listen: Callable[[], None] = lambda: None,
    ) -> None:
        """`slot_ns`: period of the command slots; None where time itself may wait for commands.

        takeover_s: how long a person's last command counts. listen(): puts what came into the
        sampler and the gate; called before they are looked at.
        """
        self._contract = contract
        self.fresh = Freshness(contract, sampler, gate, listen)
        self.motion = Motion(contract, slot_ns, takeover_s)
        self._outputs = outputs
        self._sender = Sender(contract, outputs, self.motion)
        self._slot_ns = slot_ns
        self._watchdog = Watchdog(contract.safety.watchdog_s, contract.safety.fallback)
        self._size = len(contract.action_dims)
        self.told = Telling(outputs)
        self.goal: Goal | None = None
        self.last_end: EpisodeEnd | None = None
        self._clear()

    def _clear(self) -> None:
        self.running = False
        self.told.begin()
        self.motion.clear()
        self._sender.begin()
        self._prepared = self._asked = False
        self._t0_ns = self._lead_ns = 0
        self._next_step = 0
        self._thinking: list[Tick] = []  # on its way: what is decided on, what was just now
        self._pending: Decided | None = None  # what it decided and no slot has taken up yet
        self._carried: Carried | None = None  # the decision of this tick, and what went out
        self._terminate = False
        self._why = ''  # why the newest tick without a command had none

    # What the owner calls

    def start(self, goal: Goal, lead_ns: int = 0) -> None:
        """Take on a goal; it runs as soon as the policy is prepared and every stream is fresh.

        lead_ns: how long after its tick a decision goes out at the earliest.
        """
        if self.goal is not None:
            raise QtRosError('an episode is running; cancel it or wait for its end')
        self._clear()
        self.goal, self._lead_ns = goal, lead_ns
        self._asked = self._outputs.prepare(goal)

    def on_prepared(self, goal: Goal, error: str = '') -> None:
        """Learn that the policy knows the instruction, or why it does not."""
        if goal is not self.goal:
            return
        if error:
            self._finish('fault', error, 0)
        self._prepared = not error

    def on_time(self, schedule_ns: int, now_ns: int, tick: bool = True, slot: bool = True) -> None:
        """Act at a point of the grid of ticks, of that of slots, or of both where they are one.

        `schedule_ns` is when it was due, `now_ns` when it is.
        """
        if self.goal is None:
            return
        blocked = self._outputs.blocked() if self.running else ''
        if blocked:
            self.fault(blocked, now_ns)
            return
        if not self.running and not (tick and self._begin(schedule_ns, now_ns)):
            return
        self._look_who_drives(now_ns)
        if slot and not tick and schedule_ns > self._tick_ns(self._next_step):
            self._tick(schedule_ns, now_ns)  # its own call is late
        if slot and self.running and not self._whole and self._next_step:
            self._slot(schedule_ns, now_ns)
        slack_ns = (self._slot_ns or 0) // 2
        if tick and self.running and schedule_ns + slack_ns >= self._tick_ns(self._next_step):
            self._tick(schedule_ns + slack_ns, now_ns)
        if self.running and self._watchdog.expired(now_ns):
            self.fault(
                f'no command for {self._contract.safety.watchdog_s:g} s: {self._why}', now_ns
            )

    def on_decided(self, decided: Decided, now_ns: int) -> None:
        """Take over a decision; the next slot takes it up, or it goes out at once."""
        if decided.tick.goal is not self.goal or not self.running:
            return
        self._thinking = [tick for tick in self._thinking if tick is not decided.tick]
        if decided.error:
            self.told.report([('refused', StepRecord(decided.tick, decided))])
            self.fault(decided.error, now_ns)
        elif decided.unusable or decided.observation is None:
            self._why = decided.unusable
            self._undecided('stale', decided.tick, now_ns, decided)
        elif self._may_move(decided, now_ns):
            if self._whole:
                self._command_at_once(decided, now_ns)
            elif decided.tick.step != self._next_step - 1:
                self.told.report([self._too_late(decided, now_ns)])
            else:
                self._pending = decided

    def teleoperate(self, columns: slice, values: Targets, now_ns: int) -> None:
        """Take in a person's command for some dimensions: from now on the person drives."""
        if self.running and not self._is_dry and not self._outputs.blocked():
            self.motion.takeover.command(columns, values, now_ns)

    def cancel(self, now_ns: int) -> None:
        """End the episode because its client asked to."""
        self._finish('canceled', 'canceled by the client', now_ns)

    def fault(self, message: str, now_ns: int) -> None:
        """End the episode because something is wrong."""
        self._finish('fault', message, now_ns)

    def waiting_for(self, now_ns: int) -> list[str]:
        """Say what an episode that has not begun waits for."""
        reasons = [] if self._prepared else ['the policy has not taken in the instruction']
        blocked = self._outputs.blocked()
        return reasons + ([blocked] if blocked else []) + self.stale(now_ns)

    def stale(self, now_ns: int) -> list[str]:
        """Say which streams could not be decided on now, and since when."""
        return self.fresh.stale(now_ns)

    # Ticks

    @property
    def _is_dry(self) -> bool:
        return self.goal is not None and self.goal.dry_run

    @property
    def _whole(self) -> bool:
        """True where a decision goes out at once, not spread over slots."""
        return self._slot_ns is None or self.motion.slots == 1 or self._is_dry

    def _begin(self, schedule_ns: int, now_ns: int) -> bool:
        assert self.goal is not None
        if not self._asked:
            self._asked = self._outputs.prepare(self.goal)
        if not self._prepared or self.waiting_for(now_ns) or not self._outputs.may_begin():
            return False
        self.running = True
        self._t0_ns = schedule_ns
        self._watchdog.feed(now_ns)
        return True

    def _tick_ns(self, step: int) -> int:
        return self._contract.tick_ns(self._t0_ns, step)

    def _look_who_drives(self, now_ns: int) -> None:
        if self.motion.drivers(now_ns):
            assert self.goal is not None
            self._outputs.took_over(self.goal, self.motion.takeover.active, now_ns)
        if self.motion.takeover.active:  # a person needs no decisions
            self._watchdog.feed(now_ns)

    def _tick(self, due_ns: int, now_ns: int) -> None:
        """Handle the newest tick that is due; earlier ones that were not reached are missed."""
        assert self.goal is not None
        reports = self._closed(now_ns)
        self.motion.next_tick()
        step = self._next_step
        while self._tick_ns(step + 1) <= due_ns:
            step += 1
        self.told.missed(min(step, self.goal.max_steps) - self._next_step)
        self._next_step = step + 1
        t_ns = self._tick_ns(step)
        samples = self.fresh.sample(t_ns, now_ns)
        if self._terminate or step >= self.goal.max_steps or samples is None:
            self.told.report(reports)
            end_ns = max(now_ns, t_ns + 1)
            if self._terminate:
                self._finish('terminate_action', ON_TERMINATE, end_ns)
            elif step >= self.goal.max_steps:
                self._finish('time_limit', 'the time is up', end_ns)
            else:
                self.fault('; '.join(self.stale(t_ns)), now_ns)
            return
        tick = Tick(self.goal, step, t_ns, samples)
        old = {f'stale {name}' for name, sample in samples.items() if not sample.valid}
        # Thinking begins first: telling of the tick before takes its time.
        thinks = not old and self._outputs.think(tick)
        self.told.report(reports)
        self.told.notice(old | ({'takeover'} if self.motion.takeover.active else set()))
        if old:
            self._why = 'stale ' + '; '.join(self.stale(now_ns))
            self._undecided('stale', tick, now_ns)
        elif thinks:
            self._thinking.append(tick)
        else:
            self._why = 'the policy is still deciding on an earlier tick'
            self._undecided('busy', tick, now_ns)

    def _undecided(
        self, fate: str, tick: Tick, now_ns: int, decided: Decided | None = None
    ) -> None:
        """Report a tick without a decision; a person who drives is obeyed all the same."""
        age_ns = self.fresh.age_ns(tick.samples, now_ns)
        self.told.report([(fate, StepRecord(tick, decided, age_ns=age_ns))])
        if self._whole and self.motion.takeover.active:
            limited = self.motion.command(1, now_ns)
            if limited is not None:
                self._send(limited, tick.t_ns, self._tick_ns(tick.step + 1), now_ns)

    # Commands

    def _may_move(self, decided: Decided, now_ns: int) -> bool:
        """Take the robot's pose from the first decision; it must be one to begin from."""
        assert decided.observation is not None
        if self._is_dry:  # nobody follows the commands: start from where the robot is
            self.motion.measure(decided.observation)
        elif self.motion.base is None:
            problems = start_problems(self._contract, decided.observation.state)
            if problems:
                self.told.report([('refused', StepRecord(decided.tick, decided))])
                self.fault(f'cannot begin: {"; ".join(problems)}', now_ns)
                return False
            self.motion.measure(decided.observation)
            self.motion.begin(now_ns)
        return True

    def _slot(self, schedule_ns: int, now_ns: int) -> None:
        """Command what is due in this slot of the present tick."""
        step, slot_ns = self._next_step - 1, self.motion.slot_ns
        end_ns = self._tick_ns(step + 1)
        left = math.floor((end_ns - schedule_ns) / slot_ns + 0.25) + 1
        if left < 1 or now_ns > end_ns + slot_ns // 2:
            return
        own = schedule_ns + slot_ns // 4 >= self._tick_ns(step) + self._lead_ns
        if own and self._pending is not None:
            decided, self._pending = self._pending, None
            self._take_up(decided, now_ns)
        start_s = time.perf_counter()
        limited = self.motion.command(left, now_ns)
        limit_s = time.perf_counter() - start_s
        if limited is not None:
            # Slots that are late may come together; each of them keeps a stamp of its own.
            self._send(limited, self._tick_ns(step), end_ns - (left - 1), now_ns, limit_s)

    def _command_at_once(self, decided: Decided, now_ns: int) -> None:
        """Limit and send a decision as a whole, or discard it if its time has passed."""
        tick = decided.tick
        end_ns = self._tick_ns(tick.step + 1)
        if max(now_ns, tick.t_ns + 1) > end_ns:
            self.told.report([self._too_late(decided, now_ns)])
            return
        carried = self._take_up(decided, now_ns)
        start_s = time.perf_counter()
        limited = self.motion.command(1, now_ns)
        limit_s = time.perf_counter() - start_s
        assert limited is not None
        if self._is_dry:
            carried.add(limited, 0, now_ns, limit_s, 0.0)
        else:
            self._send(limited, tick.t_ns, end_ns, now_ns, limit_s)
        self.told.report(self._closed(now_ns))

    def _take_up(self, decided: Decided, now_ns: int) -> Carried:
        """Set out to do what was decided, unless a person drives."""
        self._carried = Carried(decided, self.fresh, self._size)
        self._watchdog.feed(now_ns)
        if not self.motion.takeover.active:
            self.motion.decide(decided.action[: self._size], now_ns, self._whole)
            if self._contract.terminate_bins is not None:
                self._terminate = bool(decided.action[self._size] >= 0.5)
        return self._carried

    def _send(
        self, limited: Limited, t_ns: int, last_ns: int, now_ns: int, limit_s: float = 0.0
    ) -> None:
        """Send the commands of a slot, stamped after `t_ns` and at `last_ns` at the latest."""
        start_s = time.perf_counter()
        try:
            stamp_ns = self._sender.send(limited, t_ns, last_ns, now_ns)
        except Exception as error:  # noqa: BLE001 - whatever it is, the robot must be left safe
            self.fault(f'the command could not be sent: {in_words(error)}', now_ns)
            return
        publish_s = time.perf_counter() - start_s
        self.told.published(now_ns, limit_s + publish_s)
        if self._carried is not None:
            self._carried.add(limited, stamp_ns, now_ns, limit_s, publish_s)

    # Reports and the end

    def _closed(self, now_ns: int) -> Reports:
        """Return what became of the decision of the tick that ends."""
        pending, self._pending = self._pending, None
        carried, self._carried = self._carried, None
        if carried is not None and carried.out is None:
            pending, carried = carried.decided, None
        if pending is not None:
            return [self._too_late(pending, now_ns)]
        if carried is None:
            return []
        return [('dry' if self._is_dry else 'sent', carried.record(self.motion, self._is_dry))]

    def _too_late(self, decided: Decided, now_ns: int) -> tuple[str, StepRecord]:
        self._why = f'the decision of tick {decided.tick.step} came too late'
        age_ns = self.fresh.age_ns(decided.tick.samples, now_ns)
        return 'late', StepRecord(decided.tick, decided, age_ns=age_ns, late=True)

    def _finish(self, termination: str, message: str, now_ns: int) -> None:
        """Send the fallback as the last command, then tell how the episode ended."""
        if self.goal is None:
            return
        thinking, self._thinking = self._thinking, []
        decided, self._pending = self._pending, None
        if self._carried is not None and self._carried.out is None:
            decided, self._carried = self._carried.decided, None
        self.told.report(self._closed(now_ns))
        if decided is not None:
            self.told.report([('refused', StepRecord(decided.tick, decided))])
        self.told.report([('refused', StepRecord(tick, None)) for tick in thinking])
        problem = self._sender.fallback(now_ns)
        if problem:
            termination, message = 'fault', f'{message}; the fallback failed: {problem}'
        self.told.finished(termination == 'fault', problem is not None)
        if self.motion.takeover.active:
            self._outputs.took_over(self.goal, False, now_ns)
        goal, self.goal, self.running = self.goal, None, False
        counted = self.told.episode
        self.told.notice(set())
        self.last_end = EpisodeEnd(
            goal=goal,
            outcome=OUTCOMES[termination],
            termination=termination,
            message=message,
            steps=counted.fates['sent'] + counted.fates['dry'],
            late=counted.fates['late'],
            limited=counted.limited_commands,
            timing=counted.summary(),
        )
        self._outputs.ended(self.last_end)
