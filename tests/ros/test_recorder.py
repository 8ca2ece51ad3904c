"""Recordings made by real processes over real topics, read back with another library."""

from __future__ import annotations

import json
import resource as limits
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip('rclpy')

from mcap.reader import make_reader
from probe import Probe
from q_transformer_ros.msg import EpisodeEvent
from q_transformer_ros.srv import EndEpisode, StartEpisode
from rclpy.serialization import deserialize_message

from qt_ros.contract import Contract
from qt_ros.errors import QtRosError
from qt_ros.nodes.ros import message_class, to_ns
from qt_ros.processes import NodeGroup, NodeProcess
from qt_ros.resources import resource

pytestmark = pytest.mark.ros

CONTRACT = resource('config/robots/block_arm.yaml')
START, END = '/recorder/start_episode', '/recorder/end_episode'


@pytest.fixture
def group(ros_domain: int, tmp_path: Path) -> Iterator[NodeGroup]:
    with NodeGroup(tmp_path / 'logs') as group:
        yield group


@pytest.fixture
def probe(ros_domain: int) -> Iterator[Probe]:
    probe = Probe(ros_domain)
    yield probe
    probe.close()


def recorder(group: NodeGroup, out: Path, **params: Any) -> NodeProcess:
    return group.start('recorder', {'contract': CONTRACT, 'out': out, **params})


def messages(bag: Path) -> list[tuple[str, int, Any]]:
    """Return (topic, log time (ns), message) of a bag, in the order of the log times."""
    (path,) = bag.glob('*.mcap')
    with path.open('rb') as file:
        return [
            (channel.topic, message.log_time, deserialize_message(message.data, kind))
            for schema, channel, message in make_reader(file).iter_messages()
            for kind in [message_class(schema.name)]
        ]


def custom_data(bag: Path) -> dict[str, str]:
    text = (bag / 'metadata.yaml').read_text()
    return yaml.safe_load(text)['rosbag2_bagfile_information']['custom_data']


def test_lockstep_attempts_are_recorded_whole(group: NodeGroup, tmp_path: Path) -> None:
    out = tmp_path / 'bags'
    sim = group.start('sim_robot', {'lockstep': True})
    record = recorder(group, out, use_sim_time=True)
    group.wait_ready([sim, record], 30.0)
    params = {'plan': 'expert:2,random:1', 'use_sim_time': True, 'max_duration_s': 3.0, 'seed': 11}
    teleop = group.start('teleop', params)
    episodes = [event for event in teleop.events(60.0) if event['event'] == 'episode']

    assert [episode['outcome'] for episode in episodes][2] == 'timeout'
    assert {episode['outcome'] for episode in episodes[:2]} <= {'success', 'failure'}
    assert teleop.wait(5.0) == 0
    for episode in episodes:
        bag = Path(episode['uri'])
        recorded = record.wait_for(
            lambda e, bag=bag: e.get('uri') == str(bag) and 'topics' in e, 5
        )
        assert recorded['silent'] == []
        _check_bag(bag, episode, recorded)
    group.check()
    assert sorted(path.name for path in (out / '.recording').iterdir()) == ['lock']


