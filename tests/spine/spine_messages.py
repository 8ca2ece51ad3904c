"""Empty messages of both worlds: as `rosbags` reads them from a bag, and of a live node."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

ROBOTS = Path(__file__).resolve().parents[2] / 'config' / 'robots'
STORE = get_typestore(Stores.ROS2_HUMBLE)
CONTROL_MSGS = {'control_msgs/msg/JointJog', 'control_msgs/msg/GripperCommand'}


def from_rosbags(type: str) -> Any:
    """Make a message with every field empty or zero, as `rosbags` would read it."""
    if type in CONTROL_MSGS:
        pytest.skip('control_msgs is not in this type store')
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
    package, _, name = type.split('/')
    module = pytest.importorskip(f'{package}.msg', reason=f'{package} is not installed')
    return getattr(module, name)()


def set_array(msg: Any, name: str, values: Any) -> None:
    """Fill an array field in the way that this kind of message holds it."""
    old = getattr(msg, name)
    if isinstance(old, np.ndarray):
        setattr(msg, name, np.asarray(values, dtype=old.dtype))
    else:
        setattr(msg, name, values if isinstance(values, list) else values.tolist())
