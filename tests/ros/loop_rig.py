"""A control loop played through time on a clock of the test's own: no ROS, no threads."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

import numpy as np
from policy_rig import CONTRACT

from qt_ros.contract import Contract
from qt_ros.nodes.control.loop import ControlLoop
from qt_ros.nodes.control.records import Decided, EpisodeEnd, Goal, StepRecord, Tick
from qt_ros.nodes.control.timing import FATES
from qt_ros.observation import Observation, ObservationSampler

MS = 1_000_000
START_NS = 1_000_000_000_000
TERMINATING = CONTRACT.replace('safety:', 'terminate: {bins: 2}\nsafety:')
DRIVING = (
    CONTRACT[: CONTRACT.index('action:')]
    + """
action:
  - topic: /cmd_vel
    type: geometry_msgs/msg/Twist
    dims:
      - {name: x, field: linear.x, mode: velocity, low: -1.0, high: 1.0, bins: 5}
      - {name: y, field: linear.y, mode: velocity, low: -1.0, high: 1.0, bins: 5}
      - {name: turn, field: angular.z, mode: velocity, low: -1.0, high: 1.0, bins: 5}
episodes: {events: /episode/events}
safety: {limits: {turn: {velocity: 0.5}}, watchdog_s: 0.3, fallback: zero}
"""
)


@dataclass
class Rig:
    """Runs a loop through time: slots, arriving samples and decisions, in order of their time."""

    text: str = CONTRACT
    slot_ms: int | None = 20
    delays_ms: list[float] = field(default_factory=lambda: [5.0])  # of the decisions, in turn
    slot_jitter_ms: list[float] = field(default_factory=lambda: [0.0])
    actions: list[list[float]] = field(default_factory=lambda: [[0.05, 0.1, 1.0]])
    error_at: int = -1
    unusable_at: int = -1
    hang_at: int = -1
    send_fails_at: int = -1
    silent_ms: tuple[float, float] = (1e9, 1e9)  # from, to: no image arrives
    state: list[float] = field(default_factory=lambda: [0.01, -0.02, 0.5])  # measured

    def __post_init__(self) -> None:
        self.contract = Contract.parse(self.text)
        self.sampler = ObservationSampler(self.contract, keep_ns=2_000 * MS)
        slot_ns = None if self.slot_ms is None else self.slot_ms * MS
        self.loop = ControlLoop(self.contract, self.sampler, self, slot_ns)
        self.now_ns = START_NS
        self.sent: list[tuple[int, np.ndarray]] = []
        self.records: list[StepRecord] = []
        self.end: EpisodeEnd | None = None
        self.block = ''
        self.notices: list[str] = []
        self.observations: dict[int, Observation] = {}
        self._queue: list = []
        self._order = itertools.count()
        self._thinking = False
        self._asked = self._sends = 0

    # Outputs

    def prepare(self, goal: Goal) -> bool:
        self.at(self.now_ns + 3 * MS, lambda: self.loop.on_prepared(goal))
        return True

    def blocked(self) -> str:
        return self.block

    def may_begin(self) -> bool:
        return True

    def think(self, tick: Tick) -> bool:
        if self._thinking:
            return False
        self._thinking = True
        number, self._asked = self._asked, self._asked + 1
        if number == self.hang_at:
            return True
        delay_ms = self.delays_ms[number % len(self.delays_ms)]
        decided = self._decide(tick, number)

        def done() -> None:
            self._thinking = False
            self.loop.on_decided(decided, self.now_ns)

        self.at(self.now_ns + round(delay_ms * MS), done)
        return True

    def send(self, targets: np.ndarray, stamp_ns: int) -> np.ndarray:
        self._sends += 1
        if self._sends == self.send_fails_at:
            raise ValueError('no such joint')
        assert np.isfinite(targets).all()
        self.sent.append((stamp_ns, targets.copy()))
        return targets

    def report(self, record: StepRecord) -> None:
        self.records.append(record)

    def noticed(self, began: list[str], ended: list[str]) -> None:
        self.notices += [f'+{name}' for name in began] + [f'-{name}' for name in ended]

    def took_over(self, goal: Goal, by_person: bool, now_ns: int) -> None:
        self.notices.append('person' if by_person else 'policy')

    def ended(self, end: EpisodeEnd) -> None:
        assert self.end is None, 'an episode ends once'
        self.end = end

    # Time

    def at(self, time_ns: int, action) -> None:
        heapq.heappush(self._queue, (time_ns, next(self._order), action))

    def run(self, goal: Goal, seconds: float = 5.0) -> Rig:
        """Play samples and slots until the time is up."""
        slot_ms = self.slot_ms or 5
        for i in range(round(seconds * 1e3 / slot_ms)):
            due_ns = START_NS + i * slot_ms * MS
            late_ns = round(self.slot_jitter_ms[i % len(self.slot_jitter_ms)] * MS)
            self.at(due_ns + late_ns, lambda due_ns=due_ns: self.loop.on_time(due_ns, self.now_ns))
        for i in range(round(seconds * 1e3 / 10)):
            stamp_ns = START_NS + i * 10 * MS
            low, high = (START_NS + round(ms * MS) for ms in self.silent_ms)
            if not low <= stamp_ns < high:
                self.at(stamp_ns, lambda s=stamp_ns: self.sampler.add('/eye/compressed', s, s))
            self.at(stamp_ns, lambda s=stamp_ns: self.sampler.add('/joint_states', s, s))
        self.loop.start(goal)
        while self._queue:
            time_ns, _, action = heapq.heappop(self._queue)
            self.now_ns = max(self.now_ns, time_ns)
            action()
        return self

    def _decide(self, tick: Tick, number: int) -> Decided:
        if number == self.error_at:
            return Decided(tick, 0.001, error='deciding failed: a tensor of the wrong shape')
        stamps = {name: sample.stamp_ns for name, sample in tick.samples.items()}
        state = np.array(self.state, np.float32)
        seen = Observation(tick.t_ns, {}, state, stamps, dict.fromkeys(stamps, True))
        if number == self.unusable_at:
            return Decided(tick, 0.001, unusable='joints: a NaN', observation=seen)
        self.observations[tick.step] = seen
        action = np.array(self.actions[number % len(self.actions)], dtype=np.float64)
        return Decided(tick, 0.001, observation=seen, action=action)


def goal(steps: int = 10, dry_run: bool = False) -> Goal:
    return Goal('do it', steps, dry_run, 'e1')


def check_commands(rig: Rig) -> None:
    """What must hold however an episode went."""
    sent = [r for r in rig.records if r.sent is not None]
    for record in sent:
        step_end_ns = rig.contract.tick_ns(record.tick.t_ns, 1)
        # Rounding of t_k and t_k+1 may differ by one nanosecond.
        assert record.tick.t_ns < record.command_ns <= step_end_ns + 1
    stamps = [stamp for stamp, _ in rig.sent]
    assert stamps == sorted(set(stamps))
    fates = rig.loop.told.episode.fates
    assert fates['sent'] == len(sent)
    assert sum(fates.values()) == rig.loop.told.episode.ticks
    assert set(fates) <= set(FATES)
    one, two = (rig.contract.safety.limits[name] for name in ('one', 'two'))
    previous = None
    for _, targets in rig.sent:
        assert one.position[0] <= targets[0] <= one.position[1]
        assert two.position[0] <= targets[1] <= two.position[1]
        if previous is not None:
            assert abs(targets[1] - previous[1]) <= two.velocity / rig.contract.rate_hz + 1e-9
        previous = targets
