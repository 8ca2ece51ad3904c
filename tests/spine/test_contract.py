"""What a contract says."""

from __future__ import annotations

import copy
import dataclasses
from fractions import Fraction

import pytest
from contract_problems import problems_of
from hypothesis import given
from hypothesis import strategies as st
from spine_messages import ROBOTS

from qt_ros.contract import (
    ActionDim,
    ActionTopic,
    Camera,
    Contract,
    Episodes,
    JointLimit,
    Safety,
    StateStream,
)


def test_the_arm_contract_says_what_the_demo_relies_on(arm: Contract) -> None:
    assert arm.streams == ('front', 'wrist', 'joints', 'reference')
    assert len(arm.state_names) == 13
    assert arm.state_names[6] == 'joints.position.gripper'
    assert [dim.name for dim in arm.dims] == [
        'waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate', 'gripper'
    ]  # fmt: skip
    assert set(arm.safety.limits) == {dim.name for dim in arm.dims}
    assert arm.topics['/episode/events'] == 'q_transformer_ros/msg/EpisodeEvent'
    assert len(arm.topics) == 7
    # Bases are measured positions, not the controller's reference.
    assert [arm.base_index(dim) for dim in arm.action_dims] == [0, 1, 2, 3, 4, 5, 6]


def test_terminate_is_one_more_dimension_at_the_end(arm: Contract) -> None:
    with_end = dataclasses.replace(arm, terminate_bins=2)
    assert with_end.dims[-1] == ActionDim('terminate', 'terminate', 'absolute', 0.0, 1.0, 2)
    assert with_end.action_dims == arm.dims
    assert Contract.parse(with_end.to_yaml()) == with_end
    assert with_end.hash != arm.hash


FIRST = """
name: first
rate_hz: 10
clock: header
cameras:
  top: {topic: /top, type: sensor_msgs/msg/Image, size: [64, 64]}
state:
  - {name: arm, topic: /arm, type: sensor_msgs/msg/JointState, fields: [position.a]}
action:
  - topic: /a
    type: std_msgs/msg/Float64
    dims: [{name: a, field: data, low: 0, high: 1, bins: 3}]
"""


def test_contracts_from_before_the_newer_keys_keep_their_hash() -> None:
    """Datasets and checkpoints carry the hash; what is not written must not change it."""
    expected = '2a3c9d4ceb8576f78866f101ae8020922097aa8701f9d09983c2b4ea2fc8b580'
    assert Contract.parse(FIRST).hash == expected


def test_crop_and_depth_range_are_part_of_the_contract(arm: Contract, arm_text: str) -> None:
    keys = 'size: [64, 64], crop: [8, 0, 48, 64], depth_m: [0.2, 2.2], max'
    contract = Contract.parse(arm_text.replace('size: [64, 64], max', keys, 1))
    assert contract.cameras[0].crop == (8, 0, 48, 64)
    assert contract.cameras[0].depth_m == (0.2, 2.2)
    assert contract.cameras[1] == arm.cameras[1]
    assert Contract.parse(contract.to_yaml()) == contract
    hashes = {
        arm.hash,
        contract.hash,
        Contract.parse(arm_text.replace('size: [64, 64], max', keys.replace('8,', '9,'), 1)).hash,
        Contract.parse(arm_text.replace('size: [64, 64], max', keys.replace('2.2', '2'), 1)).hash,
    }
    assert len(hashes) == 4


BY_INDEX = """
name: gripper
rate_hz: 10
clock: header
state:
  - {name: arm, topic: /arm, type: sensor_msgs/msg/JointState, fields: [position.a]}
  - {name: grip, topic: /grip, type: sensor_msgs/msg/JointState, fields: [position.0],
     by_index: true}
action:
  - topic: /grip_command
    type: sensor_msgs/msg/JointState
    by_index: true
    dims:
      - {name: left, field: position.0, low: 0, high: 1, bins: 3}
      - {name: right, field: position.1, low: 0, high: 1, bins: 3}
"""


def test_commands_by_index() -> None:
    contract = Contract.parse(BY_INDEX)
    assert contract.action[0].by_index
    assert Contract.parse(contract.to_yaml()) == contract
    named = BY_INDEX.replace('    by_index: true\n', '')
    assert Contract.parse(named).hash != contract.hash
    # An index says nothing about which joint: what measures it must be named.
    assert contract.base_index(contract.action_dims[0]) is None
    based = BY_INDEX.replace(
        'field: position.0, low', 'field: position.0, base: grip.position.0, low'
    )
    contract = Contract.parse(based)
    assert contract.base_index(contract.action_dims[0]) == 1


@pytest.mark.parametrize(
    ('right', 'wrong', 'expected'),
    [
        ('field: position.1', 'field: position.left', 'allowed: position.INDEX|by_index is true'),
        ('field: position.1', 'field: position.2', "missing: ['position.1']"),
        ('field: position.1', 'field: velocity.1', "missing: ['velocity.0']"),
        ('    by_index: true', '    by_index: 1', 'by_index: needs true or false'),
        ('field: position.0, low', 'field: position.0, mode: delta, low',
         'position.0 is not in the state|with "base" (commands by index need it)'),
        ('  - topic: /grip_command\n    type: sensor_msgs/msg/JointState', '  - from: next_state',
         'by_index: is not used with "from: next_state"'),
    ],
)  # fmt: skip
def test_faults_of_commands_by_index(right: str, wrong: str, expected: str) -> None:
    assert right in BY_INDEX
    problems = problems_of(BY_INDEX.replace(right, wrong, 1))
    assert any(all(part in p for part in expected.split('|')) for p in problems), problems


