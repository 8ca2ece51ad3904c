"""The ROS message types that a contract may name, and how fields of each are written.

One table serves the contract's checks, the decoders and the encoders, so that what a contract may
say and what the code can do cannot drift apart. No ROS is needed here: types are names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from qt_ros.errors import QtRosError

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
JOINT_STATE = 'sensor_msgs/msg/JointState'
JOINT_TRAJECTORY = 'trajectory_msgs/msg/JointTrajectory'
FLOAT32_ARRAY = 'std_msgs/msg/Float32MultiArray'
FLOAT64_ARRAY = 'std_msgs/msg/Float64MultiArray'
FLOAT32 = 'std_msgs/msg/Float32'
FLOAT64 = 'std_msgs/msg/Float64'
BOOL = 'std_msgs/msg/Bool'
TWIST = 'geometry_msgs/msg/Twist'
TWIST_STAMPED = 'geometry_msgs/msg/TwistStamped'
POSE_STAMPED = 'geometry_msgs/msg/PoseStamped'
JOINT_JOG = 'control_msgs/msg/JointJog'
GRIPPER_COMMAND = 'control_msgs/msg/GripperCommand'
# Goals of the gripper actions, for bridges that send or record them on a topic.
GRIPPER_GOAL = 'control_msgs/action/GripperCommand_Goal'
PARALLEL_GRIPPER_GOAL = 'control_msgs/action/ParallelGripperCommand_Goal'
# Actions whose goals a contract may command.
GRIPPER_ACTION = 'control_msgs/action/GripperCommand'
PARALLEL_GRIPPER_ACTION = 'control_msgs/action/ParallelGripperCommand'
STRING = 'std_msgs/msg/String'
EPISODE_EVENT = 'q_transformer_ros/msg/EpisodeEvent'

CAMERA_TYPES = (IMAGE, COMPRESSED_IMAGE)


@dataclass(frozen=True)
class FieldSyntax:
    """How a field of one message type is written in a contract: a pattern, and that in words."""

    pattern: str
    words: str

    def accepts(self, field: str) -> bool:
        """Say whether `field` is written as this message type wants it."""
        return re.fullmatch(self.pattern, field, flags=re.DOTALL) is not None


_JOINT_KINDS = FieldSyntax(
    r'(position|velocity|effort)\..+', 'position.JOINT, velocity.JOINT, effort.JOINT'
)
_INDEX = FieldSyntax(r'0|[1-9][0-9]*', 'an index such as "0"')
_TWIST = FieldSyntax(r'(linear|angular)\.[xyz]', 'linear.x|y|z, angular.x|y|z')
_DATA = FieldSyntax(r'data', 'data')
_GRIPPER = FieldSyntax(r'position|max_effort', 'position, max_effort')

_SYNTAX: dict[str, FieldSyntax] = {
    JOINT_STATE: _JOINT_KINDS,
    JOINT_TRAJECTORY: FieldSyntax(r'.+', 'the name of a joint'),
    FLOAT32_ARRAY: _INDEX,
    FLOAT64_ARRAY: _INDEX,
    FLOAT32: _DATA,
    FLOAT64: _DATA,
    BOOL: _DATA,
    TWIST: _TWIST,
    TWIST_STAMPED: _TWIST,
    POSE_STAMPED: FieldSyntax(
        r'position\.[xyz]|orientation\.[xyzw]', 'position.x|y|z, orientation.x|y|z|w'
    ),
    JOINT_JOG: FieldSyntax(r'(displacement|velocity)\..+', 'displacement.JOINT, velocity.JOINT'),
    GRIPPER_COMMAND: _GRIPPER,
    GRIPPER_GOAL: _GRIPPER,
    PARALLEL_GRIPPER_GOAL: _JOINT_KINDS,
}

# {type of an action: type of the `command` in its goal}
ACTIONS = {GRIPPER_ACTION: GRIPPER_COMMAND, PARALLEL_GRIPPER_ACTION: JOINT_STATE}
STATE_TYPES = tuple(_SYNTAX)
COMMAND_TYPES = (*_SYNTAX, *ACTIONS)
STAMPED = (JOINT_STATE, JOINT_TRAJECTORY, TWIST_STAMPED, POSE_STAMPED, JOINT_JOG)  # have a header
JOINT_STATES = (JOINT_STATE, PARALLEL_GRIPPER_GOAL)  # joints by name, or by index without names

# {type: (attribute that holds its numbers, type of that)}
_WRAPPED = {
    TWIST_STAMPED: ('twist', TWIST),
    GRIPPER_GOAL: ('command', GRIPPER_COMMAND),
    PARALLEL_GRIPPER_GOAL: ('command', JOINT_STATE),
}
# {type: why a contract cannot take numbers from it}
WITHOUT_NUMBERS = {
    STRING: (
        'a String carries text, no number; the instruction of an episode comes from its START '
        'event or from the CSV of --labels'
    ),
    IMAGE: 'an image is no number; list it under "cameras"',
    COMPRESSED_IMAGE: 'an image is no number; list it under "cameras"',
}

BY_INDEX_SYNTAX = FieldSyntax(
    r'(position|velocity|effort)\.(0|[1-9][0-9]*)',
    'position.INDEX, velocity.INDEX, effort.INDEX (by_index is true)',
)


def field_syntax(type: str, by_index: bool = False) -> FieldSyntax:
    """Return how fields of message type `type` are written; KeyError for an unsupported type."""
    return BY_INDEX_SYNTAX if by_index else _SYNTAX[type]


def unwrap(msg: Any, type: str) -> tuple[Any, str]:
    """Return the part of a message that holds its numbers, and the type of that part."""
    attribute, inner = _WRAPPED.get(type, ('', type))
    return (getattr(msg, attribute) if attribute else msg), inner


class DecodeError(QtRosError):
    """A message that does not hold what the contract names, or that is damaged."""
