"""Emergency stop, deadman, takeover, receive gate, edges: whatever order things come in."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qt_ros.contract import Contract
from qt_ros.interlocks import Deadman, Edges, EmergencyStop, ReceiveGate, start_problems
from qt_ros.takeover import Takeover

S = 1_000_000_000
times = st.lists(st.integers(0, 5 * S), min_size=1, max_size=30).map(sorted)


@given(st.lists(st.sampled_from(['press', 'clear', 'look'])))
def test_an_emergency_stop_holds_until_it_is_cleared(what: list[str]) -> None:
    stop, pressed, edges = EmergencyStop(), False, 0
    for word in what:
        if word == 'press':
            assert stop.press('button') == (not pressed)
            edges += not pressed
            pressed = True
        elif word == 'clear':
            assert stop.clear() == pressed
            pressed = False
        assert bool(stop.problem()) == pressed
    assert stop.pressed == edges


def test_the_first_reason_of_an_emergency_stop_stays() -> None:
    stop = EmergencyStop()
    stop.press('fence opened')
    stop.press('button')
    assert stop.problem() == 'emergency stop: fence opened; clear it first'
    stop.clear()
    stop.press('')
    assert 'pressed' in stop.problem()


@given(
    st.floats(0.01, 2.0), st.lists(st.tuples(st.integers(0, 10**9), st.booleans()), max_size=20)
)
def test_a_deadman_enables_only_while_it_is_told_to(
    timeout_s: float, words: list[tuple[int, bool]]
) -> None:
    deadman, now, last = Deadman(timeout_s), S, None
    assert deadman.problem(now)
    for wait, enabled in words:
        now += wait
        alive = last is not None and last[1] and now - last[0] <= round(timeout_s * 1e9)
        assert (deadman.problem(now) == '') == alive
        deadman.hear(enabled, now)
        last = (now, enabled)
        assert (deadman.problem(now) == '') == enabled
    assert deadman.problem(now + round(timeout_s * 1e9) + 1)


def test_a_deadman_without_a_timeout_asks_nobody() -> None:
    deadman = Deadman(0.0)
    deadman.hear(False, S)
    assert deadman.problem(100 * S) == ''


@given(times, st.lists(st.integers(0, 6 * S), min_size=1, max_size=30).map(sorted))
def test_a_takeover_lasts_as_long_as_its_commands(commands: list[int], looks: list[int]) -> None:
    takeover = Takeover(2, 0.5)
    heard, active, changes = None, False, 0
    for now, is_command in sorted([(t, True) for t in commands] + [(t, False) for t in looks]):
        if is_command:
            assert takeover.command(slice(0, 1), np.array([1.0]), now)
            heard = now
            continue
        fresh = heard is not None and now - heard <= S // 2
        assert takeover.update(now) == (fresh != active)
        changes += fresh and not active
        active = fresh
        assert takeover.active == active
    assert takeover.count == changes


def test_of_a_takeover_only_what_was_said_counts() -> None:
    takeover = Takeover(3, 0.5)
    assert not takeover.command(slice(0, 2), np.array([np.nan, np.nan]), 0)
    assert not takeover.update(0)
    assert takeover.command(slice(0, 2), np.array([0.1, np.inf]), 0)
    takeover.update(0)
    last = np.array([9.0, 8.0, 7.0])
    np.testing.assert_array_equal(takeover.targets(last), [0.1, 8.0, 7.0])
    takeover.command(slice(2, 3), np.array([0.3]), S // 4)
    np.testing.assert_array_equal(takeover.targets(last), [0.1, 8.0, 0.3])
    takeover.update(S)
    takeover.command(slice(2, 3), np.array([0.4]), 2 * S)  # another takeover
    takeover.update(2 * S)
    np.testing.assert_array_equal(takeover.targets(last), [9.0, 8.0, 0.4])
    takeover.release()
    assert not takeover.active
    assert not takeover.update(2 * S)


def test_the_receive_gate_goes_by_arrival() -> None:
    gate = ReceiveGate({'eye': S, 'joints': S // 10})
    assert gate.silent(0) == {}
    gate.hear('eye', 0)
    gate.hear('joints', 0)
    assert gate.silent(S // 10) == {}
    assert gate.silent(S // 2) == {'joints': S // 2}
    assert gate.silent(2 * S) == {'eye': 2 * S, 'joints': 2 * S}
    gate.forget()
    assert gate.silent(9 * S) == {}


@given(st.lists(st.sets(st.sampled_from('abc'))))
def test_every_edge_is_told_once(states: list[set[str]]) -> None:
    edges, present = Edges(), set()
    for state in states:
        began, ended = edges.update(state)
        assert set(began) == state - present
        assert set(ended) == present - state
        assert began == sorted(began)
        present = state
    began_in_all = sum(edges.counts.values())
    assert began_in_all == sum(len(b - a) for a, b in zip([set(), *states], states, strict=False))


def test_start_problems_name_what_is_off(arm: Contract) -> None:
    start = {'position.waist': (-0.1, 0.1), 'joints.position.elbow': (0.0, 1.0)}
    contract = dataclasses.replace(arm, safety=dataclasses.replace(arm.safety, start=start))
    state = np.zeros(len(arm.state_names), np.float32)
    assert start_problems(contract, state) == []
    state[0], state[2] = 0.2, np.nan
    found = start_problems(contract, state)
    assert found[0] == 'position.waist is 0.2, an episode begins in [-0.1, 0.1]'
    assert 'joints.position.elbow is nan' in found[1]
    assert start_problems(arm, state) == []
