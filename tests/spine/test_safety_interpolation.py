"""Interpolated commands go straight to the decided targets, in time, and never beyond."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qt_ros.contract import Contract
from qt_ros.interpolation import HURRY, Interpolation, Ramp, at_once

NUMBERS = st.floats(-100.0, 100.0)
SPREAD = np.zeros(1, bool)


@given(NUMBERS, NUMBERS, st.integers(2, 40), st.data())
def test_the_way_is_straight_and_ends_at_the_goal(
    start: float, goal: float, slots: int, data: st.DataObject
) -> None:
    """Slots may be missed; from half of them on, the goal is reached exactly."""
    way = Interpolation(np.array([start]), np.array([goal]), slots, SPREAD)
    left = data.draw(st.integers(1, slots))
    enough = left * HURRY >= slots
    lefts = range(left, 0, -1)
    last, most = start, abs(goal - start) * HURRY / slots * (1 + 1e-6) + 1e-12
    for n in lefts:
        out = way.next(np.array([last]), n)[0]
        assert abs(out - last) <= most
        assert min(start, goal) - 1e-9 <= out <= max(start, goal) + 1e-9
        assert abs(goal - out) <= abs(goal - last) + 1e-9
        last = out
    assert not enough or last == goal


@given(NUMBERS, NUMBERS, NUMBERS, st.integers(2, 40), st.integers(1, 40))
def test_wherever_the_limiter_left_the_robot_it_is_not_thrown(
    start: float, goal: float, last: float, slots: int, left: int
) -> None:
    way = Interpolation(np.array([start]), np.array([goal]), slots, SPREAD)
    out = way.next(np.array([last]), left)[0]
    assert abs(out - last) <= abs(goal - start) * HURRY / slots * (1 + 1e-6) + 1e-9
    assert min(last, goal) - 1e-9 <= out <= max(last, goal) + 1e-9


def test_what_is_not_spread_goes_out_at_once(arm: Contract) -> None:
    flags = at_once(arm)
    assert flags.tolist() == [False] * 6 + [True]  # the gripper has two bins
    start, goal = np.array([0.0, np.nan, 0.0]), np.array([1.0, 2.0, np.nan])
    way = Interpolation(start, goal, 5, np.zeros(3, bool))
    np.testing.assert_array_equal(way.next(start, 5), [0.2, 2.0, np.nan])
    whole = Interpolation(np.zeros(1), np.ones(1), 1, SPREAD)
    np.testing.assert_array_equal(whole.next(np.zeros(1), 1), [1.0])


def test_the_speed_of_the_way() -> None:
    way = Interpolation(np.zeros(1), np.ones(1), 5, SPREAD)
    assert way.speed(np.zeros(1), 5, 0.02)[0] == pytest.approx(10.0)
    assert way.speed(np.ones(1), 1, 0.02)[0] == 0.0
    assert way.speed(np.zeros(1), 0, 0.02)[0] == 0.0


@given(st.floats(0.0, 5.0), st.lists(st.integers(-(10**9), 10**10), min_size=1).map(sorted))
def test_a_ramp_only_grows_and_is_over_in_time(seconds: float, times: list[int]) -> None:
    ramp = Ramp()
    assert ramp.share(times[0]) == 1.0
    ramp.start(0, seconds)
    shares = [ramp.share(t) for t in times]
    assert all(0 < share <= 1 for share in shares)
    assert shares == sorted(shares)
    assert ramp.share(round(seconds * 1e9) + 1) == 1.0
