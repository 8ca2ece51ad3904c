"""`qt-ros label`: what fits is changed and shown, and one wrong row keeps everything as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_outcome import Command

from qt_ros.bags.labels import Label
from qt_ros.bags.relabelling import match
from qt_ros.dataset import Dataset, read_labels


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    """A dataset of this test alone."""
    return Path(shutil.copytree(dataset, tmp_path / 'copy'))


def csv(folder: Path, *rows: str) -> Path:
    path = folder / 'labels.csv'
    path.write_text('\n'.join(rows) + '\n')
    return path


def test_a_dry_run_shows_and_changes_nothing(qt_ros: Command, copy: Path, tmp_path: Path) -> None:
    first, second, *_ = before = Dataset(copy).episodes
    file = csv(
        tmp_path,
        'episode_index,episode_id,outcome,instruction',
        f'0,,aborted,{first.instruction}',
        f',{second.episode_id},,say it in other words',
        f'1,{second.episode_id},{second.outcome},',
    )
    found = qt_ros('label', copy, '--csv', file, '--dry-run', '--json')
    assert found.status == 0
    assert (found.data['changed'], found.data['fitting'], found.data['repeated']) == (0, 2, 1)
    assert [change['episode_index'] for change in found.data['changes']] == [0, 1]
    assert found.data['changes'][0]['outcome'] == [first.outcome, 'aborted']
    assert found.data['changes'][1]['instruction'][1] == 'say it in other words'
    assert Dataset(copy).episodes == before
    shown = qt_ros('label', copy, '--csv', file, '--dry-run').out
    assert f'{first.outcome} -> aborted: 1' in shown
    assert '2 episodes would change' in shown


def test_it_changes_and_counts_and_keeps_who_said_it(
    qt_ros: Command, copy: Path, tmp_path: Path
) -> None:
    first = Dataset(copy).episodes[0]
    file = csv(tmp_path, 'Episode_Index;Outcome;Instruction', '0;Aborted;push it')
    found = qt_ros('label', copy, '--csv', file, '--by', 'ann', '--json')
    assert (found.status, found.data['changed']) == (0, 1)
    assert found.data['outcomes']['aborted'] == 1
    now = Dataset(copy).episodes[0]
    assert (now.outcome, now.instruction) == ('aborted', 'push it')
    (said,) = read_labels(copy)
    assert (said.by, said.before, said.instruction_before) == (
        'ann',
        first.outcome,
        first.instruction,
    )
    again = qt_ros('label', copy, '--csv', file, '--by', 'ann', '--json')
    assert (again.status, again.data['changed'], len(read_labels(copy))) == (0, 0, 1)
    info = qt_ros('info', copy, '--json').data
    assert info['labels'] == {'given': 1, 'episodes': 1, 'by': {'ann': 1}}
    assert 'by ann 1' in qt_ros('info', copy).out


def test_every_wrong_row_is_told_and_nothing_is_changed(
    qt_ros: Command, copy: Path, tmp_path: Path
) -> None:
    first, *_ = before = Dataset(copy).episodes
    bag = Path(first.bag_uri).name
    file = csv(
        tmp_path,
        'episode_index,episode_id,bag,outcome,source',
        f'0,{first.episode_id},,unknown,',
        '4711,,,success,',
        f',{first.episode_id}x,,success,',
        ',,nowhere,success,',
        f'0,,{bag},success,{"policy" if first.source != "policy" else "teleop"}',
    )
    found = qt_ros('label', copy, '--csv', file)
    assert found.status == 1
    for said in ('line 3', 'line 4', 'line 5', 'line 6', 'nothing was changed', '--skip-missing'):
        assert said in found.err
    assert first.episode_id in found.err.partition('line 4')[2]  # what is near to it
    assert Dataset(copy).episodes == before
    # A source is a fact: passing over what is missing does not make that row right.
    assert qt_ros('label', copy, '--csv', file, '--skip-missing').status == 1
    assert Dataset(copy).episodes == before
    assert not (copy / 'meta/labels.jsonl').exists()


def test_a_bag_of_many_episodes_needs_more_words(dataset: Path) -> None:
    episodes = Dataset(dataset).episodes
    bags = {episode.bag_uri for episode in episodes}
    for bag in bags:
        held = [episode for episode in episodes if episode.bag_uri == bag]
        found = match([Label('success', bag, line=2)], episodes)
        if len(held) == 1:
            assert list(found.rows) == [held[0].index]
        else:
            assert f'fits {len(held)} episodes' in found.problems[0]
            assert not found.rows


def test_a_dataset_that_is_written_now_is_left_alone(
    qt_ros: Command, copy: Path, tmp_path: Path
) -> None:
    from qt_ros.dataset import DatasetWriter

    file = csv(tmp_path, 'episode_index,outcome', '0,aborted')
    with DatasetWriter(copy, Dataset(copy).contract):
        found = qt_ros('label', copy, '--csv', file)
    assert found.status == 1
    assert 'being written by another process' in found.err
    assert json.loads((copy / 'meta/info.json').read_text())['total_episodes'] == len(
        Dataset(copy).episodes
    )
