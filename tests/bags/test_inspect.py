"""What inspection says about hand-made recordings, and the contract it suggests."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from made_bags import ARRAY, STEP, Bag, make, steady

from qt_ros.bags.episodes import episodes_of
from qt_ros.bags.inspect import gap_count, inspect_bag
from qt_ros.bags.records import TopicInfo
from qt_ros.bags.suggest import suggest_contract
from qt_ros.bags.types import deserialize
from qt_ros.contract import Contract
from qt_ros.errors import BagError


def test_the_keys_that_scripts_rely_on(tmp_path: Path) -> None:
    found = inspect_bag(steady().write(tmp_path / 'bag'))
    assert {'messages', 'duration_s', 'storage', 'topics', 'problems'} <= set(found)
    for entry in found['topics'].values():
        assert set(entry) >= {
            'type', 'count', 'rate_hz', 'header_minus_log_ms', 'gaps', 'backwards', 'zero_stamps',
            'decodes',
        }  # fmt: skip
    # Joints from -40 to 1000 every 20 ms: 53 messages at 50 Hz, stamped when they were logged.
    joints = found['topics']['/joint_states']
    assert (joints['count'], joints['rate_hz'], joints['decodes']) == (53, 50.0, True)
    assert joints['header_minus_log_ms'] == {'min': 0, 'median': 0, 'max': 0}
    assert found['topics']['/gripper']['header_minus_log_ms'] is None
    assert found['duration_s'] == pytest.approx(1.05)
    assert found['cameras'] == {'/front': [16, 16]}
    assert found['joints'] == {'/joint_states': ['a', 'b'], '/arm': ['a']}
    assert found['problems'] == []
    assert json.loads(json.dumps(found)) == found


def test_what_looks_wrong_is_said_in_words(tmp_path: Path) -> None:
    bag = Bag()
    for n in range(50):
        ms = 20 * n + (400 if n >= 25 else 0)  # a gap of 420 ms
        bag.joints(ms - 100 * (n == 30), 1.0, log_ms=ms)  # one stamp 100 ms back: 2 messages
        bag.image(540_000 + 20 * n, 5, log_ms=20 * n)  # 9 minutes ahead
    bag.joints(0, 1.0, stamp_ns=0, log_ms=2000)
    found = inspect_bag(bag.write(tmp_path / 'bag'))
    joints = found['topics']['/joint_states']
    assert (joints['backwards'], joints['zero_stamps']) == (1, 1)
    assert joints['gaps'] == 2  # after 24, and before the last
    said = ' '.join(found['problems'])
    assert '/front: header stamps are 9 min ahead of log time: use clock: log' in said
    assert '/joint_states: stamps go backwards once' in said
    assert '1 of 51 header stamps are zero' in said


def test_a_gap_is_what_the_rest_of_the_stream_is_not() -> None:
    ms = 10**6
    assert gap_count(np.array([0, 10, 20, 500, 510]) * ms) == 1
    assert gap_count(np.array([0, 10, 20, 55]) * ms) == 0  # 35 ms: too short to matter
    assert gap_count(np.array([5, 5, 5])) == 0
    assert gap_count(np.zeros(0, np.int64)) == 0


def test_a_suggestion_converts_the_bag_it_was_made_for(tmp_path: Path) -> None:
    path = steady(3.0).write(tmp_path / 'bag')
    text = suggest_contract(path)
    contract = Contract.parse(text)
    assert [camera.topic for camera in contract.cameras] == ['/front']
    assert contract.state_names == ('joint_states.position.a', 'joint_states.position.b')
    assert contract.episodes.mode == 'events'
    arm, grip = contract.dims
    assert (arm.name, arm.mode) == ('a', 'delta')
    # Commands rise by 0.1 a tick; at 10 Hz each tick holds one of them.
    assert arm.high == pytest.approx(0.1, rel=0.05)
    assert arm.low == -arm.high
    assert (grip.field, grip.mode) == ('0', 'absolute')  # the state does not measure it
    assert (grip.low, grip.high) == (0, 1)
    assert text.count('#') > 8
    (episode,) = episodes_of(path, contract)
    assert len(episode) == 30


def test_no_state_no_suggestion(tmp_path: Path) -> None:
    bag = Bag()
    bag.image(0, 5)
    with pytest.raises(BagError, match='/front'):
        suggest_contract(bag.write(tmp_path / 'bag'))


def test_definitions_that_disagree_do_not_meet() -> None:
    one = TopicInfo('my_msgs/msg/Pair', 1, definition='int32 x\nint32 y')
    two = TopicInfo('my_msgs/msg/Pair', 1, definition='float64 y\nfloat64 x')
    head = b'\x00\x01\x00\x00'
    for _ in range(2):
        first = deserialize(one, head + struct.pack('<ii', 3, 4))
        second = deserialize(two, head + struct.pack('<dd', 0.5, 1.5))
        assert (first.x, first.y, second.x, second.y) == (3, 4, 1.5, 0.5)


def test_a_definition_that_lost_a_field_is_not_believed() -> None:
    from made_bags import STORE

    data = bytes(STORE.serialize_cdr(make(ARRAY, data=[2.5]), ARRAY))
    renamed = TopicInfo(
        ARRAY,
        1,
        definition='std_msgs/MultiArrayLayout layout\nfloat64[] dat4\n',
    )
    assert deserialize(renamed, data).data.tolist() == [2.5]


def test_our_own_messages_need_no_definition() -> None:
    from made_bags import STORE

    data = bytes(STORE.serialize_cdr(make(STEP, step=7), STEP))
    assert deserialize(TopicInfo(STEP, 1), data).step == 7


def test_bytes_behind_a_message_are_put_up_with_but_not_missing_ones() -> None:
    from made_bags import STORE

    data = bytes(STORE.serialize_cdr(make(ARRAY, data=[1.0, 2.0]), ARRAY))
    info = TopicInfo(ARRAY, 1)
    assert deserialize(info, data + b'\x07' * 8).data.tolist() == [1.0, 2.0]
    for wrong in (data[:-1], data[:5], b'', b'\xff' * 40):
        with pytest.raises(BagError, match='does not decode'):
            deserialize(info, wrong)
    with pytest.raises(BagError, match="'protobuf', expected 'cdr'"):
        deserialize(TopicInfo(ARRAY, 1, encoding='protobuf'), data)
    with pytest.raises(BagError, match='unknown'):
        deserialize(TopicInfo('my_msgs/msg/Nothing', 1), data)
