"""The rhythm of a control loop, from rows whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qt_ros.cadence import CADENCE_KEYS, StepRow, cadence, timing

MS = 1_000_000


def row(episode: str, stamp_ms: float, *, age_ms: float = 20.0, late: bool = False) -> StepRow:
    """One step whose command left at `stamp_ms`; 0: nothing was sent."""
    return StepRow(episode, 0, round(stamp_ms * MS), age_ms / 1e3, 0.008, late)


def test_a_perfect_loop() -> None:
    rows = [row('a', 1000 + 100 * k) for k in range(50)]
    found = cadence(rows)
    assert tuple(found) == CADENCE_KEYS
    assert found == {
        'rate_hz': 10.0,
        'period_std_ms': 0.0,
        'period_max_ms': 100.0,
        'observation_age_p50_ms': 20.0,
        'observation_age_p99_ms': 20.0,
        'inference_p50_ms': 8.0,
    }


def test_time_between_episodes_is_no_period() -> None:
    rows = [row('a', 1000), row('a', 1100), row('b', 9000), row('b', 9100)]
    assert timing(rows).periods_ms.tolist() == [100.0, 100.0]


def test_a_late_decision_leaves_a_period_of_two_ticks() -> None:
    rows = [row('a', 1000), row('a', 0, late=True), row('a', 1200), row('a', 1300)]
    measured = timing(rows)
    assert measured.periods_ms.tolist() == [200.0, 100.0]
    assert len(measured.ages_ms) == 3
    assert len(measured.inference_ms) == 4


def test_nothing_measured_is_none() -> None:
    assert set(cadence([]).values()) == {None}
    one = cadence([row('a', 1000)])
    assert one['rate_hz'] is None
    assert one['observation_age_p50_ms'] == 20.0


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(gaps_ms: list[int], random: object) -> None:
    stamps = np.cumsum([1000, *gaps_ms])
    rows = [row('a', float(stamp)) for stamp in stamps]
    shuffled = [*rows]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found = cadence(shuffled)
    assert found == cadence(rows)
    assert found['rate_hz'] == pytest.approx(1e3 * len(gaps_ms) / sum(gaps_ms), abs=1e-3)
    assert found['period_max_ms'] == max(gaps_ms)
