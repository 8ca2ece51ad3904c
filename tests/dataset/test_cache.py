"""The training cache holds what the dataset holds, and following it costs the difference."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_episodes import contract, episode

from qt_ros.contract import Contract
from qt_ros.dataset import Dataset, DatasetWriter, build_cache, relabel
from qt_ros.dataset.files import locked
from qt_ros.errors import DatasetError
from training.cache import Cache, CacheAction, CacheMeta
from training.cache_writer import CacheWriter
from training.errors import TrainingError


def extend(path: Path, made_with: Contract, seeds: range, **changes) -> None:
    with DatasetWriter(path, made_with) as writer:
        for seed in seeds:
            writer.append(episode(made_with, seed, **changes))


def assert_matches(path: Path) -> Cache:
    """Compare every row of the cache with the dataset."""
    dataset, cache = Dataset(path), Cache.open(path / '.cache')
    assert cache.meta.contract_hash == dataset.contract.hash
    assert Contract.parse(cache.meta.contract) == dataset.contract
    assert cache.meta.rows == dataset.info()['total_frames'] == len(cache)
    assert len(cache.meta.episodes) == len(dataset)
    for index, held in enumerate(cache.meta.episodes):
        meta, rows, span = (
            dataset.episodes[index],
            dataset.rows(index),
            slice(held.start, held.stop),
        )
        assert (held.id, held.outcome) == (meta.episode_id, meta.outcome)
        assert (held.source, held.policy_id) == (meta.source, meta.policy_id)
        assert cache.meta.instructions[held.instruction] == meta.instruction
        for name, column in (
            ('state', 'observation.state'),
            ('action', 'action'),
            ('reward', 'next.reward'),
            ('terminated', 'next.done'),
            ('truncated', 'next.truncated'),
        ):
            assert np.array_equal(getattr(cache, name)[span], rows[column]), name
        for camera in cache.images:
            assert np.array_equal(cache.images[camera][span], dataset.frames(index, camera))
    return cache


@settings(max_examples=4, deadline=None)
@given(
    counts=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    terminate=st.booleans(),
    workers=st.sampled_from([1, 3, None]),
)
def test_it_grows_with_the_dataset(tmp_path_factory, counts, terminate, workers):
    path = tmp_path_factory.mktemp('set') / 'd'
    made_with = contract(terminate=terminate)
    at = 0
    for count in counts:
        extend(path, made_with, range(at, at + count))
        at += count
        seen: list[tuple[int, int]] = []
        cache = build_cache(path, lambda *done, seen=seen: seen.append(done[:2]), workers)
        assert cache == path / '.cache'
        assert seen == [(index + 1, at) for index in range(at - count, at)]
        assert_matches(path)


def test_building_again_touches_nothing_that_is_there(tmp_path):
    path = tmp_path / 'd'
    extend(path, contract(), range(3))
    build_cache(path)
    files = [file for file in (path / '.cache').iterdir() if file.suffix in ('.u8', '.f32')]
    before = {file: file.stat().st_mtime_ns for file in files}
    build_cache(path)
    assert {file: file.stat().st_mtime_ns for file in files} == before
    assert len(files) == 7


def test_an_empty_dataset_has_an_empty_cache(tmp_path):
    path = tmp_path / 'd'
    extend(path, contract(), range(0))
    for _ in range(3):
        build_cache(path)
        assert len(assert_matches(path)) == 0
    extend(path, contract(), range(1))
    build_cache(path)
    assert_matches(path)


def test_aborted_and_unknown_are_held_but_not_trained_on(tmp_path):
    path, made_with = tmp_path / 'd', contract(cameras=1)
    for index, outcome in enumerate(('success', 'aborted', 'timeout', 'unknown', 'failure')):
        extend(path, made_with, range(index, index + 1), outcome=outcome)
    cache = Cache.open(build_cache(path))
    assert [held.outcome for held in cache.episodes] == ['success', 'timeout', 'failure']
    assert [held.id for held in cache.meta.episodes] == [f'episode-{n}' for n in range(5)]


def test_it_is_made_anew_when_contract_or_rows_differ(tmp_path):
    path = tmp_path / 'd'
    extend(path, contract(cameras=1), range(3))
    build_cache(path)
    for seeds, made_with in ((range(5, 7), contract(cameras=1)), (range(5, 7), contract())):
        cache = path / '.cache'
        shutil.move(cache, tmp_path / 'kept')
        shutil.rmtree(path)
        extend(path, made_with, seeds)
        shutil.move(tmp_path / 'kept', cache)
        build_cache(path)
        assert_matches(path)


def test_a_damaged_cache_is_refused_and_made_again(tmp_path):
    path = tmp_path / 'd'
    extend(path, contract(cameras=1), range(3))
    cache = build_cache(path)
    for damage in (
        lambda: (cache / 'state.f32').write_bytes(b'123'),
        lambda: (cache / 'images.front.u8').unlink(),
        lambda: (cache / 'meta.json').write_text('{"version": 1'),
        lambda: (cache / 'meta.json').write_text('[]'),
        lambda: (cache / 'meta.json').write_text('{"version": 99}'),
        lambda: (cache / 'meta.json').unlink(),
    ):
        damage()
        with pytest.raises(TrainingError, match='build the cache again from its dataset'):
            Cache.open(cache)
        build_cache(path)
        assert_matches(path)


def test_rows_after_the_last_commit_do_not_count(tmp_path):
    path = tmp_path / 'd'
    extend(path, contract(cameras=1), range(2))
    cache = build_cache(path)
    for file in cache.glob('*.f32'):
        with open(file, 'ab') as tail:
            tail.write(b'half a row')
    assert_matches(path)
    extend(path, contract(cameras=1), range(2, 4))
    build_cache(path)
    assert_matches(path)


def test_two_builders_do_not_meet(tmp_path):
    path = tmp_path / 'd'
    extend(path, contract(cameras=0), range(2))
    cache = build_cache(path)
    with (
        locked(cache / '.lock', 'the cache'),
        pytest.raises(DatasetError, match='being written by another process'),
    ):
        build_cache(path)


BUILD = """
import sys
sys.path.insert(0, sys.argv[2])
from qt_ros.dataset import build_cache, cache
cache.COMMIT_ROWS = 6
print('go', flush=True)
build_cache(sys.argv[1], lambda *done: print(done, flush=True), 2)
"""


def build_elsewhere(path: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, '-c', BUILD, str(path), str(Path(__file__).parents[2])],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == 'go\n'
    return process


def test_a_build_that_is_killed_goes_on_where_it_was(tmp_path):
    path, made_with, draw = tmp_path / 'd', contract(cameras=2), random.Random(3)
    extend(path, made_with, range(30), outcome='failure')
    held = 0
    for _ in range(4):
        process = build_elsewhere(path)
        for _ in range(draw.randint(1, 4)):
            process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
        with suppress(TrainingError):  # nothing was committed yet
            cache = Cache.open(path / '.cache')
            assert len(cache.meta.episodes) >= held
            held = len(cache.meta.episodes)
            for camera, frames in cache.images.items():
                for index, episode_held in enumerate(cache.meta.episodes):
                    span = slice(episode_held.start, episode_held.stop)
                    assert np.array_equal(frames[span], Dataset(path).frames(index, camera))
        relabel(path, {draw.randrange(30): 'success'}, 'me', {draw.randrange(30): 'again'})
    build_cache(path, workers=2)
    assert_matches(path)


def test_labels_that_are_given_while_it_is_built_are_followed(tmp_path):
    path = tmp_path / 'd'
    extend(path, contract(cameras=1), range(12), outcome='failure')

    def label(done: int, total: int, note: str) -> None:
        assert ' MB, ' in note
        if done in (3, 11):
            relabel(path, {done - 1: 'success', 11: 'timeout'}, 'me', {0: f'said at {done}'})

    build_cache(path, label)
    cache = assert_matches(path)
    assert cache.meta.episodes[2].outcome == cache.meta.episodes[10].outcome == 'success'
    assert cache.meta.instructions[cache.meta.episodes[0].instruction] == 'said at 11'


def test_two_builders_at_once_leave_one_cache(tmp_path):
    path = tmp_path / 'd'
    extend(path, contract(cameras=1), range(40), outcome='failure')
    process = build_elsewhere(path)
    process.stdout.readline()  # it holds the lock now, or has finished
    with suppress(DatasetError):
        build_cache(path)
    process.stdout.read()
    assert process.wait() == 0
    process.stdout.close()
    assert_matches(path)


def test_a_video_that_cannot_be_decoded_stops_the_build_and_leaves_what_was_there(tmp_path):
    path = tmp_path / 'd'
    extend(path, contract(cameras=1), range(2), outcome='failure')
    build_cache(path)
    extend(path, contract(cameras=1), range(2, 8), outcome='failure')
    broken = sorted(path.glob('videos/**/*.mp4'))[4]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    with pytest.raises(DatasetError, match='cannot be decoded'):
        build_cache(path, workers=3)
    assert len(Cache.open(path / '.cache').meta.episodes) >= 2
    broken.write_bytes(whole)
    build_cache(path)
    assert_matches(path)


def test_no_room_is_said_before_anything_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / 'd'
    extend(path, contract(cameras=1), range(3))
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: real._replace(free=1000))
    with pytest.raises(DatasetError, match=r'needs 0.0 GB for the decoded frames of \d+ rows'):
        build_cache(path)
    monkeypatch.undo()
    build_cache(path)
    assert_matches(path)


def small_meta() -> CacheMeta:
    return CacheMeta(
        contract='name: x',
        contract_hash='0',
        cameras={'front': (4, 6)},
        state_names=('a',),
        action=(CacheAction('a', -1.0, 1.0, 5),),
    )


def rows(length: int, frames: int | None = None, **changes) -> dict:
    count = length if frames is None else frames
    fields = {
        'id': 'e',
        'instruction': 'push',
        'outcome': 'success',
        'source': 'teleop',
        'policy_id': '',
        'images': {'front': (np.full((4, 6, 3), k, np.uint8) for k in range(count))},
        'state': np.zeros((length, 1), np.float32),
        'action': np.zeros((length, 1), np.float32),
        'reward': np.zeros(length, np.float32),
        'terminated': np.zeros(length, bool),
        'truncated': np.zeros(length, bool),
    }
    return {**fields, **changes}


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (rows(3, frames=2), 'camera front gave 2 frames for 3 rows'),
        (rows(3, frames=4), 'camera front gave 4 frames for 3 rows'),
        (rows(0), 'no rows'),
        (rows(3, reward=np.zeros(2, np.float32)), r'reward.f32: \(2,\), expected \(3,\)'),
        (rows(3, images={}), r"cameras \[\], expected \['front'\]"),
        (rows(2, images={'front': np.zeros((2, 6, 4, 3), np.uint8)}), 'frame 0 is uint8'),
    ],
)
def test_an_episode_that_does_not_fit_leaves_no_trace(tmp_path, wrong, message):
    with CacheWriter(tmp_path, small_meta()) as writer:
        writer.append(**rows(2))
        with pytest.raises(TrainingError, match=message):
            writer.append(**wrong)
        writer.append(**rows(1))
    cache = Cache.open(tmp_path)
    assert len(cache) == 3
    assert cache.images['front'][:, 0, 0, 0].tolist() == [0, 1, 0]
    assert (tmp_path / 'images.front.u8').stat().st_size == 3 * 4 * 6 * 3


def test_an_exception_commits_nothing(tmp_path):
    with CacheWriter(tmp_path, small_meta()) as writer:
        writer.append(**rows(2))

    def interrupted() -> None:
        with CacheWriter(tmp_path, small_meta()) as writer:
            writer.append(**rows(5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(Cache.open(tmp_path)) == 2
    with CacheWriter(tmp_path, small_meta()) as writer:
        writer.append(**rows(1))
    assert len(Cache.open(tmp_path)) == 3


def test_meta_is_plain_json(tmp_path):
    with CacheWriter(tmp_path, small_meta()) as writer:
        writer.append(**rows(2))
    raw = json.loads((tmp_path / 'meta.json').read_text())
    assert raw['rows'] == 2
    assert raw['cameras'] == {'front': [4, 6]}
    assert raw['action'] == [{'name': 'a', 'low': -1.0, 'high': 1.0, 'bins': 5}]
    assert CacheMeta.from_json(writer.meta.to_json()) == writer.meta
