"""The control loop of one policy as a state machine: no ROS, no threads, no clock of its own.

    idle --start--> waiting --fresh and prepared--> running --limit, cancel, fault--> idle

Whoever owns it calls `on_time` at every command slot and `on_decided` for every decision; it calls
back through `Outputs`. A slot is a point of the command timer's grid, ticks lie on that grid:

    t_0                 t_1                  decisions, every contract period
    |----|----|----|----|----|----|          slots, every command period
      think..|send                           a decision goes out at the next slot after it is made

A decision is worth sending until the next tick; after that it is late, counted and discarded.
With no slot left before the next tick (or no slots at all, as in simulated time, where the clock
may wait for the command) it goes out at once. What goes out is limited first; what ends an
episode, for whatever reason, is the fallback.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qt_ros.commands import action_from_targets, initial_targets, targets_from_action
from qt_ros.contract import Contract
from qt_ros.errors import QtRosError
from qt_ros.nodes.control.records import Decided, EpisodeEnd, Goal, StepRecord, Tick
from qt_ros.nodes.control.timing import LoopStats
from qt_ros.observation import ObservationSampler
from qt_ros.safety import Limiter, Watchdog, fallback_targets

Targets = NDArray[np.float64]
OUTCOMES = {
    'time_limit': 'timeout',
    'terminate_action': 'unknown',
    'canceled': 'unknown',
    'fault': 'aborted',
}
ON_TERMINATE = 'the policy chose to terminate'


class Outputs(Protocol):
    """What the loop can cause."""

    def prepare(self, goal: Goal) -> bool:
        """Tell the policy its instruction; False while an earlier thought still runs."""

    def may_begin(self) -> bool:
        """Say whether this is a good moment for tick 0."""

    def think(self, tick: Tick) -> bool:
        """Start deciding on a tick; False while an earlier thought still runs."""

    def send(self, targets: Targets, stamp_ns: int) -> Targets:
        """Publish the commands for (A,) targets, all or none; return them as the messages say."""

    def report(self, record: StepRecord) -> None:
        """Tell what became of a tick."""

    def ended(self, end: EpisodeEnd) -> None:
        """Tell how the episode ended; the fallback has been sent."""


class ControlLoop:
    """Ticks, decisions, limits and the watchdog of a policy that drives a robot."""

    def __init__(
        self,
        contract: Contract,
        sampler: ObservationSampler,
        outputs: Outputs,
        slot_ns: int | None,
    ) -> None:
        """`slot_ns`: period of the command slots; None where time itself may wait for commands."""
        self._contract = contract
        self.sampler = sampler
        self._outputs = outputs
        self._slot_ns = slot_ns
        self._limiter = Limiter(contract)
        self._watchdog = Watchdog(contract.safety.watchdog_s, contract.safety.fallback)
        self._size = len(contract.action_dims)
        self._cameras = [camera.stream for camera in contract.cameras]
        self.total = LoopStats()
        self.goal: Goal | None = None
        self.last_end: EpisodeEnd | None = None
        self._clear()

    def _clear(self) -> None:
        self.running = False
        self.episode = LoopStats()
        self._prepared = self._asked = False
        self._t0_ns = 0
        self._next_step = 0
        self._thinking: Tick | None = None  # what the policy is deciding on
        self._pending: Decided | None = None  # what it decided and was not sent yet
        self._base: Targets | None = None  # what delta actions add to: the last target
        self._sent: Targets | None = None  # the last target that went out in this episode
        self._command_ns = 0
        self._terminate = False
        self._why = ''  # why the newest tick without a command had none

    # What the owner calls

    def start(self, goal: Goal) -> None:
        """Take on a goal; it runs as soon as the policy is prepared and every stream is fresh."""
        if self.goal is not None:
            raise QtRosError('an episode is running; cancel it or wait for its end')
        self._clear()
        self.goal = goal
        self._asked = self._outputs.prepare(goal)

    def on_prepared(self, goal: Goal, error: str = '') -> None:
        """Learn that the policy knows the instruction, or why it does not."""
        if goal is not self.goal:
            return
        if error:
            self._finish('fault', error, 0)
        self._prepared = not error

    def on_time(self, schedule_ns: int, now_ns: int) -> None:
        """Act at a slot: `schedule_ns` is when it was due, `now_ns` when it is."""
        if self.goal is None:
            return
        if not self.running and not self._begin(schedule_ns, now_ns):
            return
        if self._pending is not None:
            self._command(now_ns)
        slack_ns = (self._slot_ns or 0) // 2
        if self.running and schedule_ns + slack_ns >= self._tick_ns(self._next_step):
            self._tick(schedule_ns + slack_ns, now_ns)
        if self.running and self._watchdog.expired(now_ns):
            self.fault(
                f'no command for {self._contract.safety.watchdog_s:g} s: {self._why}', now_ns
            )

    def on_decided(self, decided: Decided, now_ns: int) -> None:
        """Take over a decision; it goes out at the next slot, or at once where there is none."""
        if decided.tick.goal is not self.goal or not self.running:
            return
        self._thinking = None
        if decided.error:
            self._report('refused', StepRecord(decided.tick, decided))
            self.fault(decided.error, now_ns)
            return
        if decided.unusable:
            self._why = decided.unusable
            age_ns = self._age_ns(decided.tick, now_ns)
            self._report('stale', StepRecord(decided.tick, decided, age_ns=age_ns))
            return
        if self._base is None and decided.observation is not None:
            self._base = initial_targets(self._contract, decided.observation)
            self._limiter.reset(self._base)
        self._pending = decided
        if not self._slot_before_next_tick(now_ns):
            self._command(now_ns)

    def cancel(self, now_ns: int) -> None:
        """End the episode because its client asked to."""
        self._finish('canceled', 'canceled by the client', now_ns)

    def fault(self, message: str, now_ns: int) -> None:
        """End the episode because something is wrong."""
        self._finish('fault', message, now_ns)

    def waiting_for(self, now_ns: int) -> list[str]:
        """Say what an episode that has not begun waits for."""
        reasons = [] if self._prepared else ['the policy has not taken in the instruction']
        return reasons + self.stale(now_ns)

    def stale(self, now_ns: int) -> list[str]:
        """Say which streams could not be decided on now, and since when."""
        missing = self.sampler.missing(now_ns)
        if missing:
            return [f'{name}: nothing received from {self._topic(name)}' for name in missing]
        samples = self.sampler.sample(now_ns) or {}
        return [
            f'{name}: newest sample of {self._topic(name)} is {sample.age_ns / 1e9:.2f} s old,'
            f' max_age_s is {self._max_age_s(name):g}'
            for name, sample in samples.items()
            if not sample.valid
        ]

    # Ticks

    def _begin(self, schedule_ns: int, now_ns: int) -> bool:
        assert self.goal is not None
        if not self._asked:
            self._asked = self._outputs.prepare(self.goal)
        if not self._prepared or self.stale(now_ns) or not self._outputs.may_begin():
            return False
        self.running = True
        self._t0_ns = schedule_ns
        self._watchdog.feed(now_ns)
        return True

    def _tick_ns(self, step: int) -> int:
        return self._contract.tick_ns(self._t0_ns, step)

    def _slot_before_next_tick(self, now_ns: int) -> bool:
        if self._slot_ns is None or self._pending is None:
            return False
        slots = (now_ns - self._t0_ns) // self._slot_ns + 1
        slot_ns = self._t0_ns + slots * self._slot_ns
        return slot_ns < self._tick_ns(self._pending.tick.step + 1) - self._slot_ns // 4

    def _tick(self, due_ns: int, now_ns: int) -> None:
        """Handle the newest tick that is due; earlier ones that were not reached are missed."""
        assert self.goal is not None
        step = self._next_step
        while self._tick_ns(step + 1) <= due_ns:
            step += 1
        missed = min(step, self.goal.max_steps) - self._next_step
        for stats in (self.episode, self.total):
            stats.fates['missed'] += missed
        self._next_step = step + 1
        t_ns = self._tick_ns(step)
        if self._terminate:
            self._finish('terminate_action', ON_TERMINATE, max(now_ns, t_ns + 1))
            return
        if step >= self.goal.max_steps:
            self._finish('time_limit', 'the time is up', max(now_ns, t_ns + 1))
            return
        samples = self.sampler.sample(t_ns)
        if samples is None:
            self.fault('; '.join(self.stale(t_ns)), now_ns)
            return
        tick = Tick(self.goal, step, t_ns, samples)
        if not all(sample.valid for sample in samples.values()):
            self._why = 'stale ' + '; '.join(self.stale(t_ns))
            self._report('stale', StepRecord(tick, None, age_ns=self._age_ns(tick, now_ns)))
        elif self._outputs.think(tick):
            self._thinking = tick
        else:
            self._why = 'the policy is still deciding on an earlier tick'
            self._report('busy', StepRecord(tick, None, age_ns=self._age_ns(tick, now_ns)))

    def _command(self, now_ns: int) -> None:
        """Limit and send the pending decision, or discard it if its time has passed."""
        decided, self._pending = self._pending, None
        if decided is None or decided.observation is None or self.goal is None:
            return
        tick = decided.tick
        stamp_ns = max(now_ns, tick.t_ns + 1)  # a command of tick k lies in (t_k, t_k+1]
        age_ns = self._age_ns(tick, stamp_ns)
        if stamp_ns > self._tick_ns(tick.step + 1):
            self._why = f'the decision of tick {tick.step} came too late'
            self._report('late', StepRecord(tick, decided, age_ns=age_ns, late=True))
            return
        if self.goal.dry_run:  # nobody follows the commands: start from where the robot is
            self._base = initial_targets(self._contract, decided.observation)
            self._limiter.reset(self._base)
        assert self._base is not None
        action = decided.action[: self._size]
        targets = targets_from_action(self._contract, action, self._base)
        limited = self._limiter.limit(targets, 1.0 / self._contract.rate_hz)
        try:
            sent = self._send(limited.targets, stamp_ns)
        except Exception as error:  # noqa: BLE001 - whatever it is, the robot must be left safe
            self._report('refused', StepRecord(tick, decided, age_ns=age_ns))
            self.fault(f'the command could not be sent: {_words(error)}', now_ns)
            return
        self._watchdog.feed(now_ns)
        record = self._sent_record(decided, sent, limited.reasons, stamp_ns, age_ns)
        self._base = sent
        if self._contract.terminate_bins is not None:
            self._terminate = bool(decided.action[self._size] >= 0.5)
        self._report('dry' if self.goal.dry_run else 'sent', record)

    def _send(self, targets: Targets, stamp_ns: int) -> Targets:
        """Send targets unless this is a dry run; return them as they went out."""
        assert self.goal is not None
        if not self.goal.dry_run:
            targets = self._sent = self._outputs.send(targets, stamp_ns)
        return targets

    def _sent_record(
        self,
        decided: Decided,
        targets: Targets,
        reasons: tuple[str, ...],
        stamp_ns: int,
        age_ns: int,
    ) -> StepRecord:
        """Describe a command as (A,) actions, as a converter will see it in a recording."""
        assert self._base is not None
        assert self.goal is not None
        terminate = decided.action[self._size :]
        reasons = (*reasons, *('' for _ in terminate))
        if self.goal.dry_run:
            return StepRecord(decided.tick, decided, reasons=reasons, age_ns=age_ns)
        sent = action_from_targets(self._contract, targets, self._base)
        period_ns = stamp_ns - self._command_ns if self._command_ns else 0
        self._command_ns = stamp_ns
        return StepRecord(
            tick=decided.tick,
            decided=decided,
            sent=np.concatenate([sent, terminate]),
            reasons=reasons,
            command_ns=stamp_ns,
            age_ns=age_ns,
            period_ns=period_ns,
        )

    # Reports and the end

    def _report(self, fate: str, record: StepRecord) -> None:
        for stats in (self.episode, self.total):
            stats.record(fate, record)
        self._outputs.report(record)

    def _finish(self, termination: str, message: str, now_ns: int) -> None:
        """Send the fallback as the last command, then tell how the episode ended."""
        if self.goal is None:
            return
        tick, self._thinking = self._thinking, None
        decided, self._pending = self._pending, None
        if decided is not None:
            self._report('refused', StepRecord(decided.tick, decided))
        elif tick is not None:
            self._report('refused', StepRecord(tick, None))
        problem = self._fallback(now_ns)
        if problem:
            termination, message = 'fault', f'{message}; the fallback failed: {problem}'
        if termination == 'fault':
            self.episode.faults += 1
            self.total.faults += 1
        goal, self.goal, self.running = self.goal, None, False
        self.last_end = EpisodeEnd(
            goal=goal,
            outcome=OUTCOMES[termination],
            termination=termination,
            message=message,
            steps=self.episode.fates['sent'] + self.episode.fates['dry'],
            late=self.episode.fates['late'],
            limited=self.episode.limited_commands,
            timing=self.episode.summary(),
        )
        self._outputs.ended(self.last_end)

    def _fallback(self, now_ns: int) -> str:
        """Send the declared fallback if this episode moved the robot; return what went wrong."""
        if self._sent is None:
            return ''
        targets = fallback_targets(self._contract, self._sent)
        if targets is None:
            return ''
        self.episode.fallbacks += 1
        self.total.fallbacks += 1
        try:
            self._send(targets, max(now_ns, self._command_ns + 1))
        except Exception as error:  # noqa: BLE001 - told in the episode's message
            return _words(error)
        return ''

    def _age_ns(self, tick: Tick, at_ns: int) -> int:
        """Age at `at_ns` of the newest image used; of the newest sample if there is no camera."""
        streams = self._cameras or list(tick.samples)
        return at_ns - max(tick.samples[name].stamp_ns for name in streams)

    def _topic(self, stream: str) -> str:
        return next(s.topic for s in self._streams() if s.stream == stream)

    def _max_age_s(self, stream: str) -> float:
        return next(s.max_age_s for s in self._streams() if s.stream == stream)

    def _streams(self) -> list:
        return [*self._contract.cameras, *self._contract.state]


def _words(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'
