"""Slots that lie apart from the ticks: commands go out as soon as thinking is done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_rig import MS, START_NS, Rig, check_commands, goal

from qt_ros.nodes.control.lead import FEWEST, Lead, lead_s
from qt_ros.nodes.control.records import Tick


@dataclass
class LeadRig(Rig):
    """As its base; a slot comes a lead after each tick, and ticks have calls of their own."""

    lead_ms: float = 7.0
    early_slots: int = 0  # of each tick, in which its decision does not go out yet
    tick_jitter_ms: tuple[float, ...] = (0.0,)

    def run(self, goal, seconds: float = 5.0) -> Rig:
        """Play samples, ticks and slots until the time is up."""
        assert self.slot_ms is not None
        for i in range(round(seconds * 10)):
            due_ns = START_NS + i * 100 * MS
            self._call(due_ns, self.tick_jitter_ms[i % len(self.tick_jitter_ms)], slot=False)
        for i in range(round(seconds * 1e3 / self.slot_ms)):
            due_ns = START_NS + round((self.lead_ms + i * self.slot_ms) * MS)
            self._call(due_ns, self.slot_jitter_ms[i % len(self.slot_jitter_ms)], tick=False)
        for i in range(round(seconds * 1e3 / 10)):
            stamp_ns = START_NS + i * 10 * MS
            for topic in ('/eye/compressed', '/joint_states'):
                self.at(stamp_ns, lambda s=stamp_ns, t=topic: self.sampler.add(t, s, s))
        self.loop.start(goal, round((self.lead_ms + self.early_slots * self.slot_ms) * MS))
        while self._queue:
            self._next()
        return self

    def _call(self, due_ns: int, late_ms: float, **which: bool) -> None:
        self.at(
            due_ns + round(late_ms * MS),
            lambda: self.loop.on_time(due_ns, self.now_ns, **which),
        )

    def _next(self) -> None:
        import heapq

        time_ns, _, action = heapq.heappop(self._queue)
        self.now_ns = max(self.now_ns, time_ns)
        action()


def test_the_first_command_comes_a_lead_after_its_tick() -> None:
    rig = LeadRig(delays_ms=[5.0]).run(goal(10))
    assert rig.end.termination == 'time_limit'
    assert [record.fate for record in rig.records] == ['sent'] * 10
    sent_ns = [stamp for stamp, _ in rig.sent[:-1]]
    assert len(sent_ns) == 50  # five slots a tick
    assert set(np.diff(sent_ns)) == {20 * MS}
    first = rig.records[0].tick.t_ns
    assert sent_ns[0] - first == 7 * MS
    # The age is that of the first command: a lead after the tick, whose image came 10 ms before.
    assert {record.age_ns for record in rig.records} == {17 * MS}
    check_commands(rig)


def test_the_last_slot_of_a_tick_reaches_what_was_decided() -> None:
    rig = LeadRig(actions=[[0.05, 0.1, 1.0], [0.0, -0.1, 1.0]]).run(goal(6))
    for record in rig.records:
        np.testing.assert_allclose(record.sent[1], record.decided.action[1], atol=1e-12)


def test_a_decision_that_misses_its_slot_goes_out_with_the_next() -> None:
    rig = LeadRig(delays_ms=[5.0, 12.0]).run(goal(10))
    ages_ms = [record.age_ns / MS for record in rig.records]
    assert ages_ms == [17.0, 37.0] * 5
    assert rig.end.late == 0
    check_commands(rig)


def test_a_tick_whose_call_is_late_is_handled_at_its_slot() -> None:
    rig = LeadRig(tick_jitter_ms=(0.0, 0.0, 15.0)).run(goal(12))
    assert rig.loop.told.episode.fates == {'sent': 12, 'missed': 0}
    check_commands(rig)


class EagerRig(LeadRig):
    """Its policy takes on the next tick before the loop has heard of the last decision."""

    def think(self, tick: Tick) -> bool:
        self._thinking = False
        return super().think(tick)


@pytest.mark.parametrize('end_ms', [395.0, 401.0, 405.0, 409.0, 415.0])
def test_every_tick_is_reported_whenever_the_episode_ends(end_ms: float) -> None:
    """At 400 ms tick 3 begins, at 410 the decision of tick 2 comes in, at 510 that of tick 3."""
    rig = EagerRig(delays_ms=[110.0])
    rig.at(START_NS + round(end_ms * MS), lambda: rig.loop.cancel(rig.now_ns))
    rig.run(goal(20), seconds=1.0)
    assert sorted(record.tick.step for record in rig.records) == list(range(3 + (end_ms > 400)))


@settings(max_examples=60)
@given(
    st.lists(st.one_of(st.floats(0.1, 40), st.floats(60, 130)), min_size=1, max_size=12),
    st.lists(st.one_of(st.just(0.0), st.floats(0, 30)), min_size=1, max_size=12),
    st.lists(st.one_of(st.just(0.0), st.floats(0, 120)), min_size=1, max_size=12),
    st.sampled_from([20, 50]),
    st.floats(0.25, 0.9),
    st.integers(0, 1),
)
def test_commands_lie_within_their_ticks_however_time_goes(
    delays_ms: list[float],
    slot_jitter_ms: list[float],
    tick_jitter_ms: list[float],
    slot_ms: int,
    lead: float,
    early_slots: int,
) -> None:
    rig = LeadRig(
        slot_ms=slot_ms,
        delays_ms=delays_ms,
        slot_jitter_ms=slot_jitter_ms,
        tick_jitter_ms=tuple(tick_jitter_ms),
        lead_ms=lead * slot_ms,
        early_slots=early_slots,
        actions=[[0.05, 0.3, 1.0], [-0.05, -0.3, 0.0], [0.1, 0.5, 1.0]],
    )
    rig.run(goal(25))
    check_commands(rig)
    if rig.end is not None and rig.end.termination == 'time_limit':
        assert sum(rig.loop.told.episode.fates.values()) == 25


@pytest.mark.parametrize(
    ('ready_s', 'slot_s', 'found'),
    [
        (0.021, 1 / 30, 0.021),
        (0.0, 1 / 30, 1 / 120),  # never closer than a quarter of a slot
        (0.021, 1 / 50, 0.025),  # too slow for a slot: the second one
        (0.0185, 1 / 50, 0.025),  # just in time for one is too late half of the time
        (0.030, 1 / 50, 0.030),  # the second one
        (0.047, 1 / 50, 0.047),
        (0.052, 1 / 50, 0.012),  # too little time is left after it: as they come
        (0.753, 1 / 50, 0.013),
    ],
)
def test_how_long_a_lead_is(ready_s: float, slot_s: float, found: float) -> None:
    assert lead_s(ready_s, slot_s, 0.1) == pytest.approx(found)


@given(st.floats(0.0, 0.3), st.floats(0.005, 0.1), st.floats(0.05, 1.0))
def test_a_slot_follows_soon_after_thinking(ready_s: float, slot_s: float, tick_s: float) -> None:
    lead = lead_s(ready_s, slot_s, tick_s)
    assert 0.25 * slot_s - 1e-9 <= lead % slot_s <= 0.9 * slot_s + 1e-9
    assert lead <= max(tick_s / 2, 0.9 * slot_s + 1e-9)
    if ready_s <= tick_s / 2 - 0.36 * slot_s:  # there is time for it
        assert -1e-9 <= lead - ready_s < 0.36 * slot_s


def test_the_lead_is_learnt_from_decisions() -> None:
    lead = Lead(rate_hz=10.0, slot_ns=20 * MS, thinking_s=0.004)
    assert lead.value_s() == pytest.approx(0.009)
    for _ in range(FEWEST - 1):
        lead.learn(0.016)
    assert lead.value_s() == pytest.approx(0.009)
    lead.learn(5.0)  # one that hung says nothing of the others
    assert lead.value_s() == pytest.approx(0.016)
    for _ in range(FEWEST):
        lead.learn(0.027)
    assert lead.value_s() == pytest.approx(0.027)


def test_a_decision_that_is_early_waits_for_its_slot() -> None:
    rig = LeadRig(delays_ms=[12.0, 3.0, 23.0], lead_ms=5.0, early_slots=1).run(goal(12))
    assert {record.age_ns / MS for record in rig.records} == {35.0}  # the slot 25 ms after a tick
    assert len(rig.sent) > 50  # the slots before it repeat what was sent last
    assert rig.loop.told.episode.fates == {'sent': 12, 'missed': 0}
    check_commands(rig)


def test_decisions_that_take_most_of_a_slot_go_out_in_step_with_the_next() -> None:
    rig = LeadRig(delays_ms=[12.0, 18.0, 23.0], lead_ms=5.0).run(goal(12))
    assert {record.age_ns / MS for record in rig.records} == {35.0}  # the slot 25 ms after a tick
    assert rig.loop.told.episode.fates == {'sent': 12, 'missed': 0}
    check_commands(rig)
