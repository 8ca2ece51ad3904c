"""Labels change what depends on the outcome, and nothing else; none is ever lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_episodes import contract, episode

from qt_ros.dataset import Dataset, DatasetWriter, build_cache, read_labels, relabel
from qt_ros.episode import OUTCOMES, rewards
from qt_ros.errors import DatasetError
from training.cache import Cache

COUNT = 5


def make(path: Path, outcomes: list[str], cameras: int = 0) -> None:
    made_with = contract(cameras=cameras)
    with DatasetWriter(path, made_with) as writer:
        for seed, outcome in enumerate(outcomes):
            writer.append(episode(made_with, seed, 3 + seed, outcome=outcome))


def state_of(path: Path) -> dict:
    """Return all that depends on outcomes."""
    dataset = Dataset(path)
    stats = json.loads((path / 'meta/stats.json').read_text())
    return {
        'outcomes': [
            (meta.outcome, meta.stored_outcome, meta.success) for meta in dataset.episodes
        ],
        'rewards': [
            {name: dataset.rows(i)[name].tolist() for name in rewards('success', 1)}
            for i in range(len(dataset))
        ],
        'stats': {name: stats[name] for name in rewards('success', 1)},
    }


@settings(max_examples=8, deadline=None)
@given(
    first=st.lists(st.sampled_from(OUTCOMES), min_size=COUNT, max_size=COUNT),
    labels=st.lists(st.tuples(st.integers(0, COUNT - 1), st.sampled_from(OUTCOMES)), max_size=6),
    together=st.booleans(),
)
def test_any_order_of_labels_ends_at_the_newest(tmp_path_factory, first, labels, together):
    folder = tmp_path_factory.mktemp('set')
    make(folder / 'd', first)
    final = dict(enumerate(first))
    final.update(labels)
    if together:
        relabel(folder / 'd', dict(labels), 'me')
    else:
        for index, outcome in labels:
            relabel(folder / 'd', {index: outcome}, 'me')
    make(folder / 'wanted', list(final.values()))
    found, wanted = state_of(folder / 'd'), state_of(folder / 'wanted')
    assert found['outcomes'] == wanted['outcomes']
    assert found['rewards'] == wanted['rewards']
    for name, values in wanted['stats'].items():
        for key, value in values.items():
            np.testing.assert_allclose(found['stats'][name][key], value, atol=1e-12)
    assert all(Dataset(folder / 'd').problems(index) == [] for index in range(COUNT))


def test_history_is_kept(tmp_path):
    make(tmp_path / 'd', ['failure'] * 3)
    assert relabel(tmp_path / 'd', {1: 'success', 2: 'failure'}, 'ann') == 1
    assert relabel(tmp_path / 'd', {1: 'aborted'}, 'ben') == 1
    assert relabel(tmp_path / 'd', {1: 'aborted'}, 'ben') == 0
    history = read_labels(tmp_path / 'd')
    assert [(e.episode_index, e.before, e.outcome, e.by) for e in history] == [
        (1, 'failure', 'success', 'ann'),
        (1, 'success', 'aborted', 'ben'),
    ]
    assert history[0].episode_id == 'episode-1'
    assert history[0].stamp_ns <= history[1].stamp_ns


def test_videos_actions_and_states_are_not_touched(tmp_path):
    path = tmp_path / 'd'
    make(path, ['failure'] * 3, cameras=2)
    build_cache(path)

    def untouched() -> dict[str, str]:
        files = [*path.glob('videos/**/*.mp4'), *path.glob('.cache/images.*')]
        files += [path / '.cache/state.f32', path / '.cache/action.f32', path / 'meta/info.json']
        return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    before, rows = untouched(), [Dataset(path).rows(i) for i in range(3)]
    relabel(path, {0: 'success', 1: 'timeout', 2: 'aborted'}, 'me')
    assert untouched() == before
    for index in range(3):
        after = Dataset(path).rows(index)
        changed = {name for name in after if not np.array_equal(after[name], rows[index][name])}
        assert changed <= set(rewards('success', 1))
    cache = Cache.open(path / '.cache')
    assert [episode.outcome for episode in cache.meta.episodes] == [
        'success',
        'timeout',
        'aborted',
    ]
    assert len(cache.episodes) == 2
    ends = [episode.stop - 1 for episode in cache.meta.episodes]
    assert cache.reward[ends].tolist() == [1, 0, 0]
    assert cache.terminated[ends].tolist() == [1, 0, 0]
    assert cache.truncated[ends].tolist() == [0, 1, 1]
    assert cache.reward.sum() == 1


def test_a_wrong_label_changes_nothing(tmp_path):
    make(tmp_path / 'd', ['failure'] * 2)
    with pytest.raises(DatasetError) as caught:
        relabel(tmp_path / 'd', {0: 'success', 1: 'won', 7: 'success'}, 'me')
    assert "outcome 'won' is unknown" in str(caught.value)
    assert 'episode 7 does not exist; allowed: 0 to 1' in str(caught.value)
    assert read_labels(tmp_path / 'd') == []
    assert [meta.outcome for meta in Dataset(tmp_path / 'd').episodes] == ['failure'] * 2


def test_labels_and_appending_go_together(tmp_path):
    make(tmp_path / 'd', ['failure'] * 2)
    relabel(tmp_path / 'd', {1: 'success'}, 'me')
    made_with = contract(cameras=0)
    with DatasetWriter(tmp_path / 'd', made_with) as writer:
        writer.append(episode(made_with, 2, 4, outcome='timeout'))
    relabel(tmp_path / 'd', {2: 'success'}, 'me')
    make(tmp_path / 'wanted', ['failure', 'success'])
    with DatasetWriter(tmp_path / 'wanted', made_with) as writer:
        writer.append(episode(made_with, 2, 4, outcome='success'))
    assert state_of(tmp_path / 'd')['rewards'] == state_of(tmp_path / 'wanted')['rewards']


@pytest.mark.parametrize('line', ['{"episode_index": 0}', '[]', '{', '7', 'null', '[' * 9999])
def test_a_journal_that_cannot_be_read_is_named(tmp_path, line):
    make(tmp_path / 'd', ['failure'])
    (tmp_path / 'd/meta/labels.jsonl').write_text(line + '\n')
    with pytest.raises(DatasetError, match=r'labels.jsonl:1: not a label'):
        Dataset(tmp_path / 'd')


def test_a_journal_from_before_instructions_could_change_is_read(tmp_path):
    make(tmp_path / 'd', ['failure'])
    relabel(tmp_path / 'd', {0: 'success'}, 'me')
    (line,) = (tmp_path / 'd/meta/labels.jsonl').read_text().splitlines()
    assert set(json.loads(line)) == {
        'episode_index', 'episode_id', 'bag_uri', 'before', 'outcome', 'by', 'stamp_ns',
    }  # fmt: skip
    assert Dataset(tmp_path / 'd').episodes[0].outcome == 'success'
    assert read_labels(tmp_path / 'd')[0].instruction == ''


TEXTS = ('push block 0', 'push block 1', 'stack them', 'räum auf')


@settings(max_examples=5, deadline=None)
@given(
    said=st.lists(
        st.tuples(
            st.integers(0, COUNT - 1),
            st.sampled_from([None, *OUTCOMES]),
            st.sampled_from([None, *TEXTS]),
        ),
        max_size=8,
    )
)
def test_instructions_follow_everywhere(tmp_path_factory, said):
    """Rows, tasks, episodes, statistics and cache are as if it had been said when recording."""
    path = tmp_path_factory.mktemp('set') / 'd'
    make(path, ['failure'] * COUNT, cameras=1)
    build_cache(path)
    videos = {f: f.read_bytes() for f in path.glob('videos/**/*.mp4')}
    texts = [episode.instruction for episode in Dataset(path).episodes]
    outcomes, changed = ['failure'] * COUNT, 0
    for index, outcome, text in said:
        before = (outcomes[index], texts[index])
        outcomes[index], texts[index] = outcome or before[0], text or before[1]
        changed += (outcomes[index], texts[index]) != before
        relabel(
            path,
            {} if outcome is None else {index: outcome},
            'me',
            {} if text is None else {index: text},
        )
    assert len(read_labels(path)) == changed
    dataset = Dataset(path)
    tasks = pq.read_table(path / 'meta/tasks.parquet').to_pydict()
    assert dataset.info()['total_tasks'] == len(tasks['task']) == len(set(tasks['task']))
    name_of = dict(zip(tasks['task_index'], tasks['task'], strict=True))
    stats = json.loads((path / 'meta/stats.json').read_text())
    numbers = []
    for index, meta in enumerate(dataset.episodes):
        assert (meta.instruction, meta.outcome) == (texts[index], outcomes[index])
        assert not meta.behind
        column = dataset.rows(index)['task_index']
        assert {name_of[number] for number in column.tolist()} == {texts[index]}
        numbers += column.tolist()
        assert dataset.problems(index) == []
    assert stats['task_index']['min'] == [min(numbers)]
    assert stats['task_index']['max'] == [max(numbers)]
    assert stats['task_index']['mean'][0] == pytest.approx(np.mean(numbers))
    assert stats['task_index']['count'] == [len(numbers)]
    assert {f: f.read_bytes() for f in path.glob('videos/**/*.mp4')} == videos
    cache = Cache.open(path / '.cache')
    named = [cache.meta.instructions[e.instruction] for e in cache.meta.episodes]
    assert named == texts
    assert list(cache.meta.instructions) == list(dict.fromkeys(texts))
    kept = Cache.open(path / '.cache').meta
    shutil.rmtree(path / '.cache')
    assert Cache.open(build_cache(path)).meta == kept


def test_history_of_instructions_is_kept(tmp_path):
    make(tmp_path / 'd', ['failure'] * 2)
    assert relabel(tmp_path / 'd', {}, 'ann', {0: 'push it', 1: 'push block 1'}) == 1
    assert relabel(tmp_path / 'd', {0: 'success'}, 'ben', {0: 'push it'}) == 1
    history = read_labels(tmp_path / 'd')
    assert [(e.outcome, e.instruction_before, e.instruction, e.by) for e in history] == [
        ('failure', 'push block 0', 'push it', 'ann'),
        ('success', '', '', 'ben'),
    ]
    with pytest.raises(DatasetError, match='says nothing') as caught:
        relabel(tmp_path / 'd', {9: 'success'}, 'me', {0: ' ', 7: 'x'})
    assert len(caught.value.problems) == 3
    assert len(read_labels(tmp_path / 'd')) == 2


def test_appending_goes_on_with_corrected_instructions(tmp_path):
    make(tmp_path / 'd', ['failure'] * 2)
    relabel(tmp_path / 'd', {}, 'me', {1: 'a new one'})
    made_with = contract(cameras=0)
    with DatasetWriter(tmp_path / 'd', made_with) as writer:
        writer.append(episode(made_with, 5, 4, instruction='a new one'))
        writer.append(episode(made_with, 6, 4, instruction='another'))
    tasks = pq.read_table(tmp_path / 'd/meta/tasks.parquet').column('task').to_pylist()
    assert tasks == ['push block 0', 'push block 1', 'a new one', 'another']
    dataset = Dataset(tmp_path / 'd')
    assert [set(dataset.rows(i)['task_index']) for i in range(4)] == [{0}, {2}, {2}, {3}]


class StoppedAt:
    """Stop a process where it is about to put the n-th file in place."""

    def __init__(self, at: int) -> None:
        self.at, self.steps, self.real = at, 0, os.replace

    def __call__(self, *names: Any) -> None:
        self.steps += 1
        if self.steps == self.at:
            os._exit(9)
        self.real(*names)


def test_a_relabel_that_is_killed_anywhere_is_finished_by_the_next_writer(tmp_path):
    """Rows, statistics and episodes agree afterwards, whatever had been written."""
    made_with = contract(cameras=0)
    for at in range(1, 30):
        path = tmp_path / str(at)
        make(path, ['failure'] * 3)
        process = os.fork()
        if process == 0:
            os.replace = StoppedAt(at)
            relabel(path, {0: 'success', 2: 'timeout'}, 'me', {1: 'new', 2: 'newer'})
            os._exit(0)
        _, status = os.waitpid(process, 0)
        dataset = Dataset(path)
        assert [e.outcome for e in dataset.episodes] == ['success', 'failure', 'timeout']
        assert [e.instruction for e in dataset.episodes][1:] == ['new', 'newer']
        DatasetWriter(path, made_with).close()
        wanted = tmp_path / f'wanted{at}'
        make(wanted, ['success', 'failure', 'timeout'])
        relabel(wanted, {}, 'me', {1: 'new', 2: 'newer'})
        for name in ('next.reward', 'next.done', 'next.truncated', 'task_index'):
            for index in range(3):
                found, right = (Dataset(p).rows(index)[name] for p in (path, wanted))
                assert found.tolist() == right.tolist()
        found, right = (json.loads((p / 'meta/stats.json').read_text()) for p in (path, wanted))
        assert found == right
        if os.waitstatus_to_exitcode(status) == 0:
            break
    assert at > 5


@pytest.mark.parametrize('outcome', OUTCOMES)
@pytest.mark.parametrize('length', [1, 2, 9])
def test_rewards(outcome, length):
    columns = rewards(outcome, length)
    ends = {name: column[-1] for name, column in columns.items()}
    assert all(len(column) == length for column in columns.values())
    assert not any(column[:-1].any() for column in columns.values())
    assert ends['next.done'] != ends['next.truncated']
    assert ends['next.done'] == (outcome in ('success', 'failure'))
    assert ends['next.success'] == ends['next.reward'] == (outcome == 'success')
    assert columns['next.reward'].dtype == np.float32
