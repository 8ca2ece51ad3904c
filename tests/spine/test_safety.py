"""Whatever comes in, what goes out respects every limit at every tick."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qt_ros.contract import ActionDim, ActionTopic, Contract, Episodes, JointLimit, Safety
from qt_ros.safety import SHORTEST_S, Limiter, Watchdog, fallback_targets

ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)
SMALL = st.floats(0.001, 100.0)


@st.composite
def joint_limits(draw: st.DrawFn, velocity_dim: bool) -> JointLimit:
    low = draw(st.floats(-100.0, 100.0))
    position = (low, low + draw(SMALL)) if draw(st.booleans()) and not velocity_dim else None
    rest = [draw(st.none() | SMALL) for _ in range(3)]
    return JointLimit(position, *rest)


def contract_with(limits: list[JointLimit], modes: list[str], fallback: str = 'hold') -> Contract:
    dims = tuple(ActionDim(f'd{i}', str(i), m, -1.0, 1.0, 3) for i, m in enumerate(modes))
    action = (ActionTopic('/cmd', 'std_msgs/msg/Float64MultiArray', 'command', dims),)
    safety = Safety({f'd{i}': limit for i, limit in enumerate(limits)}, 0.3, fallback)
    return Contract('c', 10.0, 'log', (), (), action, None, Episodes(), safety)


@given(st.data())
def test_the_limiter_lets_nothing_through_that_it_should_not(data: st.DataObject) -> None:
    modes = data.draw(st.lists(st.sampled_from(['absolute', 'delta', 'velocity']), min_size=1,
                               max_size=3))  # fmt: skip
    limits = [data.draw(joint_limits(mode == 'velocity')) for mode in modes]
    limiter = Limiter(contract_with(limits, modes))
    vector = st.lists(ANY, min_size=len(modes), max_size=len(modes))
    if data.draw(st.booleans()):
        limiter.reset(np.array(data.draw(vector)))
    speed = np.zeros(len(modes))
    for _ in range(data.draw(st.integers(1, 8))):
        dt_s = data.draw(st.floats(0.001, 0.1) | st.floats(0.0, 1.0) | ANY)
        last = limiter.last
        wanted = np.array(data.draw(vector))
        limited = limiter.limit(wanted, dt_s)
        np.testing.assert_array_equal(limiter.last, limited.targets)
        counted_s = min(dt_s, 0.1) if dt_s >= SHORTEST_S else 0.0
        with np.errstate(all='ignore'):
            moved = (limited.targets - last) / counted_s if counted_s else speed
        for i, (mode, limit) in enumerate(zip(modes, limits, strict=True)):
            out = limited.targets[i]
            assert not np.isinf(out)
            if np.isnan(out):  # only where nothing finite was ever known
                assert np.isnan(last[i])
                assert not np.isfinite(wanted[i])
                continue
            check_one(mode, limit, last[i], wanted[i], out, dt_s, limited.reasons[i])
            if mode != 'velocity' and np.isfinite(last[i]) and counted_s > 1e-6:
                # After more than two periods the robot has come to rest.
                before = speed[i] if dt_s <= 0.2 else 0.0
                # A number cannot move by less than its own last digit.
                digit = np.spacing(max(abs(last[i]), abs(out)))
                check_acceleration(limit, before, moved[i], counted_s, digit)
        speed = np.where(np.isfinite(last), np.nan_to_num(moved), 0.0)
        speed = np.zeros(len(modes)) if np.isnan(dt_s) else speed


def check_one(
    mode: str, limit: JointLimit, last: float, wanted: float, out: float, dt_s: float, reason: str
) -> None:
    if limit.position is not None:
        low, high = limit.position
        # From outside it comes back, never further out.
        assert (
            min(low, last) <= out <= max(high, last) if np.isfinite(last) else low <= out <= high
        )
    if mode == 'velocity' and limit.velocity is not None:
        assert abs(out) <= limit.velocity
    dt_s = min(dt_s, 0.1) if dt_s > 0 else 0.0
    if np.isfinite(last):
        slack = 1e-9 * (1.0 + abs(last)) + 1e-9 * abs(out)
        if limit.step is not None:
            assert abs(out - last) <= limit.step + slack
        rate = limit.acceleration if mode == 'velocity' else limit.velocity
        if rate is not None:
            assert abs(out - last) <= rate * dt_s + slack
    assert (reason == '') == (out == wanted)
    assert ('nonfinite' in reason) == (not np.isfinite(wanted))


def check_acceleration(
    limit: JointLimit, before: float, after: float, dt_s: float, digit: float = 0.0
) -> None:
    """Braking may be harder than the limit only for a step that takes longer than the last."""
    if limit.acceleration is None:
        return
    slack = (1e-9 * (1e3 + abs(before) + abs(after)) + 2 * digit) / dt_s
    most = limit.acceleration * dt_s
    if limit.step is not None and abs(before) - most > limit.step / dt_s:
        assert abs(after) * dt_s <= limit.step + slack
        return
    assert abs(after - before) <= most + slack


@given(
    st.floats(0.1, 50.0),
    st.floats(0.1, 5.0),
    st.lists(
        st.tuples(ANY | st.floats(-1.2, 1.2), st.floats(0.001, 0.1), ANY | st.floats(-9.0, 9.0)),
        min_size=1,
        max_size=60,
    ),
)
def test_the_robot_can_always_stop_before_the_end_of_its_range(
    acceleration: float, velocity: float, commands: list[tuple[float, float, float]]
) -> None:
    """It drives at the end of its range with all it has, and brakes no harder than allowed.

    Whatever the targets say of their own speed.
    """
    limit = JointLimit((-1.0, 1.0), velocity, None, acceleration)
    limiter = Limiter(contract_with([limit], ['absolute']))
    limiter.reset(np.zeros(1))
    before = 0.0
    for wanted, dt_s, moving in commands:
        last = limiter.last[0]
        out = limiter.limit(np.array([wanted]), dt_s, np.array([moving])).targets[0]
        after = (out - last) / dt_s
        assert -1.0 <= out <= 1.0
        assert abs(after) <= velocity * (1 + 1e-9) + 1e-9
        assert abs(after - before) <= acceleration * dt_s + 1e-9
        way = 1.0 - out if after > 0 else out + 1.0
        assert after**2 / (2 * acceleration) <= way + 1e-6
        before = after


@settings(max_examples=30)
@given(st.floats(0.5, 50.0), st.floats(-0.9, 0.9), st.sampled_from([0.02, 0.1]))
def test_a_target_that_stands_is_reached_without_shooting_over_it(
    acceleration: float, goal: float, dt_s: float
) -> None:
    limiter = Limiter(contract_with([JointLimit(acceleration=acceleration)], ['absolute']))
    limiter.reset(np.zeros(1))
    way = [0.0]
    for _ in range(round(8.0 / dt_s)):
        way.append(abs(limiter.limit(np.array([goal]), dt_s).targets[0]))
    assert np.all(np.diff(way) >= -1e-12)
    assert way[-1] == pytest.approx(abs(goal), abs=1e-3)
    assert max(way) <= abs(goal) + 1e-12


def test_a_moving_target_is_followed_at_its_speed() -> None:
    limiter = Limiter(contract_with([JointLimit(acceleration=10.0)], ['absolute']))
    limiter.reset(np.zeros(1))
    gaps = []
    for i in range(1, 101):
        target = np.array([i * 0.02])
        gaps.append(target[0] - limiter.limit(target, 0.02, np.ones(1)).targets[0])
    assert gaps[-1] == pytest.approx(0.0, abs=1e-3)
    assert min(gaps) > -1e-3
    stopped = [limiter.limit(target, 0.02).targets[0] for _ in range(100)]
    assert max(stopped) < target[0] + 0.06  # 1 m/s at 10 m/s2 needs 5 cm
    assert stopped[-1] == pytest.approx(target[0], abs=1e-3)


def test_a_start_outside_of_the_range_is_come_back_from_slowly() -> None:
    limiter = Limiter(contract_with([JointLimit((-1.0, 1.0), velocity=1.0)], ['absolute']))
    limiter.reset(np.array([1.5]))
    out = [limiter.limit(np.array([3.0]), 0.1).targets[0] for _ in range(7)]
    np.testing.assert_allclose(out, [1.4, 1.3, 1.2, 1.1, 1.0, 1.0, 1.0])


def test_after_a_pause_speed_counts_from_rest() -> None:
    limiter = Limiter(contract_with([JointLimit(acceleration=1.0)], ['absolute']))
    limiter.reset(np.zeros(1))
    for i in range(10):
        limiter.limit(np.array([i * 1.0]), 0.1)
    last = limiter.last[0]
    assert abs(limiter.limit(np.array([9.0]), 5.0).targets[0] - last) <= 0.01 + 1e-12


def test_reasons_name_every_limit_that_acted_in_order() -> None:
    limit = JointLimit(position=(-1.0, 1.0), velocity=1.0, step=0.5)
    limiter = Limiter(contract_with([limit] * 4, ['absolute'] * 4))
    limiter.reset(np.array([0.0, 0.0, 0.8, 1.0]))
    first = limiter.limit(np.array([2.0, 0.05, 3.0, np.nan]), 0.1)
    assert first.reasons == ('position+step+velocity', '', 'position+velocity', 'nonfinite')
    np.testing.assert_allclose(first.targets, [0.1, 0.05, 0.9, 1.0])
    second = limiter.limit(np.array([0.7, 0.06, 0.9, -np.inf]), 10.0)
    assert second.reasons == ('step+velocity', '', '', 'nonfinite')


def test_without_movement_of_time_nothing_moves() -> None:
    limiter = Limiter(contract_with([JointLimit(velocity=1.0), JointLimit()], ['absolute'] * 2))
    limiter.reset(np.zeros(2))
    for dt_s in (0.0, -1.0, float('nan')):
        np.testing.assert_array_equal(limiter.limit(np.ones(2), dt_s).targets, [0.0, 1.0])


def test_the_output_is_not_a_view_of_the_limiters_memory() -> None:
    limiter = Limiter(contract_with([JointLimit(step=0.1)], ['absolute']))
    limiter.reset(np.zeros(1))
    limiter.limit(np.ones(1), 0.1).targets[:] = 99.0
    limiter.last[:] = 99.0
    np.testing.assert_allclose(limiter.limit(np.ones(1), 0.1).targets, [0.2])


def test_a_vector_of_the_wrong_length_is_refused(arm: Contract) -> None:
    with pytest.raises(ValueError, match=r'needed: \(7,\)'):
        Limiter(arm).limit(np.zeros(8), 0.1)


def test_demo_deltas_pass_uncut_even_when_a_command_is_early(arm: Contract) -> None:
    limiter = Limiter(arm)
    limiter.reset(np.zeros(7))
    wanted = np.array([dim.high for dim in arm.action_dims])
    assert limiter.limit(wanted, 0.07).reasons == ('',) * 7


def test_the_watchdog_counts_from_the_first_feed() -> None:
    dog = Watchdog(0.3, 'hold')
    assert not dog.expired(10**12)
    dog.feed(1000)
    assert not dog.expired(1000 + 300_000_000)
    assert dog.expired(1001 + 300_000_000)
    dog.feed(1001 + 300_000_000)
    assert not dog.expired(1002 + 300_000_000)


@pytest.mark.parametrize(
    ('fallback', 'last', 'expected'),
    [
        ('hold', [0.5, 0.7], [0.5, 0.0]),
        ('hold', [np.nan, 0.7], None),
        ('zero', [0.5, 0.7], [0.0, 0.0]),
        ('none', [0.5, 0.7], None),
    ],
)
def test_fallbacks(fallback: str, last: list[float], expected: list[float] | None) -> None:
    contract = contract_with([], ['absolute', 'velocity'], fallback)
    targets = fallback_targets(contract, np.array(last))
    assert (None if targets is None else targets.tolist()) == expected


def test_limits_of_dimensions_that_are_not_named_are_open(arm: Contract) -> None:
    open_arm = dataclasses.replace(arm, safety=Safety())
    limiter = Limiter(open_arm)
    assert limiter.limit(np.full(7, 1e6), 0.1).reasons == ('',) * 7
