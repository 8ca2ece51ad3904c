"""Log times, message definitions, plans and processes, without a robot."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip('rclpy')

from ament_index_python.packages import get_package_share_directory
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from qt_ros.errors import QtRosError
from qt_ros.nodes.attempts import attempts, outcome_of
from qt_ros.nodes.definitions import message_definition
from qt_ros.nodes.log_clock import Arrival, SimLogClock, SystemLogClock
from qt_ros.processes import NodeProcess, free_domain, private_environment


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=50, unique=True),
    st.integers(-10, 10**6 + 10),
    st.randoms(),
)
def test_log_time_is_the_newest_clock_published_before(sources, source, random) -> None:
    clock = SimLogClock()
    shuffled = list(sources)
    random.shuffle(shuffled)
    for published in shuffled:
        clock.add(published, 7 * published)
    before = [published for published in sources if published <= source]
    expected = 7 * (max(before) if before else min(sources))
    assert clock.log_ns(Arrival(source, 0, time.monotonic()), lambda: True) == expected


def test_log_time_waits_for_a_clock_that_may_be_missing() -> None:
    clock = SimLogClock()
    clock.add(10, 1000)
    timer = threading.Timer(0.05, lambda: (clock.add(20, 2000), clock.add(30, 3000)))
    timer.start()
    assert clock.log_ns(Arrival(25, 0, time.monotonic()), lambda: False) == 2000
    assert clock.log_ns(Arrival(99, 0, time.monotonic() - 9), lambda: False) == 3000
    assert SimLogClock().log_ns(Arrival(1, 1, 0.0), lambda: True) == 0
    assert SystemLogClock().log_ns(Arrival(1, 2, 0.0), lambda: False) == 2


@pytest.mark.parametrize(
    'name',
    [
        'sensor_msgs/msg/JointState',
        'sensor_msgs/msg/CompressedImage',
        'trajectory_msgs/msg/JointTrajectory',
        'std_msgs/msg/Float64MultiArray',
        'geometry_msgs/msg/PoseStamped',
        'nav_msgs/msg/OccupancyGrid',
        'q_transformer_ros/msg/PolicyStep',
    ],
)
def test_definitions_agree_with_the_installed_ones(name: str) -> None:
    definition = message_definition(name)
    package, _, short = name.split('/')
    described = Path(get_package_share_directory(package)) / 'msg' / f'{short}.json'
    if described.is_file():  # from Iron on
        hashes = {h['type_name']: h['hash_string'] for h in
                  json.loads(described.read_text())['type_hashes']}  # fmt: skip
        assert definition.digest == hashes[name]
    store = get_typestore(Stores.EMPTY)  # whoever reads the bag has nothing but the text
    store.register(get_types_from_msg(definition.text, name))
    assert name in store.types


def test_definitions_that_are_not_installed_are_named() -> None:
    with pytest.raises(QtRosError, match='control_things is not installed'):
        message_definition('control_things/msg/Jog')
    with pytest.raises(QtRosError, match='cannot be recorded'):
        message_definition('std_msgs/msg/Nothing')


def test_plans() -> None:
    made = attempts('expert:2, noisy:1,random:0', ['Push the red block to the left.'], 5)
    assert [(a.mode, a.seed) for a in made] == [('expert', 5), ('expert', 6), ('noisy', 7)]
    assert made[0].instruction == 'push the red block to the left'
    with pytest.raises(QtRosError) as error:
        attempts('expret:2,noisy', ['push the red block to the left'], 0)
    assert len(error.value.problems) == 2
    with pytest.raises(QtRosError, match='at least one'):
        attempts('expert:1', [], 0)
    assert outcome_of('random', False) == 'timeout'
    assert outcome_of('noisy', False) == 'failure'
    assert outcome_of('random', True) == 'success'


def test_a_node_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    node = NodeProcess('nonsense', log=tmp_path / 'logs' / 'nonsense.log')
    with pytest.raises(QtRosError, match='No module named'):
        node.wait_for('ready', 30.0)
    assert node.stop() == 1


def test_wrong_parameters_are_reported_once_and_clearly(tmp_path: Path, ros_domain: int) -> None:
    node = NodeProcess('teleop', {'plan': 'expret:1'}, log=tmp_path / 'teleop.log')
    error = node.wait_for('error', 30.0)
    assert 'allowed: expert, noisy, random' in error['message']
    assert node.wait(10.0) == 1
    assert 'Traceback' not in node.tail()
    node.stop()


def test_private_environment_respects_what_is_set() -> None:
    assert private_environment({'ROS_DOMAIN_ID': '5'})['ROS_DOMAIN_ID'] == '5'
    assert 0 < int(private_environment({})['ROS_DOMAIN_ID']) < 102


def test_a_domain_in_use_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    import rclpy
    from rclpy.context import Context

    taken = free_domain()
    context = Context()
    rclpy.init(context=context, domain_id=taken)
    node = rclpy.create_node('tenant', context=context)
    try:
        monkeypatch.setattr('qt_ros.processes.DOMAINS', [taken])
        with pytest.raises(QtRosError, match='in use'):
            free_domain()
    finally:
        node.destroy_node()
        context.try_shutdown()
