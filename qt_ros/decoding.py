"""Messages to numpy, for rclpy's message objects and for those of `rosbags` alike.

Only attributes are read, so any object shaped like the message will do. Joints are found by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros import message_types as types
from qt_ros.images.decoding import decode_depth, decode_image
from qt_ros.message_types import DecodeError

__all__ = [
    'DecodeError',
    'decode_depth',
    'decode_image',
    'decode_state',
    'fields_of',
    'holds',
    'read_fields',
]

_XYZ = ('x', 'y', 'z')
# Beyond any unit of a robot, and far within float32: more comes from a damaged message.
LARGEST = 1e30


def decode_state(
    msg: Any, type: str, fields: Sequence[str], by_index: bool = False
) -> NDArray[np.float64]:
    """Return the values of `fields`, (n,) in their order.

    Units are the message's own ([rad], [m], [m/s], ...). DecodeError names every field that is not
    there and lists those that are.
    """
    values = read_fields(msg, type, fields, by_index)
    missing = [field for field, value in zip(fields, values, strict=True) if value is None]
    if missing:
        available = ', '.join(fields_of(msg, type, by_index)) or 'none'
        raise DecodeError(f'{type} has no {", ".join(missing)}; it holds: {available}')
    return np.array(values, dtype=np.float64).reshape(len(values))


def holds(msg: Any, type: str, fields: Sequence[str], by_index: bool = False) -> bool:
    """Say whether the message holds every field; a driver may publish its joints in parts."""
    return None not in read_fields(msg, type, fields, by_index)


def read_fields(
    msg: Any, type: str, fields: Sequence[str], by_index: bool = False
) -> list[float | None]:
    """Return the value of each field, None for one that this message does not hold."""
    msg, type = types.unwrap(msg, type)
    if type == types.JOINT_STATE:
        return _joints(msg, None if by_index else msg.name, fields)
    if type == types.JOINT_JOG:
        return _joints(msg, msg.joint_names, fields)
    if type not in _READERS:
        allowed = ', '.join(types.STATE_TYPES)
        raise DecodeError(f'cannot read numbers from {type}; supported: {allowed}')
    read = _READERS[type](msg)
    return [read.get(field) for field in fields]


def fields_of(msg: Any, type: str, by_index: bool = False) -> tuple[str, ...]:
    """Return the names of all fields that this message holds, as a contract writes them."""
    msg, type = types.unwrap(msg, type)
    if type not in (types.JOINT_STATE, types.JOINT_JOG):
        return tuple(_READERS[type](msg)) if type in _READERS else ()
    names = msg.name if type == types.JOINT_STATE else msg.joint_names
    found = []
    for kind, attribute in _JOINT_ARRAYS.items():
        values = getattr(msg, attribute.get(type, ''), ())
        labels = range(len(values)) if by_index else list(names)[: len(values)]
        found += [f'{kind}.{label}' for label in labels]
    return tuple(found)


# {kind: {message type: attribute that holds one number per joint}}
_JOINT_ARRAYS: dict[str, dict[str, str]] = {
    'position': {types.JOINT_STATE: 'position'},
    'velocity': {types.JOINT_STATE: 'velocity', types.JOINT_JOG: 'velocities'},
    'effort': {types.JOINT_STATE: 'effort'},
    'displacement': {types.JOINT_JOG: 'displacements'},
}


def _joints(msg: Any, names: Sequence[str] | None, fields: Sequence[str]) -> list[float | None]:
    """Read 'KIND.JOINT' fields; without names JOINT is an index. JOINT may hold dots, slashes."""
    kind_of = types.JOINT_JOG if hasattr(msg, 'joint_names') else types.JOINT_STATE
    order = None if names is None else {name: i for i, name in reversed([*enumerate(names)])}
    found: list[float | None] = []
    for field in fields:
        kind, _, joint = field.partition('.')
        attribute = _JOINT_ARRAYS.get(kind, {}).get(kind_of)
        values = getattr(msg, attribute) if attribute else ()
        if order is None:
            index = int(joint) if joint.isdigit() else -1
        else:
            index = order.get(joint, -1)
        found.append(float(values[index]) if 0 <= index < len(values) else None)
    return found


def _trajectory(msg: Any) -> dict[str, float]:
    """First point only: what a policy sends, and what a controller heads for next."""
    if not len(msg.points):
        return {}
    # zip without strict: a point may hold fewer positions than there are joints.
    return {n: float(p) for n, p in zip(msg.joint_names, msg.points[0].positions, strict=False)}


def _array(msg: Any) -> dict[str, float]:
    return {str(i): float(value) for i, value in enumerate(msg.data)}


def _scalar(msg: Any) -> dict[str, float]:
    return {'data': float(msg.data)}


def _twist(msg: Any) -> dict[str, float]:
    parts = {'linear': msg.linear, 'angular': msg.angular}
    return {f'{k}.{axis}': float(getattr(v, axis)) for k, v in parts.items() for axis in _XYZ}


def _pose(msg: Any) -> dict[str, float]:
    found = {f'position.{axis}': float(getattr(msg.pose.position, axis)) for axis in _XYZ}
    for axis in (*_XYZ, 'w'):
        found[f'orientation.{axis}'] = float(getattr(msg.pose.orientation, axis))
    return found


def _gripper(msg: Any) -> dict[str, float]:
    return {'position': float(msg.position), 'max_effort': float(msg.max_effort)}


_READERS: dict[str, Callable[[Any], dict[str, float]]] = {
    types.JOINT_TRAJECTORY: _trajectory,
    types.FLOAT32_ARRAY: _array,
    types.FLOAT64_ARRAY: _array,
    types.FLOAT32: _scalar,
    types.FLOAT64: _scalar,
    types.BOOL: _scalar,
    types.TWIST: _twist,
    types.POSE_STAMPED: _pose,
    types.GRIPPER_COMMAND: _gripper,
}
