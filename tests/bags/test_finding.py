"""Which files are recordings, under whatever names and in whatever folders they come."""

from __future__ import annotations

import gzip
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import zstandard
from made_bags import steady

from qt_ros.bags.finding import find_bags
from qt_ros.bags.inspect import inspect_bag
from qt_ros.bags.reader import BagReader
from qt_ros.errors import BagError

COUNT = len(steady().rows)


def storage_file(folder: Path) -> Path:
    (file,) = (each for each in folder.iterdir() if each.suffix in ('.mcap', '.db3'))
    return file


@pytest.fixture
def mcap(tmp_path: Path) -> Path:
    """One MCAP file in a folder of its own, without metadata."""
    file = storage_file(steady().write(tmp_path / 'made'))
    moved = tmp_path / 'one' / 'take_0.mcap'
    moved.parent.mkdir()
    return file.rename(moved)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize(
    'name', ['take two', 'größe-日本', "it's 100% #1?", 'a.bag', '[x]*', '-rf', 'x' * 200]
)
def test_odd_names(tmp_path: Path, storage: str, name: str) -> None:
    path = steady().write(tmp_path / 'plain', storage).rename(tmp_path / name)
    assert inspect_bag(path)['messages'] == COUNT
    assert find_bags(tmp_path) == [path]
    file = storage_file(path)
    file = file.rename(path / f'{name}{file.suffix}')
    assert inspect_bag(file)['messages'] == COUNT
    with BagReader(path) as bag:  # metadata.yaml lists the old name, and as many messages
        assert (bag.count, bag.partial) == (COUNT, False)


@pytest.mark.parametrize('name', ['data.bin', 'noext', 'take.bag', 'take.MCAP', 'take.db3'])
def test_the_content_tells_what_the_name_does_not(mcap: Path, name: str) -> None:
    file = mcap.rename(mcap.with_name(name))
    with BagReader(file) as bag:
        assert (bag.count, bag.kind) == (COUNT, 'mcap')
    assert inspect_bag(file.parent)['messages'] == COUNT
    assert find_bags(file.parent) == [file.parent]


def test_compressed_under_any_name(mcap: Path) -> None:
    packed = zstandard.ZstdCompressor().compress(mcap.read_bytes())
    for name in ('take.mcap.zst', 'take.mcap.zstd', 'take.mcap', 'take'):
        mcap.with_name(name).write_bytes(packed)
        with BagReader(mcap.with_name(name)) as bag:
            assert (bag.count, bag.partial) == (COUNT, False)


def test_links_to_recordings(mcap: Path, tmp_path: Path) -> None:
    shelf = tmp_path / 'shelf'
    shelf.mkdir()
    (shelf / 'file.mcap').symlink_to(mcap)
    assert inspect_bag(shelf / 'file.mcap')['messages'] == COUNT
    (shelf / 'file.mcap').unlink()
    (shelf / 'folder').symlink_to(mcap.parent)
    (mcap.parent / 'back').symlink_to(shelf)  # in a circle
    (shelf / 'nowhere.mcap').symlink_to(shelf / 'gone')
    assert find_bags(shelf) == [shelf / 'folder']


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'', 'is empty'),
        (b'hello, this is a text file\n' * 9, 'is not a recording'),
        (gzip.compress(b'x' * 1000), 'gzip; unpack it first'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'git lfs pull'),
        (b'#ROSBAG V1.2\n', 'version 1'),
        (zstandard.ZstdCompressor().compress(b'x' * 1000), 'is not a recording'),
        (zstandard.ZstdCompressor().compress(b''), 'is empty'),
        (b'\x28\xb5\x2f\xfd' + b'junk' * 10, 'empty'),
        (b'SQLite format 3\0' + b'\0' * 100, 'topics and messages'),
        (os.urandom(5000).replace(b'\x89MCAP', b''), 'is not a recording'),
    ],
)
@pytest.mark.parametrize('name', ['a.mcap', 'a.db3', 'a.bag', 'a.mcap.zstd'])
def test_what_is_no_recording_is_called_by_its_name(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BagError) as caught, BagReader(tmp_path / name):
        pass
    assert words in str(caught.value)
    assert 'expected' in str(caught.value)


def test_a_zip_archive(mcap: Path) -> None:
    with zipfile.ZipFile(mcap.with_name('all.mcap'), 'w') as archive:
        archive.write(mcap)
    with pytest.raises(BagError, match='zip archive; unpack it first'):
        inspect_bag(mcap.with_name('all.mcap'))


