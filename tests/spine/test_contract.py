"""What a contract says, and what it says when it is wrong."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest
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
from qt_ros.errors import ContractError


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(ContractError) as error:
        Contract.parse(text, origin='arm.yaml')
    return error.value.problems


# --- what it says -----------------------------------------------------------------------------


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


# --- what it says when it is wrong ------------------------------------------------------------

WRONG = [
    ('rate_hz: 10.0', 'rate: 10.0', '3: rate: unknown key|known keys: name, rate_hz|mean rate_hz'),
    ('rate_hz: 10.0', 'rate_hz: 0', '3: rate_hz:|out of range|>= 0.001'),
    ('rate_hz: 10.0', 'rate_hz: .inf', '3: rate_hz:|out of range'),
    ('rate_hz: 10.0', 'rate_hz: true', '3: rate_hz:|not a number'),
    ('rate_hz: 10.0', 'rate_hz:', '3: rate_hz: is empty'),
    ('rate_hz: 10.0', 'rate_hz: 10.0\nrate_hz: 20.0', 'rate_hz is given twice (first in line 3'),
    ('clock: header', 'clock: headr', '4: clock:|allowed: header, log; did you mean header?'),
    ('name: block_arm', 'name: ../evil', "2: name: name '../evil' is not safe in file names"),
    ('  front: {', '  "front cam": {', '8: cameras.front cam:|not safe in file names'),
    ('  wrist: {', '  FRONT: {', "9: cameras.FRONT: stream 'FRONT' exists already (line 8)"),
    ('topic: /front/', 'topic: front/', 'cameras.front.topic:|absolute topic|mean /front/image'),
    ('topic: /joint_states', 'topic: /joint states', 'state[0].topic:|absolute topic name'),
    ('topic: /joint_states', 'topic: /joint_states/', 'state[0].topic:|absolute topic name'),
    ('size: [64, 64], max', 'size: [64], max', 'cameras.front.size: needs a list of two'),
    ('size: [64, 64], max', 'size: [0, 64], max', "size[0]: '0' is out of range; allowed: 8"),
    ('max_age_s: 0.25', 'max_age_s: -1', 'cameras.front.max_age_s:|> 0'),
    ('size: [64, 64], max', 'size: [64, 64], crop: [0, 0, 8], max', 'crop: needs at least 4'),
    ('size: [64, 64], max', 'size: [64, 64], crop: [0, 0, 8, 8, 8], max',
     'front.crop: needs four whole numbers: [top, left, height, width]'),
    ('size: [64, 64], max', 'size: [64, 64], crop: [-1, 0, 8, 8], max',
     "front.crop[0]: '-1' is out of range; allowed: 0 to 65535"),
    ('size: [64, 64], max', 'size: [64, 64], crop: [0, 0, 0, 8], max',
     "front.crop[2]: '0' is out of range; allowed: 1 to 65536"),
    ('size: [64, 64], max', 'size: [64, 64], crop: all, max', 'front.crop: needs a list'),
    ('size: [64, 64], max', 'size: [64, 64], depth_m: 2, max', 'depth_m: needs a list of two num'),
    ('size: [64, 64], max', 'size: [64, 64], depth_m: [2, 1], max',
     'front.depth_m: near 2 must be smaller than far 1'),
    ('size: [64, 64], max', 'size: [64, 64], depth_m: [-1, 1], max',
     "front.depth_m[0]: '-1' is out of range; allowed: a finite number >= 0"),
    ('size: [64, 64], max', 'size: [64, 64], depth_m: [0, .inf], max', 'depth_m[1]:|> 0'),
    ('size: [64, 64], max', 'size: [64, 64], crops: [0, 0, 8, 8], max', 'mean crop?'),
    ('type: std_msgs/msg/Float64MultiArray',
     'type: std_msgs/msg/Float64MultiArray\n    by_index: true',
     'action[1].by_index: is for sensor_msgs/msg/JointState only|leave it out for std_msgs'),
    ('type: sensor_msgs/msg/JointState', 'type: std_msgs/msg/String',
     'state[0].type: a String carries text, no number|START event or from the CSV of --labels'),
    ('type: sensor_msgs/msg/JointState', 'type: sensor_msgs/msg/Image',
     'state[0].type: an image is no number; list it under "cameras"'),
    ('type: std_msgs/msg/Float64MultiArray', 'type: std_msgs/msg/String',
     'action[1].type: a String carries text'),
    ('sensor_msgs/msg/CompressedImage', 'std_msgs/msg/String', 'type: a String carries text'),
    ('sensor_msgs/msg/CompressedImage', 'sensor_msgs/CompressedImage',
     'cameras.front.type: unknown image message type|allowed: sensor_msgs/msg/Image|mean sensor'),
    ('type: sensor_msgs/msg/JointState', 'type: nav_msgs/msg/Odometry',
     'state[0].type: unknown state message type|geometry_msgs/msg/Twist, '),
    ('position.elbow', 'positions.elbow', 'state[0].fields[2]:|allowed: position.JOINT'),
    ('position.elbow', 'position.waist', 'state[0].fields[2]: field position.waist is listed tw'),
    ('name: reference', 'name: joints', "stream 'joints' exists already"),
    ('low: -0.05', 'low: 0.05', 'action[0].dims[3].low: low 0.05 must be smaller than high 0.05'),
    ('bins: 2,', 'bins: 1,', "action[1].dims[0].bins: '1' is out of range; allowed: 2 to 65535"),
    ('bins: 2,', 'bins: 2.5,', "action[1].dims[0].bins: '2.5' is not a whole number"),
    ('mode: absolute', 'mode: abs', 'mode:|allowed: absolute, delta, velocity'),
    ('name: shoulder,', 'name: waist,', "action[0].dims[1].name: dimension 'waist' exists alre"),
    ('name: shoulder,', 'name: terminate,', "'terminate' is kept for the extra dimension"),
    ('field: shoulder,', 'field: waist,', "action[0].dims[1]: field 'waist' is commanded twice"),
    ('field: "0"', 'field: "1"', "action[1].dims:|missing: ['0']"),
    ('field: "0"', 'field: grip', "field: 'grip' is not a field of std_msgs/msg/Float64MultiArr"),
    ('field: waist, mode: delta', 'field: waist, mode: velocity', 'carries positions'),
    ('field: elbow, mode', 'field: elbo, mode',
     'dims[2]: a delta starts from the measured value|position.elbo is not|mean position.elbow'),
    ('base: position.gripper', 'base: position.griper', "base 'position.griper' is not in"),
    ('  - topic: /gripper_controller/commands', '  - topic: /arm_controller/joint_trajectory',
     'has type std_msgs/msg/Float64MultiArray here and trajectory_msgs'),
    ('    waist: {pos', '    wiast: {pos', 'safety.limits.wiast:|the dimensions are waist, sho|'
     'did you mean waist?'),
    ('position: [-2.6, 2.6]', 'position: [2.6, -2.6]', 'limits.waist.position: low 2.6 must be'),
    ('velocity: 0.75', 'velocity: 0', 'safety.limits.forearm_roll.velocity:|> 0'),
    ('gripper: {position: [0.0, 1.0]}', 'gripper: {position: [2.0, 3.0]}', 'shares nothing with'),
    ('gripper: {position: [0.0, 1.0]}', 'gripper: {}', 'safety.limits.gripper: limits nothing'),
    ('fallback: hold', 'fallback: stop', 'safety.fallback:|allowed: hold, zero, none'),
    ('fallback: hold', 'fallback: zero', 'safety.fallback: zero would send waist to position 0'),
    ('watchdog_s: 0.3', 'watchdog_s: soon', "safety.watchdog_s: 'soon' is not a number"),
    ('velocity: 0.75', 'acceleration: 0', 'safety.limits.forearm_roll.acceleration:|> 0'),
    ('watchdog_s: 0.3', 'ramp_s: -1', 'safety.ramp_s:|>= 0'),
    ('watchdog_s: 0.3', 'start: {position.waist: [1, 0]}', 'safety.start.position.waist: low 1'),
    ('watchdog_s: 0.3', 'start: {position.wiast: [0, 1]}',
     "safety.start.position.wiast: 'position.wiast' is not in the state|did you mean position.w"),
    ('{events: /episode/events}', 'time_gap', 'episodes:|{time_gap: SECONDS}'),
    ('{events: /episode/events}', '{time_gap: 0}', 'episodes.time_gap:|> 0'),
    ('{events: /episode/events}', '{time_gap: 1, events: /e}', 'episodes: needs exactly one way'),
    ('{events: /episode/events}', '{events: /joint_states}', 'has type q_transformer_ros'),
    ('episodes: {', 'terminate: {bins: 1}\nepisodes: {', "terminate.bins: '1' is out of range"),
    ('episodes: {', 'terminate: true\nepisodes: {', 'terminate: needs "key: value" entries'),
]  # fmt: skip


@pytest.mark.parametrize(('right', 'wrong', 'expected'), WRONG)
def test_each_fault_is_named(arm_text: str, right: str, wrong: str, expected: str) -> None:
    assert right in arm_text
    problems = problems_of(arm_text.replace(right, wrong, 1))
    assert all(problem.startswith('arm.yaml:') for problem in problems)
    matching = [p for p in problems if all(part in p for part in expected.split('|'))]
    assert matching, '\n'.join(problems)


def test_all_faults_are_reported_at_once_in_order_of_lines(arm_text: str) -> None:
    text = arm_text.replace('clock: header', 'clock: x').replace('bins: 2,', 'bins: 1,')
    text = text.replace('fallback: hold', 'fallback: y').replace('low: -0.05', 'low: 9')
    lines = [int(problem.split(':')[1]) for problem in problems_of(text)]
    assert len(lines) == 4
    assert lines == sorted(lines)


@pytest.mark.parametrize('mode', ['command', 'next_state'])
def test_action_sources(arm_text: str, mode: str) -> None:
    head, _, tail = arm_text.partition('action:')
    rest = tail[tail.index('episodes:') : tail.index('safety:')]
    dims = 'dims: [{name: w, field: position.waist, mode: delta, low: -1, high: 1, bins: 3}]'
    text = f'{head}action:\n  - from: {mode}\n    {dims}\n{rest}'
    if mode == 'next_state':
        contract = Contract.parse(text)
        assert contract.action[0].topic is None
        assert contract.base_index(contract.action_dims[0]) == 0
        wrong = text.replace('field: position.waist', 'field: position.waste')
        assert 'did you mean position.waist?' in problems_of(wrong)[0]
        assert 'leave it out' in problems_of(text.replace('dims:', 'topic: /t\n    dims:'))[0]
    else:
        assert len(problems_of(text)) == 2  # topic and type


def test_joint_state_commands_fill_whole_arrays(arm_text: str) -> None:
    text = arm_text.replace('trajectory_msgs/msg/JointTrajectory', 'sensor_msgs/msg/JointState')
    for joint in ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle'):
        text = text.replace(f'field: {joint},', f'field: position.{joint},')
    text = text.replace('field: wrist_rotate,', 'field: effort.wrist_rotate,')
    (problem,) = (p for p in problems_of(text) if 'missing' in p)
    assert 'position.wrist_rotate' in problem


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('', 'the file is empty'),
        ('# only a comment\n', 'the file is empty'),
        ('name: [a\n', ':2: not valid YAML'),
        ('name: \x00', 'not valid YAML'),
        ('- a\n- b\n', 'needs "key: value" entries'),
        ('just words', 'needs "key: value" entries'),
        ('{[a]: b}', 'keys must be plain text'),
        ('&a {name: *a}', 'name: needs a text'),
        ('!!python/object/apply:os.system ["true"]', 'needs "key: value" entries'),
        ('a: 1\n---\nb: 2\n', 'not valid YAML'),
    ],
)
def test_what_is_no_contract_at_all(text: str, expected: str) -> None:
    assert any(expected in problem for problem in problems_of(text))


@given(st.text(max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    with pytest.raises(ContractError):
        Contract.parse(text)


@given(st.data())
def test_no_damage_to_a_good_contract_raises_anything_else(data: st.DataObject) -> None:
    lines = (ROBOTS / 'block_arm.yaml').read_text().splitlines()
    i = data.draw(st.integers(0, len(lines) - 1))
    cut = data.draw(st.integers(0, len(lines[i])))
    junk = data.draw(
        st.sampled_from(['', '[]', '{}', 'null', ': x', '- ', '"', '1e400', '~', '&a'])
    )
    lines[i] = lines[i][:cut] + junk
    with contextlib.suppress(ContractError):
        contract = Contract.parse('\n'.join(lines))
        text = contract.to_yaml()
        again = Contract.parse(text)
        assert again == contract


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match='cannot read the contract'):
        Contract.load(tmp_path / 'none.yaml')
    with pytest.raises(ContractError, match='cannot read the contract'):
        Contract.load(tmp_path)
    (tmp_path / 'x.yaml').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ContractError, match='UTF-8'):
        Contract.load(tmp_path / 'x.yaml')


def test_quoted_numbers_and_odd_joint_names(arm_text: str) -> None:
    assert Contract.parse(arm_text.replace('field: "0"', 'field: 0')) == Contract.parse(arm_text)
    odd = arm_text.replace('waist', '"left/arm.waist:1"').replace(
        '{name: "left/arm.waist:1"', '{name: w'
    )
    odd = odd.replace('position."left/arm.waist:1"', '"position.left/arm.waist:1"')
    odd = odd.replace('    "left/arm.waist:1": {pos', '    w: {pos')
    contract = Contract.parse(odd)
    assert contract.action_dims[0].field == 'left/arm.waist:1'
    assert contract.base_index(contract.action_dims[0]) == 0
    assert Contract.parse(contract.to_yaml()) == contract
