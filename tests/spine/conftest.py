"""Messages of both worlds: those that `rosbags` reads from a bag and those of a live node."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from rosbags.typesys import Stores, get_typestore

from qt_ros.contract import Contract

settings.register_profile('spine', deadline=None, max_examples=80)
settings.load_profile('spine')

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


@pytest.fixture(params=[from_rosbags, from_ros], ids=['rosbags', 'rclpy'])
def new_message(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """Return a function that makes an empty message of a type."""
    if request.param is from_ros and importlib.util.find_spec('rclpy') is None:
        pytest.skip('ROS 2 is not installed')
    function: Callable[[str], Any] = request.param
    return function


@pytest.fixture
def arm() -> Contract:
    """The contract of the simulated robot."""
    return Contract.load(ROBOTS / 'block_arm.yaml')


@pytest.fixture
def arm_text() -> str:
    """Its text."""
    return (ROBOTS / 'block_arm.yaml').read_text()
