"""Empty messages of both worlds: as `rosbags` reads them from a bag, and of a live node."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

ROBOTS = Path(__file__).resolve().parents[2] / 'config' / 'robots'
STORE = get_typestore(Stores.ROS2_HUMBLE)
# control_msgs comes with ros2_control; the store of the standard types does not have it.
CONTROL_MSGS = {
    'control_msgs/msg/JointJog': (
        'std_msgs/Header header\nstring[] joint_names\nfloat64[] displacements\n'
        'float64[] velocities\nfloat64 duration\n'
    ),
    'control_msgs/msg/GripperCommand': 'float64 position\nfloat64 max_effort\n',
    'control_msgs/action/GripperCommand_Goal': 'control_msgs/GripperCommand command\n',
    'control_msgs/action/ParallelGripperCommand_Goal': 'sensor_msgs/JointState command\n',
}
for _name, _text in CONTROL_MSGS.items():
    STORE.register(get_types_from_msg(_text, _name))


def from_rosbags(type: str) -> Any:
    """Make a message with every field empty or zero, as `rosbags` would read it."""
    kind = STORE.types[type]
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        text = str(field.type)
        if 'ClassVar' in text:
            continue
        if 'ndarray' in text:
            name = text.rsplit('np.', 1)[1].strip('[]')
            values[field.name] = np.zeros(0, dtype=name)
        elif text.startswith('list'):
            values[field.name] = []
        elif '__' in text:
            values[field.name] = from_rosbags(text.replace('__', '/'))
        else:
            values[field.name] = {'int': 0, 'float': 0.0, 'str': '', 'bool': False}[text]
    return kind(**values)


def from_ros(type: str) -> Any:
    """Make an empty message of the installed ROS distribution."""
    package, kind, name = type.split('/')
    module = pytest.importorskip(f'{package}.{kind}', reason=f'{package} is not installed')
    outer, _, part = name.partition('_')
    found = getattr(module, outer)
    return (getattr(found, part) if part else found)()


def set_array(msg: Any, name: str, values: Any) -> None:
    """Fill an array field in the way that this kind of message holds it."""
    old = getattr(msg, name)
    if isinstance(old, np.ndarray):
        setattr(msg, name, np.asarray(values, dtype=old.dtype))
    else:
        setattr(msg, name, values if isinstance(values, list) else values.tolist())
