"""Recordings cut and labelled in every way; what must come out is worked out beside each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_bags import MS, T0, Bag, contract, make, steady

from qt_ros.bags.converter import convert
from qt_ros.bags.episodes import BagConversion, episodes_of
from qt_ros.bags.labels import Label, read_labels
from qt_ros.bags.reader import BagReader
from qt_ros.bags.relabelling import match
from qt_ros.dataset import Dataset, relabel
from qt_ros.episode import Episode
from qt_ros.errors import BagError

S = 1000 * MS
EVENTS = 'episodes: {events: /episode/events}'
WHOLE = {EVENTS: 'episodes: one_per_bag'}
GAPS = {EVENTS: 'episodes: {time_gap: 2.0}'}
NEXT_STATE = {
    """  - topic: /arm
    type: trajectory_msgs/msg/JointTrajectory
    dims:
      - {name: a, field: a, mode: delta, low: -1.0, high: 1.0, bins: 5}
  - topic: /gripper
    type: std_msgs/msg/Float64MultiArray
    dims:
      - {name: grip, field: "0", mode: absolute, low: 0.0, high: 1.0, bins: 2}
""": """  - from: next_state
    dims:
      - {name: a, field: position.a, mode: absolute, low: -1.0, high: 1.0, bins: 5}
      - {name: b, field: position.b, mode: delta, low: -1.0, high: 1.0, bins: 5}
