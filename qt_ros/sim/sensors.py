"""What the simulated robot says on its topics, as objects shaped like the ROS messages.

The decoders read attributes only, so in process these stand in for the real messages.
"""

from __future__ import annotations

from dataclasses import dataclass

from qt_ros.sim.camera import encode_jpeg
from qt_ros.sim.scene import CAMERAS, JOINTS
from qt_ros.sim.world import BlockWorld

CAMERA_TOPICS = {f'/{camera}/image/compressed': camera for camera in CAMERAS}
JOINTS_TOPIC = '/joint_states'
REFERENCE_TOPIC = '/arm_controller/reference'
ARM_TOPIC = '/arm_controller/joint_trajectory'
GRIPPER_TOPIC = '/gripper_controller/commands'
NAMES = (*JOINTS, 'gripper')  # of what both JointState topics carry; the gripper's is its opening
CAMERA_PERIOD_NS = 50_000_000
STATE_PERIOD_NS = 20_000_000


@dataclass(frozen=True)
class JointStateMessage:
    """The fields of sensor_msgs/msg/JointState that the simulator fills."""

    name: tuple[str, ...]
    position: tuple[float, ...]  # [rad], the gripper's opening 0 to 1
    velocity: tuple[float, ...] = ()  # [rad/s], [1/s]
    effort: tuple[float, ...] = ()


@dataclass(frozen=True)
class ImageMessage:
    """The fields of sensor_msgs/msg/CompressedImage."""

    format: str
    data: bytes


def joint_states(world: BlockWorld) -> JointStateMessage:
    """Return what the encoders measure now."""
    return JointStateMessage(
        NAMES,
        (*world.joint_positions.tolist(), world.gripper),
        (*world.joint_velocities.tolist(), world.gripper_velocity),
    )


def controller_reference(world: BlockWorld) -> JointStateMessage:
    """Return what the controllers are tracking now."""
    return JointStateMessage(NAMES, (*world.arm_reference.tolist(), world.gripper_reference))


def image(world: BlockWorld, camera: str, size: tuple[int, int]) -> ImageMessage:
    """Return what a camera sees now; size: (height, width) [px]."""
    return ImageMessage('rgb8; jpeg compressed bgr8', encode_jpeg(world.render(camera, size)))