@pytest.mark.parametrize('name', ['block_arm', 'abitobot'])
def test_shipped_contracts_survive_the_round_trip(name: str) -> None:
    contract = Contract.load(ROBOTS / f'{name}.yaml')
    again = Contract.parse(contract.to_yaml())
    assert again == contract
    assert again.hash == contract.hash
    assert copy.deepcopy(contract) == contract


def test_the_hash_ignores_comments_and_layout_but_not_order(arm: Contract, arm_text: str) -> None:
    assert Contract.parse('# hello\n' + arm_text.replace('10.0', '1.0e+1')).hash == arm.hash
    swapped = dataclasses.replace(arm, cameras=arm.cameras[::-1])
    assert swapped.hash != arm.hash
    assert Contract.parse(swapped.to_yaml()).hash == swapped.hash


@given(st.floats(0.01, 1000.0), st.integers(0, 10**15), st.integers(0, 10**6))
def test_ticks_never_drift(rate_hz: float, t0_ns: int, k: int) -> None:
    contract = Contract('c', rate_hz, 'log', (), (), (), None, Episodes(), Safety())
    exact = t0_ns + Fraction(k * 10**9) / Fraction(rate_hz)
    assert abs(contract.tick_ns(t0_ns, k) - exact) <= Fraction(1, 2)
    assert contract.tick_ns(t0_ns, k + 1) > contract.tick_ns(t0_ns, k)
    assert abs(contract.period_ns - Fraction(10**9) / Fraction(rate_hz)) <= Fraction(1, 2)


def test_ticks_at_30_hz() -> None:
    contract = Contract('c', 30.0, 'log', (), (), (), None, Episodes(), Safety())
    assert [contract.tick_ns(0, k) for k in range(4)] == [0, 33333333, 66666667, 100000000]


NAMES = st.from_regex(r'[A-Za-z_][A-Za-z0-9_]{0,6}', fullmatch=True).filter(
    lambda name: name.lower() != 'terminate'
)
JOINTS = st.text(
    st.characters(blacklist_categories=('Cs',), blacklist_characters='\x00'),
    min_size=1,
    max_size=6,
)
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
POSITIVE = st.floats(1e-6, 1e6)


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    streams = draw(st.lists(NAMES, min_size=2, max_size=4, unique_by=str.lower))
    cameras = tuple(
        Camera(n, f'/cam/{n}', 'sensor_msgs/msg/Image', (draw(st.integers(8, 99)), 8),
               draw(POSITIVE), draw(st.none() | st.tuples(*[st.integers(1, 999)] * 4)),
               draw(st.none() | st.tuples(st.floats(0.0, 0.9), st.floats(1.0, 99.0))))
        for n in streams[1:]
    )  # fmt: skip
    joints = draw(st.lists(JOINTS, min_size=1, max_size=3, unique=True))
    fields = tuple(f'position.{joint}' for joint in joints)
    state = StateStream(streams[0], '/js', 'sensor_msgs/msg/JointState', fields, draw(POSITIVE))
    names = draw(st.lists(NAMES, min_size=len(joints), max_size=len(joints), unique_by=str.lower))
    dims = []
    for name, joint in zip(names, joints, strict=True):
        low = draw(NUMBERS)
        mode = draw(st.sampled_from(['absolute', 'delta']))
        high = low + draw(st.floats(0.1, 10.0))
        dims.append(ActionDim(name, joint, mode, low, high, draw(st.integers(2, 65535)), 'rad'))
    action = ActionTopic('/t', 'trajectory_msgs/msg/JointTrajectory', 'command', tuple(dims))
    limits = {
        n: JointLimit(None, draw(POSITIVE), draw(POSITIVE), draw(st.none() | POSITIVE))
        for n in names[:1]
    }
    start = {fields[0]: (-1.0, draw(POSITIVE))} if draw(st.booleans()) else {}
    episodes = draw(
        st.sampled_from([Episodes('events', topic='/e/v'), Episodes('one_per_bag'),
                         Episodes('time_gap', gap_s=2.0)])
    )  # fmt: skip
    return Contract(
        draw(NAMES), draw(st.floats(0.01, 1000.0)), draw(st.sampled_from(['header', 'log'])),
        cameras, (state,), (action,), draw(st.none() | st.integers(2, 9)), episodes,
        Safety(limits, draw(POSITIVE), 'hold', draw(st.floats(0.0, 60.0)), start), draw(POSITIVE),
    )  # fmt: skip


@given(contracts())
def test_any_contract_survives_the_round_trip(contract: Contract) -> None:
    again = Contract.parse(contract.to_yaml())
    assert again == contract
    assert again.hash == contract.hash
    assert Contract.parse(again.to_yaml()).to_yaml() == again.to_yaml()


def test_equal_contracts_hash_alike_however_their_numbers_are_written(arm: Contract) -> None:
    safety = dataclasses.replace(arm.safety, limits={})
    one = dataclasses.replace(arm, rate_hz=10, max_gap_s=1, safety=safety)
    two = dataclasses.replace(arm, rate_hz=10.0, max_gap_s=1.0, safety=safety)
    assert one == two
    assert one.hash == two.hash
