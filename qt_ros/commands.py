"""Action vectors to command messages and back.

A *target* is the value as it stands in the command message; an *action* is what the policy chose.
Vectors are (A,) float64 in the order of `contract.action_dims`, without terminate.

    delta               action = target - previous target     target = previous target + action
    absolute, velocity  action = target                        target = action

At the first tick of an episode nothing was commanded yet: a delta starts from the measured value
(`initial_targets`). The live node and the converter share this rule, so actions read back from a
recording of the policy are those that the policy sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qt_ros import message_types as types
from qt_ros.contract import ActionTopic, Contract
from qt_ros.decoding import LARGEST, read_fields
from qt_ros.errors import QtRosError

Vector = NDArray[np.float64]
NewMessage = Callable[[str], Any]  # message type -> an empty message of it

_TRAJECTORY_POINT = 'trajectory_msgs/msg/JointTrajectoryPoint'
_JOG_ARRAYS = {'displacement': 'displacements', 'velocity': 'velocities'}


class CommandError(QtRosError):
    """Targets that must not be sent."""


class HasState(Protocol):
    """Anything with the state vector of an observation."""

    @property
    def state(self) -> NDArray[np.float32]:
        """(S,) in the order of contract.state_names."""


def decode_command(action_topic: ActionTopic, msg: Any) -> Vector:
    """Return the target of every dimension of this topic, (n,); NaN where the message lacks it.

    CommandError: a value is infinite, or too large to be one.
    """
    if action_topic.type is None:
        raise CommandError('a next_state action has no command message to decode')
    fields = [dim.field for dim in action_topic.dims]
    values = read_fields(msg, action_topic.type, fields, action_topic.by_index)
    targets = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    if (np.abs(targets) > LARGEST).any():
        raise CommandError(f'{action_topic.topic}: {_too_large(fields, targets)}')
    return targets


def _too_large(fields: Sequence[str], targets: Vector) -> str:
    wrong = [f'{f} {v:g}' for f, v in zip(fields, targets, strict=True) if abs(v) > LARGEST]
    return f'a command of {", ".join(wrong)} cannot be meant'


def action_from_targets(contract: Contract, target: Vector, previous: Vector) -> Vector:
    """Return the action (A,) that led from the `previous` targets to `target`."""
    target, previous = _vectors(contract, target, previous)
    return np.where(_is_delta(contract), target - previous, target)


def targets_from_action(contract: Contract, action: Vector, previous: Vector) -> Vector:
    """Return the targets (A,) to command for `action` after the `previous` targets."""
    action, previous = _vectors(contract, action, previous)
    return np.where(_is_delta(contract), previous + action, action)


def initial_targets(contract: Contract, observation: HasState) -> Vector:
    """Return what counts as commanded before the first command of an episode, (A,).

    The measured value (`Contract.base_index`) for delta and absolute dimensions, NaN for an
    absolute one that the state does not measure, 0 for velocities: nothing moves on command yet.
    """
    targets = np.full(len(contract.action_dims), np.nan)
    for i, dim in enumerate(contract.action_dims):
        index = contract.base_index(dim)
        if dim.mode == 'velocity':
            targets[i] = 0.0
        elif index is not None:
            targets[i] = float(observation.state[index])
    return targets


def encode_commands(
    contract: Contract,
    targets: Vector,
    stamp_ns: int,
    new_message: NewMessage,
    duration_s: float,
) -> list[tuple[str, Any]]:
    """Return [(topic, message)] that carry `targets` (A,), one per command topic.

    Every message is complete before the first is handed out, so a robot never gets half an action.
    `new_message(type)` makes an empty message; `stamp_ns` goes into headers; a JointTrajectory has
    one point, to be reached after `duration_s`. CommandError names targets that are not finite.
    """
    (targets,) = _vectors(contract, targets)
    bad = [
        d.name for d, v in zip(contract.action_dims, targets, strict=True) if not np.isfinite(v)
    ]
    if bad:
        raise CommandError(f'not a finite number: target of {", ".join(bad)}; nothing was sent')
    found: list[tuple[str, Any]] = []
    start = 0
    for action in contract.action:
        values = targets[start : start + len(action.dims)].tolist()
        start += len(action.dims)
        if action.topic is None or action.type is None:
            raise CommandError(
                f'contract {contract.name} takes its action from the next state and names no '
                'command topic; to drive a robot give it topic, type and command fields'
            )
        msg = new_message(action.type)
        if hasattr(msg, 'header'):
            msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(int(stamp_ns), 10**9)
            msg.header.frame_id = action.frame_id
        _fill(msg, action, values, duration_s, new_message)
        found.append((action.topic, msg))
    return found


def _is_delta(contract: Contract) -> NDArray[np.bool_]:
    return np.array([dim.mode == 'delta' for dim in contract.action_dims], dtype=bool)


def _vectors(contract: Contract, *vectors: Any) -> tuple[Vector, ...]:
    size = len(contract.action_dims)
    found = tuple(np.asarray(v, dtype=np.float64) for v in vectors)
    for vector in found:
        if vector.shape != (size,):
            raise CommandError(
                f'a vector of shape {vector.shape}; needed: ({size},), one number for each of '
                f'{", ".join(dim.name for dim in contract.action_dims)}'
            )
    return found


def _fill(
    msg: Any,
    action: ActionTopic,
    values: Sequence[float],
    duration_s: float,
    new_message: NewMessage,
) -> None:
    """Write `values` into the fields of one topic's dimensions."""
    pairs = {dim.field: value for dim, value in zip(action.dims, values, strict=True)}
    msg, kind = types.unwrap(msg, action.type or '')
    if kind == types.JOINT_TRAJECTORY:
        _fill_trajectory(msg, pairs, duration_s, new_message)
    elif kind == types.JOINT_STATE:
        _fill_joint_state(msg, pairs, action.by_index)
    elif kind == types.JOINT_JOG:
        _fill_joint_jog(msg, pairs, duration_s)
    elif kind in (types.FLOAT32_ARRAY, types.FLOAT64_ARRAY):
        _assign(msg, 'data', [pairs[str(i)] for i in range(len(pairs))])
    elif kind == types.FLOAT32:
        msg.data = float(np.float32(pairs['data']))  # as it will arrive; rclpy would keep more
    elif kind == types.FLOAT64:
        msg.data = pairs['data']
    elif kind == types.BOOL:
        msg.data = pairs['data'] >= 0.5
    elif kind == types.GRIPPER_COMMAND:
        for field, value in pairs.items():
            setattr(msg, field, value)
    else:
        _fill_vectors(msg.pose if kind == types.POSE_STAMPED else msg, pairs)
    if action.max_effort is not None:
        _fill_effort(msg, kind, action.max_effort)


