"""Cutting a bag into episodes, labels, and the arithmetic of ticks."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_bags import contract

from qt_ros.bags.labelling import apply_labels
from qt_ros.bags.labels import Label, read_labels
from qt_ros.bags.segments import (
    INTERVENTION_START,
    INTERVENTION_STOP,
    LABEL,
    START,
    STOP,
    Event,
    Segment,
    Segmentation,
    by_events,
    by_time_gap,
)
from qt_ros.bags.ticks import coverage, plan_ticks
from qt_ros.errors import BagError

S = 10**9


def cut(*events: Event, end_ns: int = 100) -> Segmentation:
    return by_events(events, end_ns)


def test_two_episodes_and_a_later_label() -> None:
    found = cut(
        Event(0, START, 'a', 'push', source='teleop'),
        Event(10, STOP, 'a', outcome='success'),
        Event(20, START, 'b', 'pull', source='policy', policy_id='p'),
        Event(30, STOP, 'b', outcome='timeout'),
        Event(40, LABEL, 'a', outcome='failure'),
        Event(50, LABEL, 'a', outcome='aborted'),
    )
    first, second = found.segments
    assert (first.start_ns, first.stop_ns, first.outcome) == (0, 10, 'aborted')
    assert first.earlier_outcomes == ('success', 'failure')
    assert (second.outcome, second.source, second.policy_id) == ('timeout', 'policy', 'p')
    assert found.problems == ()


def test_unfinished_and_overlapping_episodes_are_closed_and_reported() -> None:
    found = cut(Event(0, START, 'a'), Event(10, START, 'b'), end_ns=70)
    assert [(s.episode_id, s.start_ns, s.stop_ns, s.outcome) for s in found.segments] == [
        ('a', 0, 10, 'unknown'),
        ('b', 10, 70, 'unknown'),
    ]
    assert len(found.problems) == 2
    assert all('no STOP' in problem for problem in found.problems)


def test_odd_events_are_reported_not_believed() -> None:
    found = cut(
        Event(0, STOP, 'x', outcome='success'),
        Event(1, INTERVENTION_START),
        Event(2, START, 'a', source='alien'),
        Event(3, STOP, 'other', outcome='success'),
        Event(4, 77),
        Event(5, STOP, 'a', outcome='splendid'),
        Event(6, LABEL, 'nobody', outcome='success'),
        Event(7, LABEL, 'a', outcome='great'),
    )
    (segment,) = found.segments
    assert (segment.outcome, segment.source, segment.stop_ns) == ('unknown', 'teleop', 5)
    assert len(found.problems) == 8


def test_an_id_used_twice_gets_a_number() -> None:
    events = [
        Event(0, START, 'a'),
        Event(1, STOP, 'a', outcome='success'),
        Event(2, START, 'a'),
        Event(3, STOP, 'a', outcome='failure'),
    ]
    found = cut(*events)
    assert [(s.episode_id, s.outcome) for s in found.segments] == [
        ('a', 'success'),
        ('a#2', 'failure'),
    ]


def test_an_intervention_lasts_until_its_stop_or_the_episodes() -> None:
    found = cut(
        Event(0, START, 'a', source='policy'),
        Event(2, INTERVENTION_START),
        Event(4, INTERVENTION_STOP),
        Event(6, INTERVENTION_START),
        Event(9, STOP, 'a', outcome='success'),
    )
    assert found.segments[0].interventions == ((2, 4), (6, 9))
    assert found.segments[0].source == 'mixed'


def test_an_event_that_was_recorded_twice_counts_once() -> None:
    start, stop = Event(0, START, 'a', 'push'), Event(9, STOP, 'a', outcome='success')
    found = cut(start, start, stop, stop)
    assert [(s.episode_id, s.start_ns, s.stop_ns, s.outcome) for s in found.segments] == [
        ('a', 0, 9, 'success')
    ]
    assert found.problems == ('2 events were recorded twice and count once',)


def test_stop_before_start_and_start_alone() -> None:
    found = cut(Event(3, STOP, 'a', outcome='success'), Event(5, START, 'a'), end_ns=70)
    assert [(s.start_ns, s.stop_ns, s.outcome) for s in found.segments] == [(5, 70, 'unknown')]
    assert "STOP of episode 'a' without its START was ignored" in found.problems[0]
    assert "episode 'a' has no STOP: it is closed where the recording ended" in found.problems[1]


def test_a_label_means_the_last_episode_of_that_name_before_it() -> None:
    found = cut(
        Event(0, START, 'a'),
        Event(10, STOP, 'a', outcome='failure'),
        Event(15, LABEL, 'a', outcome='Timeout'),
        Event(20, START, 'a', 'push'),
        Event(30, STOP, 'a', outcome='SUCCESS'),
        Event(35, LABEL, 'a', 'push it'),
        Event(36, LABEL, '', outcome='aborted'),
        Event(40, START, 'b'),
        Event(50, STOP, '', outcome='failure'),
        Event(55, LABEL, 'a#2', outcome='success'),
    )
    assert [(s.episode_id, s.instruction, s.outcome) for s in found.segments] == [
        ('a', '', 'timeout'),
        ('a#2', 'push it', 'success'),
        ('b', '', 'failure'),
    ]
    assert found.segments[1].earlier_outcomes == ('success', 'aborted')


def test_gaps_are_cut_between_all_streams() -> None:
    """Silence is when nothing is heard at all: 3 to 8 s. A gap of exactly the limit is none."""
    one, two = np.array([0, 1, 2, 9]) * S, np.array([3, 8, 13]) * S
    found = by_time_gap('run', [one, two], 4.0)
    assert [(s.episode_id, s.start_ns, s.stop_ns) for s in found.segments] == [
        ('run/0', 0, 3 * S),
        ('run/1', 8 * S, 13 * S),
    ]
    assert by_time_gap('run', [np.zeros(0, np.int64)], 4.0).segments == ()


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6), st.sampled_from('abc')), max_size=20)
)
def test_segments_never_overlap_whatever_the_events(rows: list[tuple[int, int, str]]) -> None:
    found = by_events([Event(t, kind, name, outcome='success') for t, kind, name in rows], 60)
    for segment in found.segments:
        assert segment.start_ns <= segment.stop_ns
    for before, after in zip(found.segments, found.segments[1:], strict=False):
        assert before.stop_ns <= after.start_ns
    names = [segment.episode_id for segment in found.segments]
    assert len(set(names)) == len(names)


def test_labels_with_bounds_define_the_episodes() -> None:
    labels = [
        Label('success', 'day/run', '', 1.0, 3.0, 'push'),
        Label('failure', 'run', 'x', 2.0, 4.0),
        Label('timeout', 'elsewhere', '', 0.0, 9.0),
    ]
    found = apply_labels(Segmentation(()), labels, Path('/data/day/run'), 10 * S)
    assert [(s.episode_id, s.start_ns, s.stop_ns, s.outcome) for s in found.segments] == [
        ('run/0', 11 * S, 13 * S, 'success'),
        ('x', 12 * S, 14 * S, 'failure'),
    ]
    assert any('overlap' in problem for problem in found.problems)


def test_a_label_for_a_bag_of_many_episodes_is_ambiguous() -> None:
    two = Segmentation((Segment('a', 0, 1), Segment('b', 2, 3)))
    found = apply_labels(two, [Label('success', 'run')], Path('run.mcap'), 0)
    assert found.segments == two.segments
    assert 'a, b' in found.problems[0]


def test_label_files_report_every_problem(tmp_path: Path) -> None:
    path = tmp_path / 'labels.csv'
    path.write_text(
        'bag,episode_id,start_s,stop_s,outcome,source\n'
        'run,,,,success,\n'
        '\n'
        ',,,,success,\n'
        'run,,5,2,good,robot\n'
        'run,,x,,failure,\n'
    )
    with pytest.raises(BagError) as caught:
        read_labels(path)
    assert [problem.split(':')[1] for problem in caught.value.problems] == [
        '4',
        '5',
        '5',
        '5',
        '6',
    ]
    path.write_text('bag,result\nrun,success\n')
    with pytest.raises(BagError, match='allowed: bag, episode_id'):
        read_labels(path)
    path.write_text('bag,outcome\nrun,success\n')
    assert read_labels(path) == (Label('success', 'run'),)


def test_coverage_is_where_every_stream_is_recent() -> None:
    one = np.array([0, 1, 5]) * S
    two = np.array([2, 3, 4]) * S
    assert (coverage([one], 2.0) / S).tolist() == [[0, 3], [5, 7]]
    assert (coverage([one, two], 2.0) / S).tolist() == [[2, 3], [5, 6]]
    assert coverage([one, np.zeros(0, np.int64)], 2.0).shape == (0, 2)


stamp_lists = st.lists(st.integers(0, 6 * S), min_size=1, max_size=12)


@given(
    stamp_lists,
    stamp_lists,
    st.integers(0, 3 * S),
    st.integers(1, 4 * S),
    st.sampled_from([10.0, 7.5]),
)
def test_the_plan_obeys_its_rules(
    first: list[int], second: list[int], start: int, length: int, rate: float
) -> None:
    """Causal, newest, within max_gap; ticks are counted out completely."""
    spec = contract(**{'rate_hz: 10.0': f'rate_hz: {rate}'})
    stamps = {'front': sorted(set(first)), 'joints': sorted(set(second))}
    arrays = {name: np.array(values, np.int64) for name, values in stamps.items()}
    covered = coverage(list(arrays.values()), spec.max_gap_s)
    streams = {name: (values, values) for name, values in arrays.items()}
    plan = plan_ticks(spec, streams, covered, Segment('e', start, start + length))
    expected = []
    number = 0
    while (t := start + round(Fraction(number * S) / Fraction(rate))) < start + length:
        newest = [max((s for s in v if s <= t), default=None) for v in stamps.values()]
        if all(s is not None and t - s <= S for s in newest):
            expected.append((number, t, *newest))
        number += 1
    found = []
    for ticks in (part.ticks for part in plan.parts):
        columns = (ticks.numbers, ticks.t_ns, ticks.ordinals['front'], ticks.ordinals['joints'])
        found += zip(*(column.tolist() for column in columns), strict=True)
        for name, valid in ticks.valid.items():
            assert (valid == (ticks.t_ns - ticks.stamps_ns[name] <= S // 4)).all()
    assert found == expected
    assert plan.total == number == len(found) + plan.leading + plan.in_gaps
