"""The ways in which another reader loses messages or gives up: none of them may happen here."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path

import pytest
import yaml
from made_bags import steady
from mcap.writer import Writer

from qt_ros.bags.inspect import inspect_bag
from qt_ros.bags.reader import BagReader

STORAGES = ('mcap', 'sqlite3')


def written(path: Path, storage: str) -> tuple[Path, int]:
    """A healthy bag and its number of messages."""
    bag = steady()
    return bag.write(path, storage), len(bag.rows)


def change_metadata(path: Path, **changes: object) -> None:
    file = path / 'metadata.yaml'
    content = yaml.safe_load(file.read_text())
    content['rosbag2_bagfile_information'].update(changes)
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('qos', ['', 'nonsense', '- history: 3\n  depth: 99\n', [{'depth': 7}]])
def test_qos_in_the_metadata_that_differs_from_the_storage(
    tmp_path: Path, storage: str, qos: object
) -> None:
    path, count = written(tmp_path / 'bag', storage)
    content = yaml.safe_load((path / 'metadata.yaml').read_text())
    topics = content['rosbag2_bagfile_information']['topics_with_message_count']
    for entry in topics:
        entry['topic_metadata']['offered_qos_profiles'] = qos
    change_metadata(path, topics_with_message_count=topics)
    found = inspect_bag(path)
    assert found['messages'] == count
    assert found['problems'] == []


@pytest.mark.parametrize('storage', STORAGES)
def test_duration_start_and_counts_come_from_the_messages(tmp_path: Path, storage: str) -> None:
    path, count = written(tmp_path / 'bag', storage)
    truth = inspect_bag(path)['duration_s']
    assert truth == pytest.approx(1.05)
    change_metadata(
        path,
        duration={'nanoseconds': 51 * 31_557_600 * 10**9},
        starting_time={'nanoseconds_since_epoch': 0},
        message_count=3,
        topics_with_message_count=[],
    )
    found = inspect_bag(path)
    assert (found['duration_s'], found['messages']) == (truth, count)
    assert sum(entry['count'] for entry in found['topics'].values()) == count


@pytest.mark.parametrize('profile', ['', 'ros2', 'ros1', 'cat/1.0', 'x' * 300])
def test_mcap_of_any_profile(tmp_path: Path, profile: str) -> None:
    with (tmp_path / 'a.mcap').open('wb') as file:
        writer = Writer(file)
        writer.start(profile=profile)
        schema = writer.register_schema('std_msgs/msg/Int8', 'ros2msg', b'int8 data')
        channel = writer.register_channel('/n', 'cdr', schema)
        writer.add_message(channel, 5, b'\0\1\0\0\7', 5)
        writer.finish()
    assert inspect_bag(tmp_path / 'a.mcap')['topics']['/n']['decodes']


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('version', [1, 2, 10, 99, 'many'])
def test_metadata_of_any_version(tmp_path: Path, storage: str, version: object) -> None:
    path, count = written(tmp_path / 'bag', storage)
    change_metadata(path, version=version)
    assert inspect_bag(path)['messages'] == count


@pytest.mark.parametrize('storage', STORAGES)
def test_a_missing_split_costs_what_was_in_it_only(tmp_path: Path, storage: str) -> None:
    path, count = written(tmp_path / 'bag', storage)
    (file,) = (each for each in path.iterdir() if each.suffix in ('.mcap', '.db3'))
    change_metadata(path, relative_file_paths=['gone_0' + file.suffix, file.name])
    with BagReader(path) as bag:
        # As many messages as were recorded are there: nothing is missing, whatever was listed.
        assert (bag.count, bag.partial) == (count, False)
    change_metadata(path, message_count=count + 1)
    with BagReader(path) as bag:
        assert (bag.count, bag.partial) == (count, True)
        assert any('gone_0' in problem for problem in bag.problems)


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('name', ['take.bag', 'take.mcap', 'take.db3', 'metadata.yaml'])
def test_a_folder_named_like_a_file(tmp_path: Path, storage: str, name: str) -> None:
    path, count = written(tmp_path / name, storage)
    assert inspect_bag(path)['messages'] == count


@pytest.mark.parametrize('storage', STORAGES)
def test_no_metadata(tmp_path: Path, storage: str) -> None:
    path, count = written(tmp_path / 'bag', storage)
    (path / 'metadata.yaml').unlink()
    found = inspect_bag(path)
    assert found['messages'] == count
    assert not found['partial']
    (file,) = path.iterdir()
    assert inspect_bag(file)['messages'] == count


def test_ros1_md5_sums_are_not_asked_for(tmp_path: Path, real_bags: Path) -> None:
    data = (real_bags / 'teleop_rigs/rig_18_ros1_depth.bag').read_bytes()
    changed = re.sub(rb'md5sum=[0-9a-f]{32}', b'md5sum=' + b'f' * 32, data)
    assert changed != data
    (tmp_path / 'a.bag').write_bytes(changed)
    with BagReader(tmp_path / 'a.bag') as bag:
        assert (bag.count, bag.partial) == (23, False)


def test_topic_ids_that_differ_between_splits(tmp_path: Path) -> None:
    path, count = written(tmp_path / 'bag', 'sqlite3')
    (first,) = path.glob('*.db3')
    second = path / 'bag_1.db3'
    shutil.copyfile(first, second)
    with sqlite3.connect(second) as db:
        db.execute('UPDATE topics SET id = 100 - id')
        db.execute('UPDATE messages SET topic_id = 100 - topic_id')
    db.close()
    (path / 'metadata.yaml').unlink()
    with BagReader(path) as bag:
        halves = [[], []]
        for record in bag.messages():
            halves[record.ordinal >> 40].append(record[:3])
        assert halves[0] == halves[1]
        assert bag.count == 2 * count
