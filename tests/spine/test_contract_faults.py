"""What is said of a contract that is wrong."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from contract_problems import problems_of
from hypothesis import given
from hypothesis import strategies as st
from spine_messages import ROBOTS

from qt_ros.contract import (
    Contract,
)
from qt_ros.errors import ContractError

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
