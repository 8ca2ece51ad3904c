"""A writer that dies, wherever it dies, costs at most its last batch."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_episodes import contract, episode

from qt_ros.dataset import Dataset, DatasetWriter, build_cache, relabel
from qt_ros.errors import DatasetError
from training.cache import Cache

BATCH = 3


class Fault:
    """Let the n-th step that changes the disk durably fail as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.steps = 0
        self.at = at
        for name in ('replace', 'fsync'):
            monkeypatch.setattr(os, name, self.wrap(getattr(os, name)))

    def wrap(self, real):
        def step(*args, **kwargs):
            self.steps += 1
            if self.steps >= self.at:
                raise OSError(errno.ENOSPC, 'No space left on device')
            return real(*args, **kwargs)

        return step


def files_of(path: Path) -> set[str]:
    """Return every file of a dataset but the cache and the lock."""
    return {
        str(file.relative_to(path))
        for file in path.rglob('*')
        if file.is_file() and '.cache' not in file.parts and file.name != '.lock'
    }


def assert_whole(path: Path, made_with, at_least: int) -> int:
    """Check every committed episode; return how many there are."""
    dataset = Dataset(path)
    assert len(dataset) >= at_least
    for index in range(len(dataset)):
        assert dataset.problems(index) == []
        assert dataset.episodes[index].episode_id == f'episode-{index}'
    assert sum(meta.length for meta in dataset.episodes) == dataset.info()['total_frames']
    return len(dataset)


@pytest.mark.parametrize('held', [0, 4])
def test_every_step_of_a_commit_may_fail(tmp_path, held):
    """A full disk at step n leaves the set as it was, and running it again completes it."""
    made_with = contract(cameras=1)
    episodes = [episode(made_with, seed, 3) for seed in range(held + BATCH)]
    clean = tmp_path / 'clean'
    with DatasetWriter(clean, made_with, batch=BATCH) as writer:
        for one in episodes:
            writer.append(one)
    wanted = files_of(clean)
    for at in range(1, 100):
        path = tmp_path / f'{at}'
        with DatasetWriter(path, made_with) as writer:
            for one in episodes[:held]:
                writer.append(one)
        writer = DatasetWriter(path, made_with)
        for one in episodes[held:]:
            writer.append(one)
        message = ''
        with pytest.MonkeyPatch.context() as patch:
            Fault(patch, at)
            try:
                writer.commit()
            except DatasetError as error:
                message = str(error)
        if not message:
            writer.close()
            break
        assert 'No space left on device; what was committed before is intact' in message
        # The last step flushes the folder after info.json has been put in place.
        count = assert_whole(path, made_with, held)
        assert count in (held, held + BATCH)
        with pytest.raises(DatasetError, match='could not be written before; open it anew'):
            writer.append(episode(made_with, 99))
        writer.close()
        assert assert_whole(path, made_with, held) == count
        with DatasetWriter(path, made_with) as again:
            assert len(again) == count
            for one in episodes:
                if not again.has(one.bag_uri, one.episode_id):
                    again.append(one)
        assert assert_whole(path, made_with, held + BATCH) == held + BATCH
        assert files_of(path) == wanted
        for name in ('meta/info.json', 'meta/tasks.parquet'):
            assert (path / name).read_bytes() == (clean / name).read_bytes()
        stats = [json.loads((p / 'meta/stats.json').read_text()) for p in (path, clean)]
        assert stats[0]['index'] == stats[1]['index']
    else:
        pytest.fail('a commit has fewer than 100 steps')
    assert at > 8  # data, a video each, episodes, statistics, info


APPEND = """
import sys
sys.path.insert(0, sys.argv[2])
from made_episodes import contract, episode
from qt_ros.dataset import DatasetWriter
made_with = contract(cameras=1)
with DatasetWriter(sys.argv[1], made_with, batch=2) as writer:
    for seed in range(len(writer), 10_000):
        writer.append(episode(made_with, seed, 2))
        print(seed, flush=True)
"""


