"""The rhythm of a control loop, from rows whose numbers are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qt_ros.cadence import (
    CADENCE_KEYS,
    OVER_BUDGET,
    PARTS,
    StepRow,
    cadence,
    cadence_report,
    flat,
    timing,
    words,
)

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


def tick(k: int, fate: str = 'sent', **more: object) -> StepRow:
    """Tick k of a 10 Hz episode: decided 8 ms after it, commanded at 30 Hz from 20 ms after it."""
    stamp_ms = 1000 + 100 * k + 20
    sent = fate == 'sent'
    before = [stamp_ms - 200 / 3, stamp_ms - 100 / 3] if k else []
    row = StepRow(
        'a',
        k,
        round(stamp_ms * MS) if sent else 0,
        0.030,
        0.008,
        fate == 'late',
        tick_ns=round((1000 + 100 * k) * MS),
        fate=fate,
        parts_s=(0.010, 0.001, 0.002, 0.005, 0.0005, 0.0015) if sent else (),
        command_age_s=0.032 if sent else None,
        asked_command_hz=30.0,
        published_ns=tuple(round(ms * MS) for ms in [*before, *([stamp_ms] if sent else [])]),
        received={'front': 3 * (k + 1), 'joints': 50 * (k + 1)},
        lost={'front': k // 2, 'joints': 0},
    )
    return replace(row, **more)  # type: ignore[arg-type]


def test_a_report_worked_out_by_hand() -> None:
    # Tick 3 came too late, 4 found nobody free, 5 was not reached at all.
    fates = ['sent', 'sent', 'sent', 'late', 'busy', None, 'sent', 'stale']
    rows = [tick(k, fate) for k, fate in enumerate(fates) if fate]
    found = cadence_report(rows)
    assert found['episodes'] == 1
    assert {key: found[key] for key in CADENCE_KEYS} == cadence(rows)
    # Decisions left at 1020, 1120, 1220 and 1620 ms: periods of 100, 100 and 400.
    assert found['decisions'] == {
        'asked_hz': 10.0,
        'hz': 5.0,
        'period_std_ms': round(float(np.std([100, 100, 400])), 3),
        'period_p99_ms': 394.0,  # 100 + 0.98 * 300
        'period_max_ms': 400.0,
    }
    # Commands went on every 33.3 ms to 1286.7 and, of the rows that have no decision, between.
    assert found['commands']['asked_hz'] == 30.0
    assert found['commands']['period_max_ms'] == pytest.approx(100 + 200 / 3, abs=1e-3)
    assert found['observation_age'] == {'p50_ms': 30.0, 'p99_ms': 30.0}
    assert found['command_age'] == {'p50_ms': 32.0, 'p99_ms': 32.0}
    assert found['ticks'] == {
        'total': 8,
        'over_budget': 3,
        'over_budget_share': 0.375,
        'busy': 1,
        'late': 1,
        'missed': 1,
        'sent': 4,
        'stale': 1,
    }
    assert [found['split'][part]['p50_ms'] for part in PARTS] == [10, 1, 2, 5, 0.5, 1.5]
    assert found['streams'] == {
        'front': {'received': 24, 'lost': 3, 'lost_share': round(3 / 27, 6)},
        'joints': {'received': 400, 'lost': 0, 'lost_share': 0.0},
    }
    said = words(found)
    assert said.startswith('decided 5.00 of 10 Hz (std 141.4, max 400.0 ms), published ')
    assert said.endswith(
        'observation age 30 ms, p99 30 ms, command age 32 ms, p99 32 ms, '
        '3 of 8 ticks over budget; messages lost: front 3'
    )


def test_rows_of_older_recordings_leave_open_what_they_do_not_say() -> None:
    found = cadence_report([row('a', 1000), row('a', 1100), row('a', 0, late=True)])
    assert found['rate_hz'] == 10.0
    assert found['decisions']['asked_hz'] is found['commands']['asked_hz'] is None
    assert found['command_age'] == {'p50_ms': None, 'p99_ms': None}
    assert found['commands']['hz'] == 10.0
    assert found['streams'] == {}
    assert set(flat(found)) >= {'rate_hz', 'ticks.late', 'decisions.period_max_ms'}
    assert not any('command_age' in name or 'split' in name for name in flat(found))


def test_a_decision_is_out_when_its_first_command_is() -> None:
    """The stamp is that of its last command, which is kept within the tick."""
    rows = [tick(k, command_stamp_ns=round((1100 + 100 * k) * MS)) for k in range(3)]
    slow = replace(rows[1], parts_s=(0.040, *rows[1].parts_s[1:]))
    assert timing([rows[0], slow, rows[2]]).periods_ms.tolist() == [130.0, 70.0]
    unmeasured = [replace(each, parts_s=()) for each in rows]
    assert timing(unmeasured).periods_ms.tolist() == [100.0, 100.0]


def test_nothing_at_all_can_be_said_too() -> None:
    found = cadence_report([])
    assert found['ticks'] == {'total': 0, 'over_budget': 0, 'over_budget_share': None}
    assert words(found) == '0 of 0 ticks over budget'


def test_episodes_of_one_name_in_two_recordings_are_two() -> None:
    rows = [tick(k, source=source) for source in ('one', 'two') for k in range(3)]
    found = cadence_report(rows)
    assert found['episodes'] == 2
    assert timing(rows).periods_ms.tolist() == [100.0] * 4
    assert found['streams']['front'] == {'received': 18, 'lost': 2, 'lost_share': 0.1}


fates = st.sampled_from(['sent', 'late', 'busy', 'stale', 'dry', 'refused', None])


@given(st.lists(fates, min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_every_tick_counts_once_whatever_became_of_it(
    each: list[str | None], random: object
) -> None:
    rows = [tick(k, fate) for k, fate in enumerate(each) if fate]
    random.shuffle(rows)  # type: ignore[attr-defined]
    found = cadence_report(rows)['ticks']
    kept = [k for k, fate in enumerate(each) if fate]
    total = kept[-1] - kept[0] + 1 if kept else 0
    assert found['total'] == total
    assert found.get('missed', 0) == total - len(kept)
    assert found['over_budget'] == sum(found.get(fate, 0) for fate in OVER_BUDGET)
    counted = sum(n for name, n in found.items() if not name.startswith(('total', 'over')))
    assert counted == total


@given(
    st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=5), min_size=2, max_size=20),
    st.integers(2, 6),
)
def test_commands_between_decisions_count_as_published_only(
    gaps_ms: list[list[int]], keep: int
) -> None:
    now_ms, rows, stamps = 1000, [], []
    for k, gaps in enumerate(gaps_ms):
        between = []
        for gap in gaps:
            now_ms += gap
            between.append(now_ms * MS)
        stamps += between
        sent = {'command_stamp_ns': between[-1], 'published_ns': tuple(between)}
        rows.append(tick(k, parts_s=(), **sent))
    measured = timing(rows)
    assert measured.command_periods_ms.tolist() == [(b - a) / MS for a, b in pairwise(stamps)]
    assert measured.periods_ms.tolist() == [
        (b.command_stamp_ns - a.command_stamp_ns) / MS for a, b in pairwise(rows)
    ]
    # A row that the recording lost leaves a gap: the time that was driven stays the same.
    fewer = timing([row for k, row in enumerate(rows) if k % keep or k == 0 or k == len(rows) - 1])
    first_ms = (rows[0].command_stamp_ns - stamps[0]) / MS
    assert fewer.command_periods_ms.sum() == pytest.approx(measured.command_periods_ms.sum())
    assert fewer.periods_ms.sum() == pytest.approx(measured.command_periods_ms.sum() - first_ms)


@given(st.lists(st.floats(1e-5, 5.0), min_size=2, max_size=80))
def test_numbers_lie_between_the_smallest_and_the_largest(periods_s: list[float]) -> None:
    stamps_ms = np.cumsum([1000.0, *(1e3 * np.array(periods_s))])
    found = cadence_report([row('a', float(ms)) for ms in stamps_ms])['decisions']
    low, high = 1e3 * min(periods_s), 1e3 * max(periods_s)
    assert low - 0.01 <= found['period_p99_ms'] <= found['period_max_ms'] <= high + 0.01
    assert 0 <= found['period_std_ms'] <= high - low + 0.01
    assert 1e3 / (high + 0.01) - 0.01 <= found['hz'] <= 1e3 / max(low - 0.01, 1e-3) + 0.01