def test_a_bad_file_beside_a_good_one_is_told(mcap: Path) -> None:
    mcap.with_name('take_1.mcap').write_text('half a download')
    with BagReader(mcap.parent) as bag:
        assert (bag.count, bag.partial) == (COUNT, True)
        assert any('take_1.mcap is not a recording' in problem for problem in bag.problems)


def test_what_is_neither_a_file_nor_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe.mcap')
    for path, words in (
        (tmp_path / 'pipe.mcap', 'neither'),
        (tmp_path / 'gone', 'does not exist'),
        (tmp_path / ('x' * 300), 'cannot be read'),
        (Path('a\0b'), 'does not exist'),
        (tmp_path, 'holds no storage file'),
    ):
        with pytest.raises(BagError, match=words), BagReader(path):
            pass
        with pytest.raises(BagError):
            find_bags(path)


def test_loose_files_and_folders_side_by_side_are_all_found(tmp_path: Path) -> None:
    for number in (1, 2):
        steady().write(tmp_path / f'run_{number}')
    shutil.copyfile(storage_file(tmp_path / 'run_1'), tmp_path / 'loose.mcap')
    steady().write(tmp_path / 'deep/er/run_3')
    (tmp_path / 'notes').mkdir()
    (tmp_path / 'notes/metadata.yaml').write_text('license: mit\n')  # of another tool
    found = [str(path.relative_to(tmp_path)) for path in find_bags(tmp_path)]
    assert found == ['.', 'deep/er/run_3', 'run_1', 'run_2']
    assert inspect_bag(tmp_path)['messages'] == COUNT, 'the loose file alone'


def test_splits_are_one_recording_and_takes_are_many(tmp_path: Path) -> None:
    splits, takes = tmp_path / 'splits', tmp_path / 'takes'
    for number in range(3):
        for folder, pause_ms in ((splits, 50), (takes, 20_000)):
            folder.mkdir(exist_ok=True)
            bag = steady(1.0, start_ms=number * (1000 + pause_ms))
            file = storage_file(bag.write(tmp_path / f'{folder.name}_{number}'))
            shutil.copyfile(file, folder / f'take_{number}.mcap')
            shutil.rmtree(tmp_path / f'{folder.name}_{number}')
    assert find_bags(splits) == [splits]
    assert inspect_bag(splits)['messages'] == 3 * COUNT
    assert find_bags(takes) == [takes / f'take_{number}.mcap' for number in range(3)]
    problems = inspect_bag(takes)['problems']
    assert any('recordings of their own' in problem for problem in problems)


def test_the_shared_recordings_are_found_one_by_one(real_bags: Path) -> None:
    found = [str(path.relative_to(real_bags)) for path in find_bags(real_bags)]
    assert len(found) == 20
    assert 'teleop_rigs/rig_18_ros1_depth.bag' in found
    assert 'rosbag2_cases/no_metadata_mcap' in found
    assert 'type_coverage/test_bag_sqlite3' in found


@pytest.mark.parametrize(
    'metadata',
    [
        'rosbag2_bagfile_information: {relative_file_paths: [/etc/passwd, ../../secret.mcap]}',
        'rosbag2_bagfile_information: {relative_file_paths: 7, files: {a: b}}',
        'rosbag2_bagfile_information: {relative_file_paths: [[a, b], {c: d}, 3, null]}',
        'rosbag2_bagfile_information: {topics_with_message_count: {a: b}, custom_data: [1]}',
        'rosbag2_bagfile_information: {relative_file_paths: ["", ".", "a\\0b", "x/"]}',
        # A few lines that stand for ten billion entries.
        'rosbag2_bagfile_information:\n  a: &a [x, x, x, x, x, x, x, x, x, x]\n'
        + ''.join(
            f'  {new}: &{new} [{", ".join([f"*{old}"] * 10)}]\n'
            for old, new in zip('abcdefghi', 'bcdefghij', strict=True)
        )
        + '  custom_data: {operator: Jo, much: *j}\n  relative_file_paths: *j\n',
        '[' * 100_000,
    ],
)
def test_metadata_that_would_harm(mcap: Path, metadata: str) -> None:
    (mcap.parent.parent / 'secret.mcap').write_bytes(mcap.read_bytes())
    (mcap.parent / 'metadata.yaml').write_text(metadata)
    with BagReader(mcap.parent) as bag:
        assert [storage.path for storage in bag.storages] == [mcap]
        assert bag.count == COUNT
        assert set(bag.metadata) <= {'operator'}