def test_sigkill_at_any_moment(tmp_path):
    """Append in another process, kill it, check everything, go on.

    `tests/bags/test_killing.py` does it to whole conversions, many times more.
    """
    made_with = contract(cameras=1)
    path = tmp_path / 'd'
    draw = random.Random(7)
    held = 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, '-c', APPEND, str(path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        for _ in range(draw.randint(1, 6)):  # episodes, then a part of the next one or two
            assert process.stdout.readline().strip().isdigit()
        time.sleep(draw.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        held = assert_whole(path, made_with, held)
        cache = Cache.open(build_cache(path))
        assert len(cache.meta.episodes) == held
    assert held > 1
    with DatasetWriter(path, made_with) as writer:
        assert len(writer) == held
    left = files_of(path)
    assert sum(1 for name in left if name.endswith('.mp4')) == held
    assert not [name for name in left if name.endswith('.tmp') or name.startswith('.staging')]


def test_a_relabel_that_died_is_finished(tmp_path):
    """Whatever step fails, readers see the new labels at once or not at all, never a mixture."""
    made_with = contract(cameras=0)
    for at in range(1, 100):
        path = tmp_path / f'{at}'
        with DatasetWriter(path, made_with) as writer:
            for seed in range(4):
                writer.append(episode(made_with, seed, 3, outcome='failure'))
        message = ''
        with pytest.MonkeyPatch.context() as patch:
            Fault(patch, at)
            try:
                relabel(path, {0: 'success', 3: 'timeout'}, 'me')
            except DatasetError as error:
                message = str(error)
        if not message:
            break
        assert 'No space left' in message
        dataset = Dataset(path)
        outcomes = [meta.outcome for meta in dataset.episodes]
        if at == 1:  # not even the journal took it
            assert outcomes == ['failure'] * 4
        else:
            assert outcomes == ['success', 'failure', 'failure', 'timeout']
        for index, outcome in enumerate(outcomes):
            rows = dataset.rows(index)
            assert rows['next.reward'][-1] == (outcome == 'success')
            assert rows['next.truncated'][-1] == (outcome == 'timeout')
        DatasetWriter(path, made_with).close()
        assert [m.stored_outcome for m in Dataset(path).episodes] == outcomes
    assert at > 4


def test_going_back_after_a_relabel_that_died(tmp_path):
    """Rows that followed already, of episodes that did not, follow back too."""
    made_with = contract(cameras=0)
    for at in range(1, 100):
        path = tmp_path / f'{at}'
        with DatasetWriter(path, made_with) as writer:
            for seed in range(3):
                writer.append(episode(made_with, seed, 3, outcome='failure'))
        died = False
        with pytest.MonkeyPatch.context() as patch:
            Fault(patch, at)
            try:
                relabel(path, {0: 'success', 2: 'timeout'}, 'me')
            except DatasetError:
                died = True
        relabel(path, dict.fromkeys(range(3), 'failure'), 'me')
        dataset = Dataset(path)
        for index, meta in enumerate(dataset.episodes):
            rows = dataset.rows(index)
            assert (meta.outcome, meta.stored_outcome) == ('failure', 'failure')
            assert not rows['next.reward'].any()
            assert not rows['next.truncated'].any()
        if not died:
            break
    assert at > 4


def test_a_label_cut_off_in_the_middle_does_not_count(tmp_path):
    made_with = contract(cameras=0)
    path = tmp_path / 'd'
    with DatasetWriter(path, made_with) as writer:
        for seed in range(3):
            writer.append(episode(made_with, seed, 3, outcome='failure'))
    relabel(path, {0: 'success'}, 'me')
    journal = path / 'meta/labels.jsonl'
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[: len(whole) // 2])
    assert [meta.outcome for meta in Dataset(path).episodes] == ['success', 'failure', 'failure']
    relabel(path, {1: 'timeout'}, 'me')
    assert len(journal.read_bytes().splitlines()) == 2
    assert [meta.outcome for meta in Dataset(path).episodes] == ['success', 'timeout', 'failure']
