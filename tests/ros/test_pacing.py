"""How far a simulator may run: stated as rules, tried with clocks of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qt_ros.nodes.pacing import PATIENCE_NS, Lockstep, WallPace

STEP = 5_000_000
PERIOD = 100_000_000


class Wall:
    ns = 0

    def __call__(self) -> int:
        return self.ns


def lockstep(wall: Wall, captures=(20_000_000, 50_000_000)) -> Lockstep:
    return Lockstep(wall, 0, PERIOD, STEP, lambda t: any(t % p == 0 for p in captures))


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_wall_pace_never_runs_backwards_nor_leaps(moves: list[int]) -> None:
    wall = Wall()
    pace = WallPace(wall, 0)
    now = 0
    for move in moves:
        wall.ns += move
        until = pace.until_ns(now)
        assert until >= now
        assert until - now == min(move, WallPace.SLACK_NS)
        now = until
    assert now + pace.given_up_ns == wall.ns


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=30),
    st.integers(0, 10**10),
)
def test_lockstep_advances_one_period_per_complete_command(ticks, start) -> None:
    wall = Wall()
    pace = lockstep(wall)
    now = start // STEP * STEP
    pace.begin(now)
    for arm_first, lag in ticks:
        wall.ns += 10**8
        now = pace.until_ns(now)
        stamp = now - lag * 1_000_000
        before = now
        if arm_first:
            pace.arm_command(stamp)
        else:
            pace.gripper_command()
        assert pace.until_ns(now) == before  # half a command moves nothing
        if arm_first:
            pace.gripper_command()
        else:
            pace.arm_command(stamp)
        now = pace.until_ns(now)
        assert now >= before
        assert now <= stamp + PERIOD + STEP
        assert now % STEP == 0
        if now > before:
            assert now % 20_000_000
            assert now % 50_000_000


def test_a_silent_driver_is_given_up_after_a_while() -> None:
    wall = Wall()
    pace = lockstep(wall)
    assert not pace.abandoned()
    pace.begin(0)
    wall.ns += PATIENCE_NS
    assert not pace.abandoned()
    wall.ns += 1
    assert pace.abandoned()
    pace.end(105_000_000)
    assert not pace.driven
    wall.ns += 7_000_000
    assert pace.until_ns(105_000_000) == pytest.approx(112_000_000)


def test_extra_gripper_commands_do_not_count_for_later_ticks() -> None:
    pace = lockstep(Wall())
    pace.begin(0)
    for _ in range(5):
        pace.gripper_command()
    pace.arm_command(5_000_000)
    first = pace.until_ns(0)
    pace.arm_command(first)
    assert pace.until_ns(first) == first
    pace.gripper_command()
    assert pace.until_ns(first) > first
