"""Observations: causal, the same live and offline, honest about age and validity."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spine_messages import ROBOTS, STORE, from_rosbags

from qt_ros.contract import Camera, Contract, StateStream
from qt_ros.observation import ObservationSampler, build_observation, stamp_of
from qt_ros.streams import Sample

MS = 10**6
ARM = Contract.load(ROBOTS / 'block_arm.yaml')
JOINT_STATE = 'sensor_msgs/msg/JointState'


def joint_state(names: list[str], values: list[float], stamp_ns: int = 0) -> Any:
    msg = from_rosbags(JOINT_STATE)
    msg.name, msg.position = names, np.array(values)
    msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    return msg


def jpeg(value: int) -> Any:
    msg = from_rosbags('sensor_msgs/msg/CompressedImage')
    msg.format = 'jpeg'
    msg.data = cv2.imencode('.jpg', np.full((64, 64, 3), value, np.uint8))[1].reshape(-1)
    return msg


def arm_messages(arm: Contract) -> dict[str, Any]:
    names = [f.split('.', 1)[1] for f in arm.state[0].fields]
    return {
        '/front/image/compressed': jpeg(10),
        '/wrist/image/compressed': jpeg(200),
        '/joint_states': joint_state(names[::-1], [*np.arange(7.0)][::-1]),
        '/arm_controller/reference': joint_state(names[:6], [*np.arange(6.0) + 10]),
    }


def test_nothing_until_every_stream_has_something(arm: Contract) -> None:
    sampler = ObservationSampler(arm)
    for i, (topic, msg) in enumerate(arm_messages(arm).items()):
        assert sampler.sample(10**9) is None
        assert len(sampler.missing(10**9)) == 4 - i
        sampler.add(topic, 100 * MS + i, msg)
    assert sampler.missing(10**9) == ()
    assert sampler.missing(100 * MS + 2) == ('reference',)
    assert sampler.sample(100 * MS + 2) is None
    assert sampler.sample(100 * MS + 3) is not None
    with pytest.raises(KeyError):
        sampler.add('/other', 0, None)


def test_an_observation_has_everything_in_contract_order(arm: Contract) -> None:
    sampler = ObservationSampler(arm)
    for i, (topic, msg) in enumerate(arm_messages(arm).items()):
        sampler.add(topic, i * 100 * MS, msg)
    t_ns = 310 * MS
    observation = build_observation(arm, t_ns, sampler.sample(t_ns))
    assert observation.t_ns == t_ns
    expected = [0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 15]
    np.testing.assert_array_equal(observation.state, np.array(expected, np.float32))
    assert observation.state.dtype == np.float32
    assert {n: (i.shape, int(i[0, 0, 0])) for n, i in observation.images.items()} == {
        'front': ((64, 64, 3), 10), 'wrist': ((64, 64, 3), 200)
    }  # fmt: skip
    assert observation.stamps_ns == {
        'front': 0, 'wrist': 100 * MS, 'joints': 200 * MS, 'reference': 300 * MS
    }  # fmt: skip
    assert observation.valid == {
        'front': False, 'wrist': True, 'joints': True, 'reference': True
    }  # fmt: skip
    assert observation.newest_stamp_ns == 300 * MS


def test_offline_ordinals_give_the_same_observation_as_live_messages(arm: Contract) -> None:
    live, offline = ObservationSampler(arm, keep_ns=10**9), ObservationSampler(arm)
    bag: list[tuple[bytes, str]] = []
    for i, (topic, msg) in enumerate(arm_messages(arm).items()):
        live.add(topic, i, msg)
        offline.add(topic, i, len(bag))
        bag.append((bytes(STORE.serialize_cdr(msg, arm.topics[topic])), arm.topics[topic]))
    a = build_observation(arm, 99, live.sample(99))
    b = build_observation(arm, 99, offline.sample(99), lambda i: STORE.deserialize_cdr(*bag[i]))
    np.testing.assert_array_equal(a.state, b.state)
    for name, pixels in a.images.items():
        np.testing.assert_array_equal(pixels, b.images[name])
    assert (a.stamps_ns, a.valid) == (b.stamps_ns, b.valid)


def test_declared_stamps_select_the_very_same_samples(arm: Contract) -> None:
    sampler = ObservationSampler(arm)
    for stamp in range(0, 400, 50):
        for topic, msg in arm_messages(arm).items():
            sampler.add(topic, stamp * MS, (stamp, msg))
    seen = sampler.sample(210 * MS)
    stamps = {name: sample.stamp_ns for name, sample in seen.items()}
    assert sampler.sample_at(stamps, 210 * MS) == seen
    stamps['front'] = 50 * MS  # live, the newer image had not arrived yet
    found = sampler.sample_at(stamps, 310 * MS)
    assert found['front'].item[0] == 50
    assert (found['front'].age_ns, found['front'].valid) == (260 * MS, False)
    assert sampler.sample_at({**stamps, 'front': 51 * MS}) is None
    assert sampler.sample_at({'front': 50 * MS}) is None


@given(st.lists(st.integers(0, 60), min_size=1), st.integers(0, 60))
def test_samples_are_never_from_the_future(stamps: list[int], t: int) -> None:
    state = StateStream('s', '/s', 'std_msgs/msg/Float64', ('data',), 1e-8)
    sampler = ObservationSampler(dataclasses.replace(ARM, cameras=(), state=(state,)))
    for stamp in stamps:
        sampler.add('/s', stamp, stamp)
    sample = sampler.sample(t)
    past = [stamp for stamp in stamps if stamp <= t]
    if not past:
        assert sample is None
    else:
        newest = max(past)
        assert sample == {'s': Sample(newest, newest, t - newest, t - newest <= 10)}


def test_one_topic_may_feed_several_streams(arm: Contract) -> None:
    contract = dataclasses.replace(
        arm,
        cameras=(
            Camera('big', '/c', 'sensor_msgs/msg/CompressedImage', (32, 32)),
            Camera('small', '/c', 'sensor_msgs/msg/CompressedImage', (8, 16)),
        ),
        state=(
            StateStream('a', '/j', JOINT_STATE, ('position.x',)),
            StateStream('b', '/j', JOINT_STATE, ('position.y', 'position.x')),
        ),
    )
    sampler = ObservationSampler(contract)
    sampler.add('/c', 5, jpeg(7))
    sampler.add('/j', 6, joint_state(['x', 'y'], [1.0, 2.0]))
    observation = build_observation(contract, 6, sampler.sample(6))
    assert observation.state.tolist() == [1.0, 2.0, 1.0]
    assert [i.shape for i in observation.images.values()] == [(32, 32, 3), (8, 16, 3)]


def test_joint_states_in_parts_are_passed_over_and_counted(arm: Contract) -> None:
    state = (
        StateStream('arm', '/j', JOINT_STATE, ('position.x',)),
        StateStream('grip', '/j', JOINT_STATE, ('position.g',)),
    )
    contract = dataclasses.replace(arm, cameras=(), state=state)
    sampler = ObservationSampler(contract)
    for stamp in range(10):
        msg = joint_state(['x'], [stamp]) if stamp % 2 else joint_state(['g'], [-stamp])
        sampler.add('/j', stamp, msg, message=msg)
    observation = build_observation(contract, 9, sampler.sample(9))
    assert observation.state.tolist() == [9.0, -8.0]
    assert sampler.partial == {'arm': 5, 'grip': 5}


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_make_their_stream_invalid(
    arm: Contract, value: float
) -> None:
    state = (StateStream('s', '/j', JOINT_STATE, ('position.x',)),)
    contract = dataclasses.replace(arm, cameras=(), state=state)
    samples = {'s': Sample(joint_state(['x'], [value]), 5, 0, True)}
    observation = build_observation(contract, 5, samples)
    assert observation.valid == {'s': False}
    assert not np.isfinite(observation.state).any()


def test_a_contract_without_cameras() -> None:
    contract = Contract.load(ROBOTS / 'abitobot.yaml')
    names = [f.split('.', 1)[1] for f in contract.state[0].fields]
    samples = {'joints': Sample(joint_state(names, [*range(5)]), 5, 0, True)}
    observation = build_observation(contract, 5, samples)
    assert observation.images == {}
    assert observation.state.tolist() == [0, 1, 2, 3, 4]


def test_one_clock_for_all(arm: Contract) -> None:
    stamped = joint_state([], [], 1_500_000_000)
    log_arm = dataclasses.replace(arm, clock='log')
    assert stamp_of(arm, stamped, JOINT_STATE, 7) == 1_500_000_000
    assert stamp_of(log_arm, stamped, JOINT_STATE, 7) == 7
    assert stamp_of(arm, joint_state([], [], 0), JOINT_STATE, 7) == 7
    array = from_rosbags('std_msgs/msg/Float64MultiArray')
    assert stamp_of(arm, array, 'std_msgs/msg/Float64MultiArray', 7) == 7


@pytest.mark.bags
def test_the_shipped_contract_reads_the_real_recording(real_bags: Path) -> None:
    from mcap.reader import make_reader

    contract = Contract.load(ROBOTS / 'abitobot.yaml')
    sampler = ObservationSampler(contract)
    (path,) = (real_bags / 'abitobot').glob('*.mcap')
    with path.open('rb') as file:
        for _, channel, record in make_reader(file).iter_messages(topics=['/joint_states']):
            msg = STORE.deserialize_cdr(record.data, JOINT_STATE)
            stamp_ns = stamp_of(contract, msg, JOINT_STATE, record.log_time)
            sampler.add(channel.topic, stamp_ns, msg, message=msg)
    stream = sampler.streams['joints']
    assert (len(stream), stream.backwards, stream.duplicates) == (1866, 0, 0)
    assert sampler.partial == {}
    ticks = [contract.tick_ns(stream.first_ns, k) for k in range(933)]
    rows = [build_observation(contract, t, sampler.sample(t)) for t in ticks]
    assert all(row.valid['joints'] for row in rows)
    state = np.stack([row.state for row in rows])
    moved = np.diff(state, axis=0)
    assert state.shape == (933, 5)
    assert np.ptp(state, axis=0).min() > 0.2  # every joint moves
    for i, dim in enumerate(contract.action_dims):  # no action is cut by its range
        values = moved[:, i] if dim.mode == 'delta' else state[:, i]
        assert dim.low <= values.min()
        assert values.max() <= dim.high
