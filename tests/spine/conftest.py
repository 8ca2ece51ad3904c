"""Fixtures for the spine: both kinds of messages, and the simulated robot's contract."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from spine_messages import ROBOTS, from_ros, from_rosbags

from qt_ros.contract import Contract

settings.register_profile('spine', deadline=None, max_examples=80)
settings.load_profile('spine')


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
