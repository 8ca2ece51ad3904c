"""The control loop as a state machine, on a clock of the test's own: no ROS, no threads."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from loop_rig import DRIVING, MS, START_NS, TERMINATING, Rig, check_commands, goal
from policy_rig import CONTRACT

from qt_ros.bags.actions import Commands, columns_of, commanded_actions, targets_of
from qt_ros.bags.ticks import Ticks, tick_times
from qt_ros.errors import QtRosError
from qt_ros.interlocks import ReceiveGate
from qt_ros.nodes.control.loop import ControlLoop
from qt_ros.nodes.control.timing import Distribution


def test_an_episode_runs_its_time_and_ends_in_the_fallback():
    rig = Rig().run(goal(10))
    assert rig.end.termination == 'time_limit'
    assert rig.end.outcome == 'timeout'
    assert rig.end.steps == 10
    assert [r.tick.step for r in rig.records] == list(range(10))
    assert len(rig.sent) == 50 + 1  # one a slot from the first decision on; the fallback
    np.testing.assert_array_equal(rig.sent[-1][1], rig.sent[-2][1])  # hold
    assert rig.sent[-1][0] > rig.contract.tick_ns(rig.records[0].tick.t_ns, 10)
    check_commands(rig)


def test_a_decision_is_spread_over_the_slots_of_its_tick():
    rig = Rig(delays_ms=[3.0, 17.0, 9.0], actions=[[0.02, 0.1, 1.0], [-0.02, 0.2, 0.0]])
    rig.run(goal(10))
    t0_ns = rig.records[0].tick.t_ns
    times, targets = zip(*rig.sent[:-1], strict=True)
    assert [round((t - t0_ns) / MS) for t in times] == list(range(20, 1001, 20))
    values = np.array(targets)
    np.testing.assert_allclose(values[:5, 0], 0.01 + 0.004 * np.arange(1, 6), rtol=1e-6)
    np.testing.assert_allclose(values[5:10, 1], np.linspace(0.12, 0.2, 5))
    assert values[:5, 2].tolist() == [1.0] * 5  # two bins: a gripper opens or closes
    for record in rig.records:  # the last command of a tick is the decided target
        assert record.command_ns == record.tick.t_ns + 100 * MS
        np.testing.assert_allclose(record.sent, record.decided.action, atol=1e-12)
        assert record.reasons == ('', '', '')
        assert record.age_ns == 30 * MS
        assert len(record.stamps_ns) == 5
    assert rig.loop.told.episode.period_s.summary()['max'] == pytest.approx(0.02)


def test_a_late_decision_goes_no_faster_than_twice_and_leaves_the_rest_out():
    text = CONTRACT.replace(', step: 0.3, velocity: 2.0', '')
    rig = Rig(text=text, delays_ms=[3.0, 93.0, 55.0], actions=[[0.0, 0.0, 1.0], [0.0, 0.5, 1.0]])
    rig.run(goal(4))
    late = rig.records[1]
    assert late.sent[1] == pytest.approx(0.2)  # one slot was left: two fifths of the way
    assert late.reasons == ('', 'late', '')
    assert rig.records[3].sent[1] == pytest.approx(0.5)  # five were
    assert rig.end.late == 0


def test_with_one_slot_a_period_a_decision_goes_out_at_once():
    rig = Rig(slot_ms=100, delays_ms=[40.0]).run(goal(10))
    assert {r.command_ns - r.tick.t_ns for r in rig.records} == {40 * MS}
    assert rig.end.late == 0


def test_late_decisions_are_discarded_and_counted():
    rig = Rig(delays_ms=[10.0, 10.0, 110.0]).run(goal(12))
    fates = rig.loop.told.episode.fates
    assert fates['late'] == rig.end.late > 0
    assert fates['busy'] > 0  # the tick after a slow one found nobody free
    late = [r for r in rig.records if r.late]
    assert all(r.sent is None and not r.command_ns for r in late)
    assert rig.end.termination == 'time_limit'
    check_commands(rig)


def test_a_stale_camera_stops_decisions_then_the_watchdog_ends_the_episode():
    rig = Rig(silent_ms=(600, 1e9)).run(goal(40))
    assert rig.end.termination == 'fault'
    assert rig.end.outcome == 'aborted'
    assert 'stale eye: newest sample of /eye/compressed is' in rig.end.message
    np.testing.assert_array_equal(rig.sent[-1][1], rig.sent[-2][1])
    last = [r for r in rig.records if r.sent is not None][-1]
    waited_ns = rig.sent[-1][0] - (last.tick.t_ns + 20 * MS)  # since its first command
    assert 300 * MS < waited_ns <= 321 * MS
    assert rig.notices == ['+stale eye', '-stale eye']
    stale = [r for r in rig.records if r.decided is None]
    assert stale
    assert not any(s.valid for r in stale for n, s in r.tick.samples.items() if n == 'eye')
    check_commands(rig)


def test_a_short_silence_is_survived():
    rig = Rig(silent_ms=(600, 1050)).run(goal(20))
    assert rig.end.termination == 'time_limit'
    assert rig.loop.told.episode.fates['stale'] > 0
    check_commands(rig)


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        ({'error_at': 3}, 'a tensor of the wrong shape'),
        ({'hang_at': 3}, 'still deciding'),
        ({'send_fails_at': 3}, 'no such joint'),
        ({'delays_ms': [5.0, 5.0, 150.0, 150.0, 150.0, 150.0]}, 'no command for 0.3 s'),
    ],
)
def test_whatever_goes_wrong_the_last_command_is_the_fallback(spoil, message):
    rig = Rig(**spoil).run(goal(30))
    assert rig.end.termination == 'fault'
    assert message in rig.end.message
    np.testing.assert_array_equal(rig.sent[-1][1], rig.sent[-2][1])
    assert rig.loop.goal is None
    check_commands(rig)


def test_a_fallback_that_cannot_be_sent_is_told():
    rig = Rig(error_at=3, send_fails_at=16).run(goal(30))
    assert 'wrong shape' in rig.end.message
    assert 'the fallback failed: ValueError: no such joint' in rig.end.message


def test_unusable_numbers_hold_a_tick_up():
    rig = Rig(unusable_at=2).run(goal(8))
    assert rig.loop.told.episode.fates['stale'] == 1
    assert rig.end.steps == 7
    assert rig.end.termination == 'time_limit'


def test_a_nan_action_repeats_the_last_target():
    rig = Rig(actions=[[0.05, 0.1, 1.0], [np.nan, 0.2, 1.0]]).run(goal(4))
    assert rig.records[1].reasons[0] == 'nonfinite'
    assert rig.records[1].sent[0] == 0.0
    assert rig.end.termination == 'time_limit'


def test_zero_as_a_fallback():
    rig = Rig(text=DRIVING).run(goal(5))
    np.testing.assert_array_equal(rig.sent[0][1], [0.05, 0.1, 0.5])
    assert len(rig.sent) == 25 + 1
    assert rig.records[0].reasons == ('', '', 'velocity')
    np.testing.assert_array_equal(rig.sent[-1][1], np.zeros(3))


def test_nothing_sent_means_no_fallback():
    rig = Rig(error_at=0).run(goal(5))
    assert rig.end.termination == 'fault'
    assert rig.sent == []


def test_cancel_ends_with_the_fallback():
    rig = Rig()
    rig.at(START_NS + 555 * MS, lambda: rig.loop.cancel(rig.now_ns))
    rig.run(goal(50))
    assert (rig.end.termination, rig.end.outcome) == ('canceled', 'unknown')
    assert rig.sent[-1][0] == START_NS + 555 * MS
    check_commands(rig)


def test_terminate_is_sent_and_then_ends_the_episode():
    rig = Rig(text=TERMINATING, actions=[[0, 0.1, 1, 0], [0, 0.1, 1, 0], [0, 0.1, 1, 1]])
    rig.run(goal(50))
    assert rig.end.termination == 'terminate_action'
    assert rig.end.steps == 3
    assert rig.records[-1].sent.tolist()[-1] == 1.0
    assert len(rig.records[-1].reasons) == 4
    check_commands(rig)


def test_a_dry_run_decides_and_sends_nothing():
    rig = Rig().run(goal(5, dry_run=True))
    assert rig.sent == []
    assert rig.end.steps == 5
    assert all(r.sent is None and not r.command_ns for r in rig.records)
    assert rig.end.termination == 'time_limit'


def test_an_episode_waits_for_every_stream():
    rig = Rig(silent_ms=(0, 700)).run(goal(5))
    assert rig.records[0].tick.t_ns >= START_NS + 700 * MS
    assert rig.end.termination == 'time_limit'


def test_waiting_says_what_for():
    rig = Rig()
    rig.loop.start(goal())
    assert 'eye: nothing received from /eye/compressed' in rig.loop.waiting_for(START_NS)
    rig.sampler.add('/eye/compressed', START_NS, 0)
    rig.sampler.add('/joint_states', START_NS, 0)
    old = rig.loop.stale(START_NS + 1000 * MS)
    assert 'eye: newest sample of /eye/compressed is 1.00 s old, max_age_s is 0.3' in old


def test_one_episode_at_a_time():
    rig = Rig()
    rig.loop.start(goal())
    with pytest.raises(QtRosError, match='an episode is running'):
        rig.loop.start(goal())


def test_a_decision_of_an_earlier_episode_is_ignored():
    rig = Rig(delays_ms=[500.0])
    rig.at(START_NS + 150 * MS, lambda: rig.loop.cancel(rig.now_ns))
    rig.run(goal(50))
    assert rig.end.termination == 'canceled'
    assert rig.sent == []


def test_an_interlock_ends_the_episode_at_the_next_slot():
    rig = Rig()

    def press() -> None:
        rig.block = 'emergency stop: pressed'

    rig.at(START_NS + 555 * MS, press)
    rig.run(goal(50))
    assert (rig.end.termination, rig.end.message) == ('fault', 'emergency stop: pressed')
    assert rig.sent[-1][0] == START_NS + 560 * MS
    np.testing.assert_array_equal(rig.sent[-1][1], rig.sent[-2][1])
    check_commands(rig)
    rig.loop.start(goal())
    assert 'emergency stop: pressed' in rig.loop.waiting_for(rig.now_ns)


def test_an_episode_that_may_not_begin_here_sends_nothing():
    text = CONTRACT.replace('  fallback', '  start: {position.two: [0.5, 0.6]}\n  fallback')
    rig = Rig(text=text).run(goal(5))
    assert rig.end.message == (
        'cannot begin: position.two is -0.02, an episode begins in [0.5, 0.6]'
    )
    assert rig.sent == []
    assert Rig(text=text, state=[0.0, 0.55, 0.0]).run(goal(5)).end.termination == 'time_limit'
    dry = Rig(text=text).run(goal(5, dry_run=True))
    assert dry.end.steps == 5


def test_first_movements_grow():
    text = CONTRACT.replace('  fallback', '  ramp_s: 0.4\n  fallback')
    rig = Rig(text=text, actions=[[0.01, 0.0, 1.0]], state=[0.0, 0.0, 0.0]).run(goal(8))
    moved = [r.sent[0] for r in rig.records]
    np.testing.assert_allclose(moved[:5], [0.0005, 0.002875, 0.005375, 0.007875, 0.01], atol=1e-12)
    assert [r.reasons[0] for r in rig.records[:5]] == ['ramp'] * 4 + ['']
    assert rig.records[0].sent[2] == 1.0
    check_commands(rig)


@pytest.mark.parametrize('slot_ms', [20, 100, None])
def test_a_person_takes_over_and_gives_back(slot_ms):
    """While a person drives, the policy decides on and its actions are not sent."""
    text = CONTRACT.replace(', step: 0.3, velocity: 2.0', ', velocity: 1.0')
    rig = Rig(text=text, slot_ms=slot_ms, actions=[[0.01, 0.1, 1.0]], state=[0.0, 0.0, 0.0])
    columns = slice(0, 2)
    for ms in range(500, 1001, 50):
        values = np.array([-0.04, 0.5])
        rig.at(START_NS + ms * MS, lambda v=values: rig.loop.teleoperate(columns, v, rig.now_ns))
    rig.run(goal(30))
    assert rig.notices[:1] == ['person']
    assert [n for n in rig.notices if n in ('person', 'policy')] == ['person', 'policy']
    assert rig.loop.motion.takeover.count == 1
    assert rig.end.termination == 'time_limit'
    person = [r for r in rig.records if 'takeover' in r.reasons]
    assert 8 <= len(person) <= 12
    assert all(r.reasons == ('takeover',) * 3 for r in person)
    assert all(r.decided.action.tolist() == [0.01, 0.1, 1.0] for r in person)
    values = np.array([targets for _, targets in rig.sent])
    there = int(np.argmax(values[:, 1]))
    np.testing.assert_allclose(values[there], [-0.04, 0.5, 1.0])
    # It goes there within the limits, and back again in movements that grow.
    assert np.abs(np.diff(values[:, 1])).max() <= 1.0 * (0.02 if slot_ms == 20 else 0.1) + 1e-9
    after = [r for r in rig.records if r.tick.step > person[-1].tick.step]
    assert after[0].reasons[0] == after[1].reasons[0] == 'ramp'
    assert 0 < after[0].sent[0] < after[2].sent[0] <= 0.01
    check_commands(rig)


def test_a_person_is_obeyed_while_the_policy_sees_nothing():
    rig = Rig(silent_ms=(600, 2000), actions=[[0.0, 0.1, 1.0]], state=[0.0, 0.0, 0.0])
    for ms in range(500, 2501, 100):
        rig.at(
            START_NS + ms * MS,
            lambda: rig.loop.teleoperate(slice(2, 3), np.zeros(1), rig.now_ns),
        )
    rig.run(goal(30))
    assert rig.end.termination == 'time_limit'
    assert rig.loop.told.episode.fates['stale'] > 5
    assert rig.sent[-1][1][2] == 0.0
    check_commands(rig)


def test_a_camera_with_a_clock_ahead_is_stale_when_it_falls_silent():
    rig = Rig()
    gate = ReceiveGate({'eye': 300 * MS, 'joint_states': 300 * MS})
    loop = ControlLoop(rig.contract, rig.sampler, rig, 20 * MS, gate)
    for i in range(100):  # its stamps go on for a second after it died
        rig.sampler.add('/eye/compressed', START_NS + i * 10 * MS, 0)
        rig.sampler.add('/joint_states', START_NS + i * 10 * MS, 0)
    gate.hear('eye', START_NS)
    gate.hear('joint_states', START_NS + 400 * MS)
    assert loop.stale(START_NS + 200 * MS) == []
    assert loop.stale(START_NS + 500 * MS) == [
        'eye: nothing received from /eye/compressed for 0.50 s, max_age_s is 0.3'
    ]
    samples = loop.fresh.sample(START_NS + 500 * MS, START_NS + 500 * MS)
    assert [name for name, sample in samples.items() if not sample.valid] == ['eye']


delays = st.lists(st.one_of(st.floats(0.1, 40), st.floats(60, 130)), min_size=1, max_size=12)
jitters = st.lists(st.one_of(st.just(0.0), st.floats(0, 30)), min_size=1, max_size=12)
numbers = st.floats(-0.3, 0.3)
actions = st.lists(
    st.tuples(numbers, numbers, st.sampled_from([0.0, 1.0])).map(list), min_size=1, max_size=8
)


# When a person commands something [ms], and what to joint one.
pushes = st.lists(st.tuples(st.floats(0, 3000), st.floats(-0.3, 0.3)), max_size=6)
texts = st.sampled_from(
    [
        CONTRACT,
        CONTRACT.replace('velocity: 2.0', 'velocity: 2.0, acceleration: 8.0'),
        CONTRACT.replace('  fallback', '  ramp_s: 0.7\n  fallback'),
    ]
)


@settings(max_examples=60, deadline=None)
@example([1.0], [0.0, 20.0], [[0.0, 0.0, 0.0]], 20, 200.0, [], CONTRACT)  # two slots at once
@given(
    delays, jitters, actions, st.sampled_from([20, 50, 100, None]), st.floats(200, 3000), pushes,
    texts,
)  # fmt: skip
def test_round_trip_and_limits_hold_however_time_goes(
    delays_ms, slot_jitter_ms, acts, slot_ms, silent_from_ms, pushed, text
):
    """What a converter reads from the commands is what PolicyStep says was sent."""
    rig = Rig(
        text=text,
        slot_ms=slot_ms,
        delays_ms=delays_ms,
        slot_jitter_ms=slot_jitter_ms,
        actions=acts,
        silent_ms=(silent_from_ms, silent_from_ms + 250),
    )
    for ms, value in pushed:
        rig.at(
            START_NS + round(ms * MS),
            lambda v=value: rig.loop.teleoperate(slice(0, 1), np.array([v]), rig.now_ns),
        )
    rig.run(goal(25))
    check_commands(rig)
    drivers = [n for n in rig.notices if n in ('person', 'policy')]
    assert drivers == ['person', 'policy'] * (len(drivers) // 2)
    fates = Counter(rig.loop.told.episode.fates)
    if rig.end.termination == 'time_limit':
        assert sum(fates.values()) == 25
    if not rig.records or 0 not in rig.observations:
        return
    contract = rig.contract
    t0_ns = rig.records[0].tick.t_ns - contract.tick_ns(0, rig.records[0].tick.step)
    last = rig.records[-1].tick.step
    numbers = np.arange(last + 1)
    ticks = Ticks(
        numbers, tick_times(contract, t0_ns, numbers), tick_times(contract, t0_ns, numbers + 1)
    )
    stamps = np.array([stamp for stamp, _ in rig.sent], dtype=np.int64)
    values = np.array([targets for _, targets in rig.sent]).reshape(-1, 3)
    commands = [
        Commands(stamps, np.arange(len(stamps)), values[:, columns], columns)
        for _, columns in columns_of(contract)
    ]
    found = targets_of(contract, ticks, commands, rig.observations[0], START_NS)
    recorded = commanded_actions(contract, found.targets)
    for record in rig.records:
        if record.sent is not None:
            np.testing.assert_array_equal(recorded[record.tick.step], record.sent)


def test_distribution_keeps_the_newest():
    values = Distribution(keep=3)
    assert values.summary() == {}
    for value in (9.0, 1.0, 2.0, 3.0):
        values.add(value)
    assert values.summary() == {'mean': 2.0, 'std': 0.816497, 'p50': 2.0, 'p99': 2.98, 'max': 3.0}