"""
}


def converted(bag: Bag, folder: Path, *labels: Label, **changes: str) -> list[Episode]:
    return list(episodes_of(bag.write(folder / 'bag'), contract(**changes), labels))


def problems(bag: Bag, folder: Path, *labels: Label, **changes: str) -> list[str]:
    with BagReader(bag.write(folder / 'bag')) as reader:
        conversion = BagConversion(contract(**changes), reader, labels)
        for segment in conversion.segments:
            conversion.convert(segment)
        return conversion.problems


def shifted(bag: Bag, log_s: float) -> Bag:
    """The same messages, recorded by a machine whose clock is behind that of the headers."""
    return Bag([(log_ns - round(log_s * S), *rest) for log_ns, *rest in bag.rows])


def assert_same(found: Episode, wanted: Episode) -> None:
    assert (found.outcome, found.start_stamp_ns) == (wanted.outcome, wanted.start_stamp_ns)
    assert np.array_equal(found.state, wanted.state)
    assert np.array_equal(found.action, wanted.action)
    assert all(np.array_equal(found.stamps_ns[k], wanted.stamps_ns[k]) for k in wanted.stamps_ns)


@pytest.mark.parametrize('changes', [{}, WHOLE, GAPS])
def test_rows_with_times_need_no_events(tmp_path, changes):
    """The bag begins with the image of -50 ms, so START at 0 is 0.05 s from its first message."""
    (wanted,) = converted(steady(3.0), tmp_path / 'marked')
    row = Label('success', 'bag', '', 0.05, 3.05, 'push')
    (found,) = converted(steady(3.0, events=False), tmp_path, row, **changes)
    assert_same(found, wanted)
    assert (found.episode_id, found.instruction, len(found)) == ('bag/0', 'push', 30)


def test_without_such_rows_the_missing_events_are_told(tmp_path):
    useless = [(), (Label('success', 'bag'),), (Label('success', 'other', '', 0.0, 1.0),)]
    for number, labels in enumerate(useless):
        with pytest.raises(BagError, match='/episode/events with the episode events is not'):
            converted(steady(events=False), tmp_path / str(number), *labels)


def test_seconds_count_from_the_first_message_of_any_topic(tmp_path):
    """/rosout begins 5 s before the image of -50 ms: START at 0 is then at 5.05 s."""
    bag = steady(3.0, events=False)
    bag.add('/rosout', 'std_msgs/msg/String', make('std_msgs/msg/String', data='up'), -5050)
    (found,) = converted(bag, tmp_path, Label('success', 'bag', '', 5.05, 8.05))
    assert found.start_stamp_ns == T0
    assert len(found) == 30


def test_seconds_count_on_the_clock_of_the_headers(tmp_path):
    """Headers are 9 min ahead of log time: the same rows, counted from the same message."""
    row = Label('success', 'bag', '', 0.05, 3.05)
    (wanted,) = converted(steady(3.0, events=False), tmp_path / 'a', row)
    (found,) = converted(shifted(steady(3.0, events=False), 540.0), tmp_path / 'b', row)
    assert_same(found, wanted)


def test_stamps_are_on_the_clock_of_the_contract(tmp_path):
    row = Label('failure', 'bag', start_stamp_ns=T0 + S, stop_stamp_ns=T0 + 2 * S)
    bag = shifted(steady(3.0, events=False), 540.0)
    (found,) = converted(bag, tmp_path, row)
    assert (found.start_stamp_ns, len(found), found.outcome) == (T0 + S, 10, 'failure')


def test_rows_cut_several_episodes_that_may_overlap(tmp_path):
    rows = (
        Label('success', 'bag', 'whole', 0.05, 3.05),
        Label('failure', 'bag', 'first', 0.05, 1.05),
        Label('timeout', 'bag', 'late', 2.05, 3.55),
    )
    found = converted(steady(3.0, events=False), tmp_path / 'a', *rows)
    lengths = {each.episode_id: (len(each), each.outcome) for each in found}
    # The bag ends at 3000 ms, so 'late' does too; its last tick, at 3000, has no command after it.
    assert lengths == {'whole': (30, 'success'), 'first': (10, 'failure'), 'late': (10, 'timeout')}
    told = problems(steady(3.0, events=False), tmp_path / 'b', *rows)
    assert sum('overlap' in text for text in told) == 2


def test_an_episode_without_a_tick_is_told(tmp_path):
    rows = (Label('success', 'bag', 'x', 0.05, 1.05), Label('failure', 'bag', 'y', 60.0, 61.0))
    told = problems(steady(2.0, events=False), tmp_path / 'a', *rows)
    assert any("'y' lies outside of the recording, which lasts 2.050 s" in text for text in told)
    assert any("episode 'y' gives no row" in text for text in told)
    assert [e.episode_id for e in converted(steady(2.0), tmp_path / 'b', *rows)] == ['x']


def test_time_gaps_are_labelled_by_number(tmp_path):
    bag, second = steady(1.0, events=False), steady(1.0, events=False, start_ms=10_000)
    bag.rows += second.rows
    rows = (
        Label('success', '', 'bag/0', instruction='push'),
        Label('aborted', 'bag', 'bag/1', source='mixed'),
        Label('failure', 'bag'),  # which of the two?
        Label('failure', 'bag', 'bag/2'),
    )
    found = converted(bag, tmp_path / 'a', *rows, **GAPS)
    assert [(e.episode_id, e.outcome, e.instruction, e.source) for e in found] == [
        ('bag/0', 'success', 'push', 'teleop'),
        ('bag/1', 'aborted', '', 'mixed'),
    ]
    assert len(found[0]) == len(found[1])
    told = [text for text in problems(bag, tmp_path / 'b', *rows, **GAPS) if 'ignored' in text]
    assert len(told) == 2
    assert all('bag/0, bag/1' in text for text in told)


def test_a_whole_bag_is_labelled_by_its_name(tmp_path):
    (found,) = converted(
        steady(events=False), tmp_path, Label('timeout', 'bag', instruction='pull'), **WHOLE
    )
    assert (found.episode_id, found.outcome, found.instruction) == ('bag', 'timeout', 'pull')


@pytest.mark.parametrize('outcome', ['success', 'failure', 'timeout', 'aborted', 'unknown'])
def test_a_label_event_after_the_end_counts_as_much_as_stop(tmp_path, outcome):
    bag = steady(1.0)
    bag.event(1500, 2, outcome=outcome)
    (found,) = converted(bag, tmp_path)
    assert (found.outcome, len(found)) == (outcome, 10)


@pytest.mark.parametrize(
    ('changes', 'row'),
    [
        ({}, None),
        (WHOLE, None),
        (GAPS, None),
        ({}, Label('success', 'bag', '', 0.55, 1.55)),
        (GAPS, Label('success', 'bag', '', 0.55, 1.55)),
    ],
)
def test_actions_from_the_next_state_with_each_way_of_cutting(tmp_path, changes, row):
    """Absolute: where joint a stands one row later. Delta: how far b goes until then."""
    rows = () if row is None else (row,)
    (found,) = converted(steady(2.0), tmp_path, *rows, **NEXT_STATE, **changes)
    # One row is missing at the end: nothing follows it.
    assert len(found) >= 9
    assert found.action[:-1, 0] == pytest.approx(found.state[1:, 0])
    assert found.action[:-1, 1] == pytest.approx(np.diff(found.state[:, 1]), abs=1e-6)
    assert found.action[-1, 0] == pytest.approx(found.state[-1, 0] + 0.1, abs=1e-6)


def restamped(shift_s: float) -> Bag:
    """A healthy bag whose events are stamped by another clock."""
    fine = steady(2.0, events=False)
    for ms, kind, values in ((0, 0, {'instruction': 'push'}), (2000, 1, {'outcome': 'success'})):
        before = len(fine.rows)
        fine.event(ms + shift_s * 1000, kind, **values)
        fine.rows[before] = (T0 + round(ms * MS), *fine.rows[before][1:])
    return fine


@pytest.mark.parametrize('shift_s', [-1.6e9, -540.0, 540.0, 1e8])
def test_events_stamped_far_from_all_data_are_placed_where_they_were_recorded(tmp_path, shift_s):
    (wanted,) = converted(steady(2.0), tmp_path / 'a')
    (found,) = converted(restamped(shift_s), tmp_path / 'b')
    assert_same(found, wanted)
    told = problems(restamped(shift_s), tmp_path / 'c')
    assert any('2 of 2 episode events are stamped more than 10 s away' in text for text in told)


def test_a_stop_after_the_cameras_died_is_no_odd_stamp(tmp_path):
    """20 s after the last sample: recorded then too, so true. The end is missing: no outcome."""
    bag = steady(2.0, events=False)
    bag.event(0, 0)
    bag.event(22_000, 1, outcome='success')
    (found,) = converted(bag, tmp_path / 'a')
    assert found.outcome == 'unknown'
    told = problems(bag, tmp_path / 'b')
    assert not any('stamped more than' in text for text in told)
    assert any("'success'" in text and 'unknown' in text for text in told)


def test_two_recorders_at_once(tmp_path):
    """a runs 0 to 1.5 s, b 1 to 2 s: a ends where b starts, and how it ended is not there."""
    bag = steady(2.0, events=False)
    bag.event(0, 0, 'a')
    bag.event(1000, 0, 'b')
    bag.event(1500, 1, 'a', outcome='success')
    bag.event(2000, 1, 'b', outcome='failure')
    found = converted(bag, tmp_path / 'a')
    assert [(e.episode_id, len(e), e.outcome) for e in found] == [
        ('a', 10, 'unknown'),
        ('b', 10, 'failure'),
    ]
    told = ' '.join(problems(bag, tmp_path / 'b'))
    assert "'a' has no STOP" in told
    assert "STOP of episode 'a' came after another episode had started" in told


def written(bag: Bag, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return bag.write(path)


def test_a_run_tells_once_what_its_label_file_did_not_do(tmp_path):
    for name in ('one', 'two'):
        written(steady(start_ms=0 if name == 'one' else 50_000), tmp_path / 'bags' / name)
    csv = tmp_path / 'labels.csv'
    csv.write_text(
        'bag;episode_id;outcome\none;e;failure\nelsewhere;e;failure\n;nobody;success\n'
        'two;e;timeout\n'
    )
    result = convert([tmp_path / 'bags'], contract(), tmp_path / 'set', csv)
    assert result.status == 0
    assert (result.report['labels']['rows'], result.report['labels']['applied']) == (4, 2)
    other, nobody = result.report['labels']['problems']
    assert 'elsewhere' in other
    assert 'nobody' in nobody
    assert [e.outcome for e in Dataset(tmp_path / 'set').episodes] == ['failure', 'timeout']
    # What the recordings' own events had said stays on record.
    kept = [row['earlier_outcomes'] for bag in result.report['per_bag'] for row in bag['episodes']]
    assert kept == [['success'], ['success']]
    assert not any(
        'labels' in text for bag in result.report['per_bag'] for text in bag['problems']
    )


def test_what_is_in_the_dataset_already_is_corrected_by_label_only(tmp_path):
    bag = written(steady(), tmp_path / 'bag')
    convert([bag], contract(), tmp_path / 'set')
    csv = tmp_path / 'labels.csv'
    csv.write_text('bag,outcome\nbag,failure\n')
    again = convert([bag], contract(), tmp_path / 'set', csv)
    (told,) = again.report['labels']['problems']
    assert 'qt-ros label' in told
    (episode,) = Dataset(tmp_path / 'set').episodes
    assert episode.outcome == 'success'
    found = match(read_labels(csv), [episode])
    assert [change.outcome for change in found.changes([episode])] == ['failure']
    relabel(tmp_path / 'set', {0: 'failure'}, 'me')
    assert convert([bag], contract(), tmp_path / 'set', csv).report['labels']['problems'] == []


def test_a_row_that_could_mean_two_recordings_stops_the_run_before_it_begins(tmp_path):
    for day in ('monday', 'tuesday'):
        written(steady(), tmp_path / day / 'run')
    csv = tmp_path / 'labels.csv'
    csv.write_text('bag,outcome\nrun,success\n')
    with pytest.raises(BagError, match=r'line 2 .* fits 2 recordings'):
        convert([tmp_path / 'monday', tmp_path / 'tuesday'], contract(), tmp_path / 'set', csv)
    assert not (tmp_path / 'set').exists()


def test_the_file_of_a_conversion_can_be_corrected_and_used_again(tmp_path):
    """Rows with times and no id mean the episodes that the conversion made of them."""
    bag = written(steady(3.0, events=False), tmp_path / 'run')
    csv = tmp_path / 'labels.csv'
    rows = ['run,0.05,1.05,push,success', 'run,1.05,2.05,push,success', 'run,2.05,3.05,,failure']
    csv.write_text('\n'.join(['bag,start_s,stop_s,instruction,outcome', *rows]))
    convert([bag], contract(), tmp_path / 'set', csv)
    episodes = Dataset(tmp_path / 'set').episodes
    assert [e.episode_id for e in episodes] == ['run/0', 'run/1', 'run/2']
    rows[1] = 'run,1.05,2.05,push it,timeout'
    csv.write_text('\n'.join(['bag,start_s,stop_s,instruction,outcome', *rows]))
    found = match(read_labels(csv), episodes)
    assert (found.missing, found.problems) == ([], [])
    (change,) = found.changes(episodes)
    assert (change.episode.index, change.outcome, change.instruction) == (1, 'timeout', 'push it')