def _fill_effort(msg: Any, kind: str, max_effort: float) -> None:
    """Write the effort of a gripper: one number, or one for each joint."""
    if kind == types.GRIPPER_COMMAND:
        msg.max_effort = max_effort
    else:
        _assign(msg, 'effort', [max_effort] * len(msg.position))


def _fill_trajectory(
    msg: Any, pairs: dict[str, float], duration_s: float, new_message: NewMessage
) -> None:
    point = new_message(_TRAJECTORY_POINT)
    _assign(point, 'positions', [*pairs.values()])
    duration_ns = round(duration_s * 1e9)
    point.time_from_start.sec, point.time_from_start.nanosec = divmod(duration_ns, 10**9)
    msg.joint_names = [*pairs]
    msg.points = [point]


def _fill_joint_state(msg: Any, pairs: dict[str, float], by_index: bool) -> None:
    if by_index:
        kinds = dict.fromkeys(field.split('.')[0] for field in pairs)
        arrays = {kind: _by_index(kind, pairs) for kind in kinds}
    else:
        msg.name, arrays = _by_joint(pairs)
    for kind, values in arrays.items():
        _assign(msg, kind, values)


def _fill_joint_jog(msg: Any, pairs: dict[str, float], duration_s: float) -> None:
    msg.joint_names, arrays = _by_joint(pairs)
    msg.duration = float(duration_s)
    for kind, values in arrays.items():
        _assign(msg, _JOG_ARRAYS[kind], values)


def _by_index(kind: str, pairs: dict[str, float]) -> list[float]:
    """Return the values of KIND.0, KIND.1, ...; a contract leaves none of them out."""
    return [pairs[field] for i in range(len(pairs)) if (field := f'{kind}.{i}') in pairs]


def _by_joint(pairs: dict[str, float]) -> tuple[list[str], dict[str, list[float]]]:
    """Split 'KIND.JOINT' fields into joints and {kind: one value per joint}.

    A contract gives every joint of a topic the same kinds, so no entry is ever made up.
    """
    split = [field.split('.', 1) for field in pairs]
    names = [*dict.fromkeys(joint for _, joint in split)]
    kinds = dict.fromkeys(kind for kind, _ in split)
    return names, {kind: [pairs[f'{kind}.{joint}'] for joint in names] for kind in kinds}


def _fill_vectors(msg: Any, pairs: dict[str, float]) -> None:
    """Write 'linear.x' and the like; components that no dimension names keep their default."""
    for field, value in pairs.items():
        part, axis = field.split('.')
        setattr(getattr(msg, part), axis, value)


def _assign(msg: Any, name: str, values: list[float]) -> None:
    """Set an array field: `rosbags` messages hold numpy arrays, rclpy takes lists."""
    old = getattr(msg, name)
    if isinstance(old, np.ndarray):
        setattr(msg, name, np.asarray(values, dtype=old.dtype))
    else:
        setattr(msg, name, values)
