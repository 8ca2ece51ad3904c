"""What the soak makes of an episode: every tick explained, no gap longer than the watchdog."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')

from soak import slope_per_s, summary
from soak_client import judged

from qt_ros.cadence import StepRow

MS = 1_000_000


def ended(termination: str = 'time_limit') -> SimpleNamespace:
    return SimpleNamespace(termination=termination, message='')


def rows(*steps: int) -> list[StepRow]:
    return [StepRow('e', step, 1, 0.0, 0.0, False, fate='sent') for step in steps]


def test_ticks_without_a_row_are_counted() -> None:
    at = [k * 33 * MS for k in range(30)]
    assert judged(0, ended(), rows(0, 1, 3, 4), at, 6, 0.3).without_row == 2
    # Ended early, nobody knows how many ticks there were after the last that is known.
    assert judged(0, ended('fault'), rows(0, 1, 3), at, 6, 0.3).without_row == 1
    assert judged(0, ended('fault'), [], [], 6, 0.3).without_row == 0


def test_a_gap_is_a_missed_watchdog_unless_the_fallback_ended_it() -> None:
    at = [0, 100 * MS, 600 * MS, 700 * MS]
    assert judged(0, ended(), rows(0), at, 1, 0.3).missed_watchdogs == 1
    assert judged(0, ended(), rows(0), at, 1, 0.5).missed_watchdogs == 0
    last = [0, 100 * MS, 600 * MS]
    assert judged(0, ended('fault'), rows(0), last, 1, 0.3).missed_watchdogs == 0
    assert judged(0, ended('time_limit'), rows(0), last, 1, 0.3).missed_watchdogs == 1


def test_what_the_node_counts_as_missed_explains_ticks() -> None:
    at = [k * 33 * MS for k in range(30)]
    episodes = [judged(i, ended(), rows(0, 1, 3), at, 5, 0.3) for i in range(2)]
    assert summary(episodes, {'missed': 3})['unexplained'] == 1
    found = summary(episodes, {'missed': 9})
    assert found['unexplained'] == 0
    assert found['ticks'] == 10
    assert found['commands_hz'] == pytest.approx(1000 / 33)
    assert summary([], {})['commands_hz'] is None


@given(st.floats(-5, 5), st.floats(0, 1000), st.integers(3, 100))
def test_the_slope_of_a_line_is_its_slope(slope: float, start: float, count: int) -> None:
    times = np.linspace(0.0, 600.0, count)
    assert slope_per_s(times, start + slope * times) == pytest.approx(slope, abs=1e-6)
    assert slope_per_s(times[:1], times[:1]) == 0.0
