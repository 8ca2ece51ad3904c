"""Ticks of an imported episode, against the rule written out with fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qt_ros.lerobot.resampling import ticks_of

RATES = st.sampled_from([1.0, 3.0, 5.0, 10.0, 15.0, 29.97, 30.0, 50.0, 1 / 3, 7.3])


@given(frames=st.integers(1, 60), fps=RATES, rate=RATES)
def test_nothing_is_seen_or_done_before_its_time(frames: int, fps: float, rate: float) -> None:
    ticks = ticks_of(frames, fps, rate)
    stamps = [Fraction(j) / Fraction(fps) for j in range(frames)]
    times = [Fraction(k) / Fraction(rate) for k in range(len(ticks) + 1)]
    for k in range(len(ticks)):
        assert ticks.seen[k] == max(j for j in range(frames) if stamps[j] <= times[k])
        # The command of frame j is sent just after stamp j, so it lies in (t_k, t_{k+1}] where
        # stamp j < t_{k+1}.
        assert ticks.commanded[k] == max(j for j in range(frames) if stamps[j] < times[k + 1])
        assert abs(ticks.frame_ns[k] - stamps[ticks.seen[k]] * 10**9) <= Fraction(1, 2)
        assert abs(ticks.age_ns[k] - (times[k] - stamps[ticks.seen[k]]) * 10**9) <= 1
    # All that was commanded counts, and no tick lies beyond the last frame.
    assert ticks.commanded[-1] == frames - 1
    assert times[len(ticks) - 1] <= stamps[-1] < times[len(ticks)]


@given(frames=st.integers(1, 500), fps=RATES)
def test_equal_rates_are_one_to_one(frames: int, fps: float) -> None:
    ticks = ticks_of(frames, fps, fps)
    np.testing.assert_array_equal(ticks.seen, np.arange(frames))
    np.testing.assert_array_equal(ticks.commanded, np.arange(frames))
    assert not ticks.age_ns.any()
