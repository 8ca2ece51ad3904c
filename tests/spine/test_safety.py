"""Whatever comes in, what goes out respects position, step and velocity at every tick."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qt_ros.contract import ActionDim, ActionTopic, Contract, Episodes, JointLimit, Safety
from qt_ros.safety import Limiter, Watchdog, fallback_targets

ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)
SMALL = st.floats(0.001, 100.0)


@st.composite
def joint_limits(draw: st.DrawFn, velocity_dim: bool) -> JointLimit:
    low = draw(st.floats(-100.0, 100.0))
    position = (low, low + draw(SMALL)) if draw(st.booleans()) and not velocity_dim else None
    return JointLimit(position, draw(st.none() | SMALL), draw(st.none() | SMALL))


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
    for _ in range(data.draw(st.integers(1, 8))):
        dt_s = data.draw(st.floats(0.0, 1.0) | ANY)
        last = limiter.last
        wanted = np.array(data.draw(vector))
        limited = limiter.limit(wanted, dt_s)
        np.testing.assert_array_equal(limiter.last, limited.targets)
        for i, (mode, limit) in enumerate(zip(modes, limits, strict=True)):
            out = limited.targets[i]
            assert not np.isinf(out)
            if np.isnan(out):  # only where nothing finite was ever known
                assert np.isnan(last[i])
                assert not np.isfinite(wanted[i])
                continue
            check_one(mode, limit, last[i], wanted[i], out, dt_s, limited.reasons[i])


def check_one(
    mode: str, limit: JointLimit, last: float, wanted: float, out: float, dt_s: float, reason: str
) -> None:
    if limit.position is not None:
        assert limit.position[0] <= out <= limit.position[1]
    if mode == 'velocity' and limit.velocity is not None:
        assert abs(out) <= limit.velocity
    if np.isfinite(last):
        slack = 1e-9 * (1.0 + abs(last)) + 1e-9 * abs(out)
        if limit.step is not None:
            assert abs(out - last) <= limit.step + slack
        if mode != 'velocity' and limit.velocity is not None:
            assert abs(out - last) <= limit.velocity * (dt_s if dt_s > 0 else 0.0) + slack
    assert (reason == '') == (out == wanted)
    assert ('nonfinite' in reason) == (not np.isfinite(wanted))


def test_reasons_name_every_limit_that_acted_in_order() -> None:
    limit = JointLimit(position=(-1.0, 1.0), velocity=1.0, step=0.5)
    limiter = Limiter(contract_with([limit] * 4, ['absolute'] * 4))
    limiter.reset(np.array([0.0, 0.0, 0.8, 5.0]))
    np.testing.assert_array_equal(limiter.last, [0.0, 0.0, 0.8, 1.0])
    first = limiter.limit(np.array([2.0, 0.05, 3.0, np.nan]), 0.1)
    assert first.reasons == ('position+step+velocity', '', 'position+velocity', 'nonfinite')
    np.testing.assert_allclose(first.targets, [0.1, 0.05, 0.9, 1.0])
    second = limiter.limit(np.array([0.7, 0.06, 0.9, -np.inf]), 10.0)
    assert second.reasons == ('step', '', '', 'nonfinite')


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
