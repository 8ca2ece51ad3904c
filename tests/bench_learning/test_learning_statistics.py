"""Intervals, thresholds and scores against values worked out elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.learning.statistics import Z95, precision_recall_f1, ratio_interval, wilson


@pytest.mark.parametrize(
    ('successes', 'episodes', 'low', 'high'),
    [
        (8, 10, 0.4902, 0.9433),  # by hand, from Wilson (1927), to four digits
        (50, 100, 0.4038, 0.5962),
        (1, 150, 0.0012, 0.0368),
        (0, 50, 0.0, Z95**2 / (50 + Z95**2)),
        (50, 50, 50 / (50 + Z95**2), 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_by_hand(successes, episodes, low, high):
    assert wilson(successes, episodes) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_solves_its_equation(counts):
    successes, episodes = counts
    low, high = wilson(successes, episodes)
    share = successes / episodes
    assert 0 <= low <= share <= high <= 1
    for bound in (low, high):  # |share - p| = z sqrt(p (1 - p) / n)
        if 0 < bound < 1:
            distance = Z95 * (bound * (1 - bound) / episodes) ** 0.5
            assert abs(share - bound) == pytest.approx(distance, abs=1e-9)


@pytest.mark.parametrize('counts', [(3, 2), (-1, 5)])
def test_wilson_refuses_impossible_counts(counts):
    with pytest.raises(ValueError, match='successes'):
        wilson(*counts)


def test_precision_recall_f1_by_hand():
    assert precision_recall_f1(6, 2, 4) == pytest.approx((0.75, 0.6, 2 / 3))
    assert precision_recall_f1(0, 0, 4) == (0.0, 0.0, 0.0)


scored = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.7, 0.9]), st.booleans()), min_size=1)


@given(scored)
def test_the_threshold_is_the_best_one(pairs):
    predictor = pytest.importorskip('bench.learning.predictor')
    q, success = (np.array(column) for column in zip(*pairs, strict=True))

    def f1(at: float) -> float:
        claimed = q >= at
        hits = (claimed & success).sum()
        return precision_recall_f1(hits, (claimed & ~success).sum(), (~claimed & success).sum())[2]

    best = predictor.best_threshold(q, success)
    assert f1(best) == max(f1(at) for at in [0.0, *q])


def test_the_ratio_of_two_shares_by_hand():
    # ln(4) +- 1.96 sqrt(1/80 - 1/100 + 1/20 - 1/100): 4 * exp(+-.4040)
    assert ratio_interval(80, 100, 20, 100) == pytest.approx((2.670, 5.991), abs=2e-3)
    low, high = ratio_interval(20, 100, 80, 100)
    assert 1 / high == pytest.approx(2.670, abs=2e-3)
    assert 1 / low == pytest.approx(5.991, abs=2e-3)
    with pytest.raises(ValueError, match='at least 1'):
        ratio_interval(5, 10, 0, 10)
