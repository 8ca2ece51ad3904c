"""Counted ages tell the same percentiles as the ages themselves, to their resolution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qt_ros.bags.ages import STEP_NS, Ages

ages_ns = st.lists(st.integers(-(10**7), 10**9), min_size=1, max_size=60)


@given(parts=st.lists(ages_ns, min_size=1, max_size=4))
def test_percentiles_are_those_of_all_ages(parts: list[list[int]]) -> None:
    total = Ages()
    for part in parts:
        one = Ages()
        one.add(np.array(part), np.array(part) < 5 * 10**8)
        total.merge(one)
    every = np.concatenate([np.array(part) for part in parts])
    found = total.summary()
    wanted = np.percentile(every, [50, 90, 99, 100]) / 1e6
    assert list(found['age_ms'].values()) == pytest.approx(wanted, abs=0.6 * STEP_NS / 1e6 + 1e-3)
    assert found['valid_share'] == round(float((every < 5 * 10**8).mean()), 6)


def test_counts_add_up_and_stay_few() -> None:
    ages = Ages()
    assert ages.summary() == {'age_ms': None, 'valid_share': None}
    for _ in range(20):
        ages.add(np.arange(1000) * 10, np.ones(1000, bool))  # 0 to 9.99 us
    assert (ages.rows, ages.valid_rows) == (20_000, 20_000)
    assert ages.steps.tolist() == [0, 1]  # to the nearest 10 us
    assert ages.counts.tolist() == [10_000, 10_000]
    assert ages.summary()['age_ms'] == {'p50': 0.005, 'p90': 0.01, 'p99': 0.01, 'max': 0.01}
