"""What inspection says looks wrong: every fault in one sentence, and nothing where all is well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_bags import JOINTS, JPEG, MS, T0, Bag, header, make, steady

from qt_ros.bags.findings import listed
from qt_ros.bags.inspect import inspect_bag

RUN = 'import sys; from qt_ros.cli import main; sys.exit(main())'
LOG = 'rcl_interfaces/msg/Log'
TWIST = 'geometry_msgs/msg/TwistStamped'


def said(bag: Bag, path: Path) -> list[str]:
    return inspect_bag(bag.write(path))['problems']


def stamped(bag: Bag, topic: str, ms: float, log_ms: float, kind: str = JOINTS) -> None:
    bag.add(topic, kind, make(kind, header=header(T0 + round(ms * MS))), log_ms)


def test_a_healthy_recording_of_any_sort_raises_no_alarm(tmp_path: Path) -> None:
    bag = steady(5.0)
    chance = np.random.default_rng(3)
    for ms in np.cumsum(chance.exponential(100, 60)):  # logs come when they come
        bag.add('/rosout', LOG, make(LOG), ms)
    for ms in (100, 2000, 2010):  # a command now and then
        bag.grip(ms, 1.0)
    for ms in range(0, 5000, 30):  # stamped at capture, logged 40 to 65 ms later
        stamped(bag, '/twist', ms, ms + 40 + 25 * chance.random(), TWIST)
    for ms in range(0, 5000, 1000):
        bag.add('/tf_static', 'tf2_msgs/msg/TFMessage', make('tf2_msgs/msg/TFMessage'), ms)
    assert said(bag, tmp_path / 'bag') == []


@pytest.mark.parametrize(
    ('ahead_ms', 'words'),
    [
        (540_000, '9 min ahead of log time: use clock: log'),
        (-540_000, '9 min behind log time: use clock: log'),
        (86_400_000 * 40, '40 days ahead of log time: use clock: log'),
        (-1500, '1.5 s behind log time: use clock: log'),
    ],
)
def test_stamps_that_are_apart_from_log_time(tmp_path: Path, ahead_ms: float, words: str) -> None:
    bag = Bag()
    for ms in range(0, 2000, 50):
        bag.image(ms + ahead_ms, 5, log_ms=ms)
        bag.joints(ms, 1.0)
    assert said(bag, tmp_path / 'one') == [f'/front: header stamps are {words}']
    for ms in range(0, 2000, 50):
        stamped(bag, '/second', ms + ahead_ms, ms)
    assert said(bag, tmp_path / 'two') == [f'/front and /second: header stamps are {words}']


def test_simulation_time(tmp_path: Path) -> None:
    bag = Bag()
    for ms in range(0, 2000, 50):
        bag.joints(ms + 1000 - T0 / MS, 1.0, log_ms=ms)
        bag.image(ms + 1003 - T0 / MS, 5, log_ms=ms)
    bag.grip(1000, 1.0)
    (problem,) = said(bag, tmp_path / 'bag')
    assert problem == (
        '/front and /joint_states: header stamps are simulation time, 1.00 to 2.95 s:'
        ' use clock: header'
    )
    for ms in range(0, 2000, 50):
        stamped(bag, '/wall', ms, ms)
    (problem,) = said(bag, tmp_path / 'both')
    assert problem.endswith('1.00 to 2.95 s: other stamps do not agree: use clock: log')


def test_drift_and_jitter(tmp_path: Path) -> None:
    bag = Bag()
    for ms in range(0, 60_000, 100):
        stamped(bag, '/drifts', ms * 0.99, ms)  # 600 ms in a minute; the middles of the tenths 540
        stamped(bag, '/waits', ms, ms + 250 * (1 - np.cos(ms / 1600)))
    drift, jitter = said(bag, tmp_path / 'bag')
    assert drift == '/drifts: header stamps fall behind log time by 540 ms during the recording'
    assert jitter.startswith('/waits: header stamps and log time differ by up to 500 ms more')


def test_gaps_and_what_comes_irregularly(tmp_path: Path) -> None:
    bag = Bag()
    for n in range(100):
        bag.joints(20 * n + (1200 if n >= 50 else 0) + (300 if n >= 80 else 0), 1.0)
    chance = np.random.default_rng(1)
    for ms in np.cumsum(chance.choice([30.0, 400.0], 100, p=[0.8, 0.2])):
        bag.image(ms, 5)
    problems = said(bag, tmp_path / 'bag')
    assert problems == [
        '/joint_states: 2 gaps, the longest of 1.22 s: messages were lost or not sent',
        '/front: comes irregularly',
    ]
    entry = inspect_bag(tmp_path / 'bag')['topics']['/joint_states']
    assert (entry['gaps'], entry['longest_gap_s']) == (2, 1.22)


def test_repeated_and_shuffled_stamps(tmp_path: Path) -> None:
    bag = Bag()
    for n in range(60):
        bag.image(50 * (n - n % 2), 5, log_ms=50 * n)  # each stamp twice
        stamped(bag, '/shuffled', 50 * (n ^ 1), 50 * n)  # pairs in the wrong order
    problems = said(bag, tmp_path / 'bag')
    assert '/front: 30 messages have the stamp of another one; of equal stamps the later' in str(
        problems
    )
    assert '/shuffled: stamps go backwards 30 times; perhaps several nodes publish' in str(
        problems
    )


def test_damaged_messages_and_images_are_told(tmp_path: Path) -> None:
    bag = Bag()
    for n in range(9):
        bag.joints(50 * n, 1.0)
        bag.image(50 * n, 5, data=b'no picture' if n == 8 else None)
    rows = [row for row in bag.rows if row[1] == '/joint_states']
    number = bag.rows.index(rows[0])
    bag.rows[number] = (*rows[0][:3], rows[0][3][:30])
    found = inspect_bag(bag.write(tmp_path / 'bag'))
    # The rest decodes: one bad message does not make a topic useless.
    assert found['topics']['/joint_states']['decodes']
    assert found['joints'] == {'/joint_states': ['a', 'b']}
    assert found['cameras'] == {'/front': [16, 16]}
    first, second = found['problems']
    assert first.startswith('/joint_states: a message does not decode as')
    assert second.startswith('/front: an image does not decode')


def test_many_topics_in_one_sentence() -> None:
    assert listed(['/a']) == '/a'
    assert listed(['/a', '/b']) == '/a and /b'
    assert listed([f'/{n}' for n in range(9)]) == '/0, /1, /2, /3, /4, /5 and 3 more'


QUIET = (
    'soccer_goal', 'rosbag2_cases/talker_mcap', 'rosbag2_cases/talker_sqlite3',
    'rosbag2_cases/file_compression', 'rosbag2_cases/message_compression',
    'rosbag2_cases/multiple_files', 'rosbag2_cases/service_events_mcap',
    'teleop_rigs/rig_0.mcap', 'teleop_rigs/rig_7.mcap', 'teleop_rigs/rig_18_ros1_depth.bag',
)  # fmt: skip


@pytest.mark.parametrize('name', QUIET)
def test_no_false_alarm_about_the_shared_recordings(real_bags: Path, name: str) -> None:
    problems = inspect_bag(real_bags / name)['problems']
    assert [problem for problem in problems if 'files listed' not in problem] == []


def test_what_is_said_of_the_other_shared_recordings(real_bags: Path) -> None:
    def of(name: str) -> str:
        return '\n'.join(inspect_bag(real_bags / name)['problems'])

    assert 'simulation time, 100.60 to 194.82 s: use clock: header' in of('abitobot')
    assert 'joint_states' in of('teleop_rigs/rig_1.mcap')
    assert '6.41 days ahead of log time: use clock: log' in of('teleop_rigs/rig_1.mcap')
    assert of('teleop_rigs/rig_6.mcap').count('\n') == 0  # one stamp is zero
    protobuf = of('teleop_rigs/rig_3_protobuf.mcap').split('\n')
    assert len(protobuf) == 2
    assert "and 3 more: messages are encoded as 'protobuf', expected 'cdr'" in protobuf[0]
    assert 'metadata.yaml is missing' in of('rosbag2_cases/no_metadata_mcap')
    assert 'the recording holds no messages' in of('rosbag2_cases/empty_bag')
    assert "'wrong_format', expected 'cdr'" in of('rosbag2_cases/wrong_serialization')
    assert 'source the ROS workspace' in of('rosbag2_cases/metadata_v1')
    assert len(of('type_coverage/test_bag_mcap').split('\n')) == 3


@pytest.mark.parametrize('columns', [60, 80, 100, 200])
def test_the_table_fits(tmp_path: Path, columns: int) -> None:
    bag = steady()
    long = '/wrist_camera_left/color/image_rect_raw/compressed'
    for ms in range(0, 1000, 100):
        stamped(bag, long, ms, ms, JPEG)
    path = bag.write(tmp_path / 'bag')
    done = subprocess.run(
        [sys.executable, '-c', RUN, 'inspect', str(path)],
        capture_output=True, text=True, check=True, env={**os.environ, 'COLUMNS': str(columns)},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    table = [line for line in lines if line[:1] in '┏┃┡│└']
    assert max(map(len, table)) <= columns
    if columns >= 100:
        assert any(long in line for line in table), 'whole on one line'
        assert any('sensor_msgs/CompressedImage' in line for line in table)
    assert 'joints of /joint_states: a, b' in done.stdout
    assert 'an image does not decode' in ' '.join(done.stdout.split())


def test_a_hostile_name_does_not_reach_the_terminal(tmp_path: Path) -> None:
    from mcap.writer import Writer

    with (tmp_path / 'a.mcap').open('wb') as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema('std_msgs/msg/\x1b[2JInt8', 'ros2msg', b'int8 data')
        channel = writer.register_channel('/\x1b]0;owned\x07', 'cdr', schema)
        writer.add_message(channel, 1, b'\0\1\0\0\7', 1)
        writer.finish()
    done = subprocess.run(
        [sys.executable, '-c', RUN, 'inspect', str(tmp_path / 'a.mcap')],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert '\x1b' not in done.stdout + done.stderr
    assert '\\x1b]0;owned\\x07' in done.stdout
