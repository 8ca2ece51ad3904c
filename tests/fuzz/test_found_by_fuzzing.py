"""What mutated inputs once broke, one test each; the inputs are the smallest that did."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fuzz_checks import Ended, call, check_dataset
from fuzz_material import CONTRACTS, base_bag, base_recording
from made_bags import ARRAY, JOINTS, STORE, T0, Bag, header, make, steady
from made_storages import Recording, recording, write_bag, write_ros1

from qt_ros.bags.records import TopicInfo
from qt_ros.bags.types import why_unreadable
from qt_ros.contract import Contract
from qt_ros.dataset import Dataset
from qt_ros.errors import DatasetError


def converted(bag: Path, out: Path, contract: str = 'events') -> Ended:
    """Convert a bag by one of the hand-made contracts; no rule may be broken."""
    path = out.with_suffix('.yaml')
    path.write_text(CONTRACTS[contract])
    ended = call('convert', bag, '--contract', path, '--out', out, '--workers', 1, '--json')
    assert not ended.failure
    if ended.status != 1:
        assert not check_dataset(out)
    return ended


def suggested(bag: Path, folder: Path) -> Contract:
    path = folder / 'suggested.yaml'
    ended = call('inspect', bag, '--suggest', path, '--json')
    assert not ended.failure
    return Contract.load(path)


@pytest.mark.parametrize(
    ('kind', 'definition'),
    [
        ('a/msg/A', 'string[2000000000] x'),
        ('a/msg/A', 'a/B[20000000] x\n' + '=' * 80 + '\nMSG: a/B\nint32 y'),
        ('a/msg/A', 'a/B b\n' + '=' * 80 + '\nMSG: a/B\na/A a'),
        ('1a/msg/A', 'int32 x'),
        ('a/msg/A', 'int32 x\nint32 x'),
        ("a/msg/A'); raise SystemExit(9); ('", 'int32 x'),
        ('a/msg/A', 'int32 x = raise SystemExit(9)\nraise SystemExit(9)'),
    ],
)
def test_definitions_that_no_code_can_be_made_of_are_left_alone(
    kind: str, definition: str
) -> None:
    assert kind in why_unreadable(TopicInfo(kind, 1, 'cdr', definition))


def test_names_that_no_ros_has_are_left_out_of_a_suggestion(tmp_path: Path) -> None:
    bag = base_recording('events')
    names = {'/front': '/fr\x1bnt', '/arm': '/\u202earm', '/joint_states': '/joint_states'}
    odd = Recording(
        {names.get(topic, topic + ' '): text for topic, text in bag.topics.items()},
        [(ns, names.get(topic, topic + ' '), data) for ns, topic, data in bag.rows],
    )
    contract = suggested(write_bag(tmp_path / '2026 run #1', odd, 'mcap_zstd'), tmp_path)
    assert contract.topics == {'/joint_states': JOINTS}


def test_joints_named_twice_or_unprintably_are_left_out_of_a_suggestion(tmp_path: Path) -> None:
    bag = Bag()
    for ms in range(0, 500, 20):
        stamp = header(T0 + ms * 1_000_000)
        names = ['a', 'a', '\x00', '\x1b[2J'] if ms else []
        message = make(JOINTS, header=stamp, name=names, position=[0.001 * ms] * len(names))
        bag.add('/joint_states', JOINTS, message, ms)
    contract = suggested(write_bag(tmp_path, recording(bag), 'mcap_zstd'), tmp_path)
    (name,) = contract.state_names
    assert name.endswith('position.a')


@pytest.mark.parametrize('value', [1e308, -1e39, np.inf])
def test_numbers_that_no_robot_means_are_passed_over(tmp_path: Path, value: float) -> None:
    bag = steady(0.5)
    bag.grip(150, value)
    bag.joints(200, value)
    ended = converted(write_bag(tmp_path, recording(bag), 'mcap_zstd'), tmp_path / 'out')
    assert ended.status == 0
    said = ' '.join(ended.data['per_bag'][0]['problems'])
    assert '/gripper' in said
    assert 'joints' in said
    assert np.isfinite(Dataset(tmp_path / 'out').rows(0)['action']).all()


def test_what_a_policy_asked_for_may_be_no_number(tmp_path: Path) -> None:
    bag = steady(0.5)
    for number in range(3):
        stamps = {'front': 100.0 * number, 'joints': 100.0 * number}
        requested = [1e308, np.inf, np.nan][number]
        bag.step(number, 100.0 * number, stamps, dims=['grip'], requested=[requested])
    ended = converted(write_bag(tmp_path, recording(bag), 'mcap_zstd'), tmp_path / 'out')
    assert ended.status == 0
    rows = Dataset(tmp_path / 'out').rows(0)
    assert rows['action.requested'].tolist() == rows['action'].tolist()


def test_a_record_of_ros1_without_its_fields_is_passed_over(tmp_path: Path) -> None:
    bag = write_ros1(tmp_path / 'made.bag', base_recording('one_per_bag'), 'none')
    data = bag.read_bytes()
    at = data.index(b'\x0d\x00\x00\x00time=', len(data) // 4)
    bag.write_bytes(data[:at] + b'\x0d\x00\x00\x00tame=' + data[at + 9 :])
    ended = call('inspect', bag, '--json')
    assert not ended.failure
    assert any('damaged' in problem for problem in ended.data['problems'])


def test_a_definition_of_ros1_without_a_standard_field_is_damaged(tmp_path: Path) -> None:
    bag = write_ros1(tmp_path / 'made.bag', base_recording('one_per_bag'), 'none')
    data = bag.read_bytes()
    assert b'string[] joint_names' in data
    bag.write_bytes(data.replace(b'string[] joint_names', b'string[] joint_nomes'))
    assert not call('inspect', bag, '--json').failure


def test_stamps_days_apart_are_not_filled_with_millions_of_rows(tmp_path: Path) -> None:
    bag = steady(0.5, events=False)
    day_ms = 24 * 3600 * 1000
    bag.joints(6 * day_ms, 0.0)
    bag.image(6 * day_ms, 0)
    path = write_bag(tmp_path, recording(bag), 'mcap_zstd')
    text = CONTRACTS['one_per_bag'].replace('max_gap_s: 1.0', 'max_gap_s: 1e6')
    contract = tmp_path / 'contract.yaml'
    contract.write_text(text.replace('_hz: 10.0', '_hz: 10.1'))
    ended = call(
        'convert', path, '--contract', contract, '--out', tmp_path / 'out', '--workers', 1
    )
    assert not ended.failure
    assert ended.status == 1
    assert 'max_gap_s' in ended.err  # 6 days at 10.1 Hz are 5.2 million ticks


def test_a_video_that_is_none_is_told_by_its_name(tmp_path: Path) -> None:
    bag = write_bag(tmp_path, recording(base_bag()), 'mcap_zstd')
    assert converted(bag, tmp_path / 'out').status == 0
    (video,) = (tmp_path / 'out').rglob('*.mp4')
    data = video.read_bytes()
    for damaged in (
        b'',
        data[:40],
        data.replace(b'avc1', b'nono'),
        data.replace(b'vide', b'soun'),
    ):
        video.write_bytes(damaged)
        dataset = Dataset(tmp_path / 'out')
        assert dataset.problems(0)
        with suppress(DatasetError):
            assert len(dataset.frames(0, 'front')) == len(dataset.rows(0)['action'])
    video.write_bytes(data[:40])
    assert video.name in dataset.problems(0)[0]
    with pytest.raises(DatasetError, match=video.name):
        dataset.frames(0, 'front')


def test_a_picture_that_claims_to_be_huge_is_not_decoded(tmp_path: Path) -> None:
    bag = base_bag()
    _, frame = next((n, row) for n, row in enumerate(bag.rows) if row[1] == '/front')
    data = bytearray(STORE.deserialize_cdr(frame[3], frame[2]).data.tobytes())
    at = data.index(b'\xff\xc0') + 5
    data[at : at + 4] = b'\xff\x00\xff\x00'  # 65280 x 65280 pixels: 12.8 GB
    bag.image(120, 0, data=bytes(data))
    path = write_bag(tmp_path, recording(bag), 'mcap_zstd')
    assert not call('inspect', path, '--json').failure
    assert converted(path, tmp_path / 'out').status == 0


def test_one_bag_with_odd_numbers_does_not_stop_the_others(tmp_path: Path) -> None:
    odd = replace(base_recording('events'))
    message = make(ARRAY, data=[3e38])
    rows = [
        (ns, topic, bytes(STORE.serialize_cdr(message, ARRAY)) if topic == '/gripper' else data)
        for ns, topic, data in odd.rows
    ]
    write_bag(tmp_path / 'bags' / 'odd', replace(odd, rows=rows), 'mcap_zstd')
    write_bag(tmp_path / 'bags' / 'sound', base_recording('events'), 'db3')
    ended = converted(tmp_path / 'bags', tmp_path / 'out')
    assert ended.data['bags']['total'] == 2
    assert ended.data['bags']['converted'] >= 1


def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / 'scratch'
    scratch.mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(scratch))
    for storage in ('db3_files', 'db3_wal', 'db3_split'):
        bag = write_bag(tmp_path / storage, base_recording('events'), storage)
        largest = max(bag.glob('made_0*'), key=lambda path: path.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:-5000])
        assert not call('inspect', bag, '--json').failure
        converted(bag, tmp_path / storage / 'out')
        assert os.listdir(scratch) == []


@pytest.mark.parametrize('storage', ['mcap_zstd', 'db3', 'db3_files', 'db3_wal'])
def test_a_folder_named_in_another_encoding(tmp_path: Path, storage: str) -> None:
    folder = tmp_path / os.fsdecode(b'caf\xe9')
    try:
        folder.mkdir()
    except OSError:
        pytest.skip('this file system takes names in UTF-8 only')
    bag = write_bag(folder, base_recording('one_per_bag'), storage)
    bag = bag.rename(folder / os.fsdecode(b'b\xe9b\xe9'))
    suggested(bag, tmp_path)
    labels = folder / 'labels.csv'
    labels.write_text('episode_id,outcome\nnone,success\n')
    contract = folder / 'contract.yaml'
    contract.write_text(CONTRACTS['one_per_bag'])
    again = ('convert', folder, '--contract', contract, '--workers', 1, '--labels', labels)
    for new in (1, 0):
        ended = call(*again, '--out', tmp_path / 'out', '--json')
        assert not ended.failure
        assert ended.data['episodes']['new'] == new
    (episode,) = Dataset(tmp_path / 'out').episodes
    assert episode.episode_id == 'b\\udce9b\\udce9'
    assert not check_dataset(tmp_path / 'out')
    refused = call(*again, '--out', folder / 'out')
    assert not refused.failure
    assert 'UTF-8' in refused.err
    assert not (folder / 'out').exists()


def test_names_cannot_command_the_terminal(tmp_path: Path) -> None:
    bag = base_recording('events')
    names = {'/front': '/fr\x1b[2Jnt', '/arm': '/\u202emra', '/gripper': '/g\r\x9b31m'}
    odd = Recording(
        {names.get(topic, topic): text for topic, text in bag.topics.items()},
        [(ns, names.get(topic, topic), data) for ns, topic, data in bag.rows],
    )
    path = write_bag(tmp_path, odd, 'mcap_zstd')
    assert not call('inspect', path).failure
    contract = tmp_path / 'contract.yaml'
    contract.write_text(CONTRACTS['events'])
    refused = call('convert', path, '--contract', contract, '--out', tmp_path / 'out')
    assert not refused.failure
    assert refused.status == 1