def _check_bag(bag: Path, episode: dict[str, Any], recorded: dict[str, Any]) -> None:
    contract = Contract.load(CONTRACT)
    found = messages(bag)
    assert Counter(topic for topic, _, _ in found) == Counter(
        {topic: count['messages'] for topic, count in recorded['topics'].items()}
    )
    start, stop = [message for topic, _, message in found if topic == '/episode/events']
    assert (start.kind, stop.kind) == (EpisodeEvent.START, EpisodeEvent.STOP)
    assert start.episode_id == stop.episode_id
    assert start.instruction == stop.instruction == episode['instruction']
    assert (start.source, stop.outcome) == ('teleop', episode['outcome'])
    custom = custom_data(bag)
    assert Contract.parse(custom['contract']).hash == contract.hash == custom['contract_hash']
    assert custom['outcome'] == episode['outcome']

    # Tick 0 is complete, and every command falls on the tick that it was decided on.
    t0_ns, stop_ns = to_ns(start.header.stamp), to_ns(stop.header.stamp)
    for item in contract.observed:
        assert any(
            topic == item.topic and to_ns(message.header.stamp) <= t0_ns
            for topic, _, message in found
        ), item.topic
    arm, gripper = (action.topic for action in contract.action)
    arm_ns = [to_ns(message.header.stamp) for topic, _, message in found if topic == arm]
    gripper_ns = [log_ns for topic, log_ns, _ in found if topic == gripper]
    assert len(arm_ns) == len(gripper_ns) == episode['steps']
    for sent_ns in (arm_ns, gripper_ns):
        assert all(t0_ns < stamp_ns <= stop_ns for stamp_ns in sent_ns)
        ticks = [(stamp_ns - 1 - t0_ns) // contract.period_ns for stamp_ns in sent_ns]
        assert ticks == list(range(episode['steps']))


def test_recorder_names_what_delivered_nothing(
    group: NodeGroup, probe: Probe, tmp_path: Path
) -> None:
    record = recorder(group, tmp_path / 'bags', extra_topics=['/notes std_msgs/msg/String'])
    record.wait_for('ready', 30.0)
    joints = probe.publisher('/joint_states', 'sensor_msgs/msg/JointState')

    refused = probe.call(StartEpisode, START, source='robot')
    assert not refused.success
    assert 'teleop, policy, mixed' in refused.message
    started = probe.call(
        StartEpisode, START, episode_id='a/../b', instruction='go', source='policy'
    )
    assert started.success
    assert Path(started.uri).parent == tmp_path / 'bags'
    assert not probe.call(StartEpisode, START, source='policy').success
    for number in range(300):  # faster than the recorder looks: none may be lost
        joints.publish(joints.msg_type(name=['waist'], position=[float(number)]))
    assert not probe.call(EndEpisode, END, outcome='fine').success
    ended = probe.call(EndEpisode, END, outcome='failure', note='slipped')
    assert ended.success
    report = json.loads(ended.report)
    assert '/joint_states' not in report['silent']
    assert {'/front/image/compressed', '/policy/step', '/notes'} <= set(report['silent'])
    positions = [m.position[0] for t, _, m in messages(Path(ended.uri)) if t == '/joint_states']
    assert positions == [float(number) for number in range(300)]
    assert not probe.call(EndEpisode, END, outcome='failure').success
    group.check()


def test_killed_recorder_leaves_what_it_had(
    group: NodeGroup, probe: Probe, ros_domain: int, tmp_path: Path
) -> None:
    out = tmp_path / 'bags'
    record = recorder(group, out)
    record.wait_for('ready', 30.0)
    second = recorder(group, out)
    with pytest.raises(QtRosError, match='another recorder writes into'):
        second.wait_for('ready', 30.0)
    joints = probe.publisher('/joint_states', 'sensor_msgs/msg/JointState')
    probe.call(StartEpisode, START, episode_id='first', source='policy')
    joints.publish(joints.msg_type())
    probe.call(EndEpisode, END, outcome='success')
    probe.call(StartEpisode, START, episode_id='second', source='policy')
    joints.publish(joints.msg_type())
    record.kill()

    again = recorder(group, out)
    recovered = again.wait_for('recovered', 30.0)
    assert recovered['uri'] == str(out / 'second.recovered')
    assert len(messages(out / 'first')) == 3
    again.wait_for('ready', 30.0)
    newcomer = Probe(ros_domain)  # the first one still believes in the killed recorder
    assert newcomer.call(StartEpisode, START, episode_id='second', source='policy').success
    newcomer.close()
    again.stop()  # Ctrl-C in the middle of an episode ends it as aborted
    assert custom_data(out / 'second')['outcome'] == 'aborted'
    assert (out / 'second.recovered').is_dir()


def test_full_disk_ends_the_episode_not_the_node(
    group: NodeGroup, probe: Probe, tmp_path: Path
) -> None:
    record = recorder(group, tmp_path / 'bags')
    record.wait_for('ready', 30.0)
    images = probe.publisher('/front/image/compressed', 'sensor_msgs/msg/CompressedImage')
    started = probe.call(StartEpisode, START, episode_id='big', source='policy')
    assert started.success
    limit = 2**19  # no file may grow beyond this, as on a disk that is full
    limits.prlimit(record.pid, limits.RLIMIT_FSIZE, (limit, limits.RLIM_INFINITY))
    for _ in range(40):
        images.publish(images.msg_type(format='jpeg', data=bytes(100_000)))
    ended = record.wait_for('recorded', 20.0)
    assert ended['outcome'] == 'aborted'
    assert 'File too large' in ended['error']
    assert 'big.recovered' in ended['error']
    limits.prlimit(record.pid, limits.RLIMIT_FSIZE, (limits.RLIM_INFINITY,) * 2)
    assert not probe.call(EndEpisode, END, outcome='success').success
    assert probe.call(StartEpisode, START, episode_id='next', source='policy').success
    assert probe.call(EndEpisode, END, outcome='success').success
    assert len(messages(tmp_path / 'bags' / 'next')) >= 2
    group.check()
