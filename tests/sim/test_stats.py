"""Wilson's interval, against published values and its properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qt_ros.stats import wilson


@pytest.mark.parametrize(
    ('successes', 'trials', 'low', 'high'),
    [(18, 20, 0.6990, 0.9721), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_known_values(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 10**6), st.data())
def test_it_holds_the_rate_and_stays_within_0_and_1(trials, data):
    successes = data.draw(st.integers(0, trials))
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    mirrored_low, mirrored_high = wilson(trials - successes, trials)
    assert (mirrored_low, mirrored_high) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize('counts', [(-1, 5), (6, 5), (1, 5, 0.0), (1, 5, 1.0)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match='allowed'):
        wilson(*counts)
