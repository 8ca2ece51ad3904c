"""Recordings of other people: each gives exactly the messages that its storage holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from qt_ros.bags.converter import convert
from qt_ros.bags.inspect import inspect_bag
from qt_ros.bags.reader import BagReader
from qt_ros.bags.suggest import suggest_contract
from qt_ros.bags.types import MessageTypes, deserialize
from qt_ros.contract import Camera, Contract
from qt_ros.dataset import Dataset
from qt_ros.decoding import decode_image, decode_state
from qt_ros.errors import BagError

pytestmark = pytest.mark.bags
ROOT = Path(__file__).resolve().parents[2]
ABITOBOT = ROOT / 'config/robots/abitobot.yaml'

COUNTS = {
    'abitobot': 6578,
    'soccer_goal': 2,
    'teleop_rigs/rig_0.mcap': 6,
    'teleop_rigs/rig_1.mcap': 6,
    'teleop_rigs/rig_6.mcap': 12,
    'teleop_rigs/rig_7.mcap': 6,
    'teleop_rigs/rig_3_protobuf.mcap': 9,
    'teleop_rigs/rig_18_ros1_depth.bag': 23,
    'type_coverage/test_bag_mcap': 188,
    'type_coverage/test_bag_sqlite3': 188,
    'rosbag2_cases/talker_sqlite3': 20,
    'rosbag2_cases/talker_mcap': 20,
    'rosbag2_cases/file_compression': 775,
    'rosbag2_cases/message_compression': 1127,
    'rosbag2_cases/multiple_files': 3177,
    'rosbag2_cases/no_metadata_mcap': 3177,
    'rosbag2_cases/metadata_v1': 7,
    'rosbag2_cases/empty_bag': 0,
    'rosbag2_cases/wrong_serialization': 7,
    'rosbag2_cases/service_events_mcap': 10,
}


@pytest.mark.parametrize('name', COUNTS)
def test_every_message_is_read(real_bags: Path, name: str) -> None:
    before = sorted((real_bags / name).parent.rglob('*'))
    with BagReader(real_bags / name) as bag:
        records = list(bag.messages())
        assert bag.count == len(records) == COUNTS[name]
        counted = Counter(record.topic for record in records)
        assert {topic: info.count for topic, info in bag.topics.items() if info.count} == counted
        some = records[::3]
        assert list(bag.fetch(record.ordinal for record in some)) == some
        assert bag.partial == (name == 'soccer_goal')
    assert inspect_bag(real_bags / name)['messages'] == COUNTS[name]
    assert sorted((real_bags / name).parent.rglob('*')) == before, 'wrote into the bag folder'


def test_a_folder_of_several_formats_is_left_to_the_caller(real_bags: Path) -> None:
    with BagReader(
        real_bags / 'teleop_rigs/rig_0.mcap', real_bags / 'teleop_rigs/rig_7.mcap'
    ) as b:
        assert b.count == 12


def test_topics_of_the_simulated_robot(real_bags: Path) -> None:
    found = inspect_bag(real_bags / 'abitobot')
    joints = found['topics']['/joint_states']
    assert joints['count'] == 1866
    assert joints['rate_hz'] == pytest.approx(19.8, abs=0.05)
    assert found['topics']['/imu/data']['count'] == 4712
    assert found['duration_s'] == pytest.approx(95.2, abs=0.1)
    assert len(found['joints']['/joint_states']) == 10
    assert any('simulation time' in problem for problem in found['problems'])


def test_split_recordings_tell_their_true_length(real_bags: Path) -> None:
    found = inspect_bag(real_bags / 'rosbag2_cases/multiple_files')
    assert found['duration_s'] == pytest.approx(6.352, abs=0.01)  # metadata.yaml says 51 years
    assert found['topics']['/chatter']['rate_hz'] == pytest.approx(500, abs=1)


def test_missing_splits_are_listed(real_bags: Path) -> None:
    found = inspect_bag(real_bags / 'soccer_goal')
    assert found['partial']
    assert any('12 of 13' in p and 'soccer_goal_11.mcap' in p for p in found['problems'])
    assert found['topics']['/camera/image_raw']['type'] == 'sensor_msgs/msg/Image'
    assert found['cameras'] == {'/camera/image_raw': [480, 640]}


def test_every_supported_type_decodes_the_same_from_both_storages(real_bags: Path) -> None:
    decoded = []
    for name in ('test_bag_mcap', 'test_bag_sqlite3'):
        with BagReader(real_bags / 'type_coverage' / name) as bag:
            types = MessageTypes(bag.topics)
            assert not types.unknown
            decoded.append([(r.topic, types.deserialize(r.topic, r.data)) for r in bag.messages()])
    assert len(decoded[0]) == 188
    assert {topic for topic, _ in decoded[0]} == {topic for topic, _ in decoded[1]}


@pytest.mark.parametrize(
    ('rig', 'state', 'command', 'cameras'),
    [('rig_0', 28, 28, 4), ('rig_1', 9, 7, 2), ('rig_6', 37, 12, 4), ('rig_7', 20, 16, 3)],
)
def test_joints_are_aligned_by_name(
    real_bags: Path, rig: str, state: int, command: int, cameras: int
) -> None:
    found = inspect_bag(real_bags / f'teleop_rigs/{rig}.mcap')
    joints = {topic.lstrip('/'): names for topic, names in found['joints'].items()}
    assert len(joints['io_teleop/joint_states']) == state
    assert len(joints['io_teleop/joint_cmd']) == command
    assert len(found['cameras']) == cameras
    common = joints['io_teleop/joint_cmd'][-1]
    if common not in joints['io_teleop/joint_states']:
        return
    with BagReader(real_bags / f'teleop_rigs/{rig}.mcap') as bag:
        for record in bag.messages(['/io_teleop/joint_states', '/io_teleop/joint_cmd']):
            info = bag.topics[record.topic]
            message = deserialize(info, record.data)
            value = decode_state(message, info.type, [f'position.{common}'])
            assert value[0] == message.position[message.name.index(common)]


def test_a_gripper_without_names_is_read_by_index(real_bags: Path) -> None:
    found = inspect_bag(real_bags / 'teleop_rigs/rig_6.mcap')
    assert found['joints']['io_teleop/target_gripper_status'] == ['0', '1']


def test_stamps_far_ahead_are_told(real_bags: Path) -> None:
    found = inspect_bag(real_bags / 'teleop_rigs/rig_1.mcap')
    assert any('ahead of log time: use clock: log' in text for text in found['problems'])
    assert 'clock: log' in suggest_contract(real_bags / 'teleop_rigs/rig_1.mcap')


def test_ros1_depth_images_decode(real_bags: Path) -> None:
    with BagReader(real_bags / 'teleop_rigs/rig_18_ros1_depth.bag') as bag:
        images = [n for n, i in bag.topics.items() if i.type.endswith('CompressedImage')]
        assert len(images) == 6
        for record in bag.messages(images):
            info = bag.topics[record.topic]
            image = decode_image(
                deserialize(info, record.data), Camera('c', record.topic, info.type, (48, 84))
            )
            assert image.shape == (48, 84, 3)
            assert image.any()


@pytest.mark.parametrize(
    'name', ['abitobot', *(f'teleop_rigs/rig_{n}.mcap' for n in (0, 1, 6, 7))]
)
def test_a_suggested_contract_loads(real_bags: Path, name: str) -> None:
    contract = Contract.parse(suggest_contract(real_bags / name))
    assert contract.dims
    assert contract.state_names


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('teleop_rigs/rig_3_protobuf.mcap', ('protobuf', 'cdr')),
        ('rosbag2_cases/wrong_serialization', ('wrong_format', 'cdr')),
        ('rosbag2_cases/empty_bag', ('no messages',)),
        ('rosbag2_cases/talker_mcap', ('/joint_states', '/topic (std_msgs/msg/String, 10)')),
    ],
)
def test_what_cannot_be_converted_is_refused(
    real_bags: Path, tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    contract = Contract.load(ABITOBOT)
    result = convert([real_bags / name], contract, tmp_path / 'out')
    assert result.status == 1
    assert not (tmp_path / 'out').exists(), 'nothing may be written'
    said = ' '.join(result.report['per_bag'][0]['problems'])
    assert all(word in said for word in words), said
    for entry in result.report['topics'].values():
        assert entry['read'] == entry['used'] + sum(entry['skipped'].values())


def test_the_simulated_robot_converts_end_to_end(real_bags: Path, tmp_path: Path) -> None:
    contract = Contract.load(ABITOBOT)
    result = convert([real_bags / 'abitobot'], contract, tmp_path / 'out')
    assert result.status == 0
    # Header stamps run from 101.55 s to 194.80 s. Ticks every 0.1 s before 194.80 s: 933; the last
    # has no next state, so 932 rows.
    (entry,) = result.report['per_bag']
    assert [row['rows'] for row in entry['episodes']] == [932]
    topics = result.report['topics']
    assert topics['/imu/data'] == {
        'read': 4712,
        'used': 0,
        'skipped': {'not in the contract': 4712},
    }
    joints = topics['/joint_states']
    assert joints['read'] == 1866 == joints['used'] + sum(joints['skipped'].values())
    assert joints['used'] == 932  # stamps are 50 ms apart: every other message is at a tick
    rows = Dataset(tmp_path / 'out').rows(0)
    assert len(rows['action']) == 932
    delta = rows['observation.state'][1:, 0] - rows['observation.state'][:-1, 0]
    assert rows['action'][:-1, 0] == pytest.approx(delta, abs=1e-6)

    again = convert([real_bags / 'abitobot'], contract, tmp_path / 'out')
    assert again.status == 0
    assert again.report['episodes']['new'] == 0
    assert len(Dataset(tmp_path / 'out')) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BagError, match='does not exist'), BagReader(tmp_path / 'nothing'):
        pass
