"""Label files as people and spreadsheets write them, and what a row means for a bag's episodes."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qt_ros.bags.labelling import apply_labels, check_applied, check_bags, row_names
from qt_ros.bags.labels import COLUMNS, Label, read_labels
from qt_ros.bags.segments import Segment, Segmentation
from qt_ros.episode import OUTCOMES
from qt_ros.errors import BagError

S = 10**9
RUN = Path('/data/day/run')


def labels_of(folder: Path, text: str | bytes) -> tuple[Label, ...]:
    path = folder / 'labels.csv'
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_labels(path)


def problems_of(folder: Path, text: str | bytes) -> list[str]:
    with pytest.raises(BagError) as caught:
        labels_of(folder, text)
    return [problem.partition('labels.csv:')[2] for problem in caught.value.problems]


@pytest.mark.parametrize('encode', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('separator', [',', ';', '\t'])
@pytest.mark.parametrize('newline', ['\n', '\r\n', '\r'])
def test_what_spreadsheets_write(tmp_path, encode, separator, newline):
    rows = [
        ['Bag', 'EPISODE_ID', 'start_s', 'Stop_S', 'Outcome', 'instruction', ''],
        ['run', 'a', '1.5', '2.25', 'Success', f'push the{newline}red  block', ''],
        ['', '', '', '', '', '', ''],
        ['run', 'b', '', '', 'TIMEOUT', 'räume "alles", auf; jetzt'],
    ]
    text = io.StringIO(newline='')
    csv.writer(text, delimiter=separator, lineterminator=newline).writerows(rows)
    assert labels_of(tmp_path, text.getvalue().encode(encode)) == (
        Label('success', 'run', 'a', 1.5, 2.25, 'push the red block'),
        Label('timeout', 'run', 'b', None, None, 'räume "alles", auf; jetzt'),
    )


def test_decimal_commas_where_the_comma_does_not_separate(tmp_path):
    (label,) = labels_of(tmp_path, 'bag;start_s;stop_s;outcome\nrun;1,5;12,25;success\n')
    assert (label.start_s, label.stop_s) == (1.5, 12.25)
    assert problems_of(tmp_path, 'bag,start_s,stop_s,outcome\nrun,"1,5",3,success\n')[:1] == [
        "2: start_s '1,5' is not a number of seconds",
    ]


def test_lines_are_counted_as_an_editor_does(tmp_path):
    found = labels_of(tmp_path, 'bag,instruction\n\n"run","a\nb\nc"\nrun2,d\n')
    assert [label.line for label in found] == [3, 6]


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('bag,outcome,outcome\nr,success,failure\n', 'each once'),
        ('bag,episode_id\nr,a\n', 'among them outcome or instruction'),
        ('', 'found: '),
        ('\ufeff', 'found: '),
        ('bag,outcome\nr,won\n', "outcome 'won'; allowed: success"),
        ('bag,outcome\n,success\n', 'no bag, episode_id or episode_index'),
        ('bag,outcome,instruction\nr,,\n', 'says nothing'),
        ('bag,outcome,start_s\nr,success,5\n', 'start_s and stop_s go together'),
        ('bag,outcome,start_s,stop_s\nr,success,nan,inf\n', 'no time of a recording'),
        ('bag,outcome,start_s,stop_s\nr,success,0,1e12\n', 'no time of a recording'),
        ('bag,outcome,start_s,stop_s\nr,success,3,3\n', 'must be less'),
        ('bag,outcome,start_stamp_ns,stop_stamp_ns\nr,success,1.7E+18,2\n', 'as text where'),
        ('bag,outcome,start_stamp_ns,stop_stamp_ns\nr,success,-1,2\n', 'not a whole number'),
        ('episode_index,outcome\n1_0,success\n', 'not a whole number'),
        ('bag,instruction\nr,"a\x07b"\n', 'cannot be printed'),
        ('bag,outcome\nr,success,failure\n', '3 cells for 2 columns'),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, said):
    assert any(said in problem for problem in problems_of(tmp_path, text))


@pytest.mark.parametrize('data', [b'bag,outcome\nr\xe9,success\n', b'bag,outcome\n"r,success\n'])
def test_files_that_are_no_such_table(tmp_path, data):
    path = tmp_path / 'labels.csv'
    path.write_bytes(data)
    with pytest.raises(BagError, match=r'labels.csv: (cannot read|not a CSV)'):
        read_labels(path)
    with pytest.raises(BagError, match='cannot read the labels'):
        read_labels(tmp_path)


@settings(max_examples=100, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('any') / 'labels.csv'
    head = (','.join(COLUMNS) + '\n').encode()
    for text in (data, head + data):
        path.write_bytes(text)
        with suppress(BagError):
            assert all(isinstance(label, Label) for label in read_labels(path))


@pytest.mark.parametrize(
    ('bag', 'names', 'others'),
    [
        (
            '/data/day/run',
            ('run', 'day/run', '/data/day/run', './run/', '../day/run', 'day\\run',
             'run/run_0.db3', 'run/metadata.yaml'),
            ('ru', 'un', 'day', 'data/run', 'runs', 'other/run', 'run/x_0.mcap'),
        ),
        ('/data/run.v2', ('run.v2', 'run'), ('run.v3',)),
        ('/data/a/b.mcap', ('b.mcap', 'b', 'a/b', 'a/b.mcap'), ('a', 'b.db3')),
        ('/data/run/run_0.mcap', ('run', 'run_0', 'run/run_0.mcap', 'data/run'), ('data',)),
        ('/data/run_3.db3.zstd', ('run_3.db3.zstd', 'run_3.db3', 'run_3'), ('run', 'data')),
    ],
)  # fmt: skip
def test_names_of_a_bag(bag, names, others):
    assert [name for name in names if not Label('success', name).about(Path(bag))] == []
    assert [name for name in others if Label('success', name).about(Path(bag))] == []


def bounds(found: Segmentation) -> list[tuple]:
    return [(s.episode_id, s.start_ns, s.stop_ns, s.outcome, s.source) for s in found.segments]


def test_stamps_define_episodes_too():
    labels = [Label('failure', 'run', start_stamp_ns=5 * S, stop_stamp_ns=7 * S, source='mixed')]
    found = apply_labels(Segmentation(()), labels, RUN, 4 * S, 20 * S)
    assert bounds(found) == [('run/0', 5 * S, 7 * S, 'failure', 'mixed')]


def test_of_two_rows_about_the_same_stretch_the_later_counts():
    labels = [
        Label('success', 'run', '', 1.0, 3.0, 'push', line=2),
        Label('timeout', 'run', '', 5.0, 6.0, 'pull', line=3),
        Label('failure', 'run', '', 1.0, 3.0, 'push', line=4),
    ]
    found = apply_labels(Segmentation(()), labels, RUN, 0, 20 * S)
    assert [(s.episode_id, s.outcome) for s in found.segments] == [
        ('run/0', 'failure'),
        ('run/1', 'timeout'),
    ]
    assert found.problems == ()
    assert found.applied == {2, 3, 4}
    assert row_names(labels, RUN) == ['run/0', 'run/1', 'run/0']


def test_overlapping_rows_keep_their_bounds_and_are_told():
    labels = [
        Label('success', 'run', 'whole', 0.0, 9.0),
        Label('success', 'run', 'part', 2.0, 4.5),
    ]
    found = apply_labels(Segmentation(()), labels, RUN, 0, 20 * S)
    assert [s.episode_id for s in found.segments] == ['whole', 'part']
    (problem,) = found.problems
    assert 'overlap by 2.500 s' in problem


def test_an_id_given_to_two_stretches_is_numbered():
    labels = [Label('success', 'run', 'a', 0.0, 1.0), Label('failure', 'run', 'a', 2.0, 3.0)]
    found = apply_labels(Segmentation(()), labels, RUN, 0, 20 * S)
    assert [(s.episode_id, s.outcome) for s in found.segments] == [
        ('a', 'success'),
        ('a#2', 'failure'),
    ]
    assert 'used twice' in found.problems[0]


def test_rows_beyond_the_recording():
    """It lasts from 10 to 20 s. A second too much is rounding; beyond that the end is missing."""
    labels = [
        Label('success', 'run', 'rounded', 8.0, 10.5),
        Label('success', 'run', 'cut', 9.0, 14.0),
        Label('success', 'run', 'after', 10.5, 12.0),
    ]
    found = apply_labels(Segmentation(()), labels, RUN, 10 * S, 20 * S)
    assert [(s.episode_id, s.stop_ns) for s in found.segments] == [
        ('rounded', 20 * S + 1),
        ('cut', 24 * S),
        ('after', 22 * S),
    ]
    told = ' '.join(found.problems)
    assert "'cut' ends 4.000 s after the recording" in told
    assert "'after' lies outside" in told


def test_rows_with_bounds_keep_who_drove():
    driven = Segment(
        'a', 0, 10 * S, 'push', 'failure', 'mixed', 'run@5', ((2 * S, 3 * S), (8 * S, 9 * S))
    )
    found = apply_labels(Segmentation((driven,)), [Label('success', 'run', 'x', 1.0, 6.0)], RUN, 0)
    (segment,) = found.segments
    assert (segment.episode_id, segment.outcome, segment.instruction) == ('x', 'success', 'push')
    assert (segment.source, segment.policy_id) == ('mixed', 'run@5')
    assert segment.interventions == ((2 * S, 3 * S),)
    assert '1 rows with times replace the 1 episodes' in found.problems[0]


def test_rows_without_bounds_label_what_the_bag_marks():
    two = Segmentation((Segment('a', 0, 1, 'push', 'failure'), Segment('b', 2, 3, 'pull')))
    labels = [
        Label('success', '', 'a', line=2),
        Label('', 'run', 'b', instruction='pull it', line=3),
        Label('aborted', 'run', 'c', line=4),
        Label('aborted', '', 'c', line=5),
        Label('success', 'elsewhere', 'a', line=6),
    ]
    found = apply_labels(two, labels, RUN, 0)
    assert [(s.outcome, s.instruction) for s in found.segments] == [
        ('success', 'push'),
        ('unknown', 'pull it'),
    ]
    assert found.segments[0].earlier_outcomes == ('failure',)
    assert found.segments[1].earlier_outcomes == ()
    assert found.applied == {2, 3}
    assert len(found.problems) == 1
    assert 'line 4' in found.problems[0]


def test_rows_of_other_recordings_are_told_once():
    bags = [Path('/d/run_1'), Path('/d/run_2')]
    labels = [Label('success', name, line=n) for n, name in enumerate(['run_1', 'x', 'y', 'x'], 2)]
    (remark,) = check_bags(labels, bags)
    assert '3 rows' in remark
    assert remark.endswith('x, y')
    unused = [Label('success', '', 'ep', line=9), Label('success', '', 'there', line=10)]
    (remark,) = check_applied(unused, {10})
    assert remark.endswith('ep')


def test_rows_that_could_mean_several_recordings_are_refused():
    bags = [Path('/monday/run'), Path('/tuesday/run')]
    fine = [
        Label('success', 'monday/run'),
        Label('success', 'run', 'ep-1'),
        Label('timeout', '', 'e'),
    ]
    assert check_bags(fine, bags) == []
    wrong = [
        Label('success', 'run', line=2),
        Label('success', 'run', 'a', 0.0, 1.0, line=3),
        Label('success', '', 'a', 0.0, 1.0, line=4),
        Label('success', episode_index=3, line=5),
    ]
    with pytest.raises(BagError) as caught:
        check_bags(wrong, bags)
    assert len(caught.value.problems) == 4
    assert '/monday/run, /tuesday/run' in caught.value.problems[0]


rows = st.builds(
    Label,
    outcome=st.sampled_from(OUTCOMES),
    bag=st.sampled_from(['run', 'day/run', 'other']),
    episode_id=st.sampled_from(['', 'a', 'b', 'run/0']),
    instruction=st.sampled_from(['', 'push']),
    line=st.integers(1, 99),
).flatmap(
    lambda label: st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 9)).map(
        lambda given: Label(
            label.outcome,
            label.bag,
            label.episode_id,
            *((given[1] / 2, (given[1] + given[2]) / 2) if given[0] else (None, None)),
            label.instruction,
            line=label.line,
        )
    )
)


@settings(max_examples=200)
@given(labels=st.lists(rows, max_size=8), count=st.integers(0, 3))
def test_names_stay_unique_and_no_row_is_lost_in_silence(labels, count):
    made = [Segment(name, n * S, (n + 1) * S) for n, name in enumerate('abc'[:count])]
    found = apply_labels(Segmentation(tuple(made)), labels, RUN, 0, 12 * S)
    names = [segment.episode_id for segment in found.segments]
    assert len(set(names)) == len(names)
    assert all(segment.outcome in OUTCOMES for segment in found.segments)
    mine = [label for label in labels if label.about(RUN)]
    ignored = sum('was ignored' in problem for problem in found.problems)
    assert ignored == sum(label.line not in found.applied for label in mine) or any(
        label.line in found.applied for label in mine
    )
    if any(label.bounded for label in mine):
        spans = {label.bounds_ns(0) for label in mine if label.bounded}
        starts = {segment.start_ns for segment in found.segments}
        assert starts == {start for start, _ in spans}
