"""The processes around the policy in `control_loop.py`: a robot, a receiver, and a bare timer.

python bench/control_peers.py robot|receiver|floor|policy [--ros-args ...]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qt_ros.nodes.ros import RELIABLE, StopFlag, announce, message_class

JOINTS = ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate', 'gripper')
ARM_TOPIC, FLOOR_TOPIC, STEP_TOPIC = '/arm/joint_trajectory', '/floor/command', '/policy/step'
FIELDS = ', '.join(f'position.{name}' for name in JOINTS)
DIMS = ', '.join(
    f'{{name: {name}, field: {name}, mode: delta, low: -0.05, high: 0.05, bins: 129}}'
    for name in JOINTS
)
CAMERA = 'type: sensor_msgs/msg/CompressedImage, size: [96, 96], max_age_s: 1.0'
CONTRACT = f"""
name: bench_arm
rate_hz: 10.0
clock: header
cameras:
  front: {{topic: /front, {CAMERA}}}
  wrist: {{topic: /wrist, {CAMERA}}}
state:
  - {{topic: /joint_states, type: sensor_msgs/msg/JointState, fields: [{FIELDS}], max_age_s: 1.0}}
action:
  - {{topic: {ARM_TOPIC}, type: trajectory_msgs/msg/JointTrajectory, dims: [{DIMS}]}}
episodes: {{events: /episode/events}}
safety:
  limits: {{waist: {{position: [-2.6, 2.6], velocity: 2.0, step: 0.1}}}}
  watchdog_s: 3.0
  fallback: hold
"""
# Free-running cameras, as real ones are. A little off 30 Hz, so that within a run their images
# come at every phase of the decisions: the ages are not those of one lucky phase.
CAMERAS_HZ = {'/front': 29.97, '/wrist': 30.03}
JOINTS_HZ = 500.0
PICTURES = 30  # that are sent in turn; encoded beforehand, as a camera's own hardware would


def pictures(count: int) -> list[bytes]:
    """Return JPEGs, 640x480, of about 60 kB each."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        coarse = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        fine = random.integers(-12, 13, (480, 640, 3), dtype=np.int16)
        picture = np.clip(cv2.resize(coarse, (640, 480)).astype(np.int16) + fine, 0, 255)
        encoded = cv2.imencode('.jpg', picture.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 75])
        found.append(encoded[1].tobytes())
    return found


def robot(node: Node, flag: StopFlag) -> None:
    """Publish two cameras and the joints, each by the clock, until told to stop."""
    images = [CompressedImage(format='jpeg', data=data) for data in pictures(PICTURES)]
    joints = JointState(name=list(JOINTS), position=[0.0] * len(JOINTS))
    publishers = {'/joint_states': node.create_publisher(JointState, '/joint_states', RELIABLE)}
    periods = {'/joint_states': 1.0 / JOINTS_HZ}
    for topic, rate_hz in CAMERAS_HZ.items():
        publishers[topic] = node.create_publisher(CompressedImage, topic, RELIABLE)
        periods[topic] = 1.0 / rate_hz
    due = dict.fromkeys(periods, time.monotonic())
    announce('ready', image_bytes=sum(len(image.data) for image in images) // len(images))
    sent = 0
    while not flag.is_set():
        topic = min(due, key=due.__getitem__)
        time.sleep(max(due[topic] - time.monotonic(), 0.0))
        message: Any = joints if topic == '/joint_states' else images[sent % PICTURES]
        sent += topic != '/joint_states'
        message.header.stamp = node.get_clock().now().to_msg()
        publishers[topic].publish(message)
        due[topic] += periods[topic]


def receiver(node: Node, flag: StopFlag, out: Path) -> None:
    """Stamp what comes on arrival; keep the bytes, and write everything when told to stop."""
    heard: dict[str, list[tuple[int, int, bytes]]] = {}
    for topic, kind in (
        (ARM_TOPIC, JointTrajectory),
        (FLOOR_TOPIC, JointTrajectory),
        (STEP_TOPIC, message_class('q_transformer_ros/msg/PolicyStep')),
    ):
        rows = heard[topic] = []
        node.create_subscription(
            kind,
            topic,
            lambda data, rows=rows: rows.append((time.monotonic_ns(), time.time_ns(), data)),
            RELIABLE,
            raw=True,
        )
    _spin(node, flag)
    columns: dict[str, Any] = {}
    for topic, rows in heard.items():
        columns[f'{topic} monotonic_ns'] = np.array([row[0] for row in rows], np.int64)
        columns[f'{topic} time_ns'] = np.array([row[1] for row in rows], np.int64)
        columns[f'{topic} bytes'] = np.frombuffer(b''.join(row[2] for row in rows), np.uint8)
        columns[f'{topic} sizes'] = np.array([len(row[2]) for row in rows], np.int64)
    np.savez(out, **columns)


def floor(node: Node, flag: StopFlag, rate_hz: float) -> None:
    """Publish a constant from a timer: what is left of jitter when nothing is done."""
    message = JointTrajectory(joint_names=list(JOINTS))
    message.points = [JointTrajectoryPoint(positions=[0.0] * len(JOINTS))]
    publisher = node.create_publisher(JointTrajectory, FLOOR_TOPIC, RELIABLE)

    def publish() -> None:
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    steady = Clock(clock_type=ClockType.STEADY_TIME)
    node.create_timer(1.0 / rate_hz, publish, clock=steady)
    _spin(node, flag)


def _spin(node: Node, flag: StopFlag) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    gc.disable()  # a peer must not add jitter of its own
    announce('ready')
    while not flag.is_set():
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()


def policy() -> int:
    """Run the policy node as it is, and tell which of its threads is the inference thread."""
    from qt_ros.nodes.policy import main

    def tell() -> None:
        while True:
            for thread in threading.enumerate():
                if thread.name == 'inference' and thread.native_id:  # it has begun
                    announce('inference', pid=os.getpid(), thread=thread.native_id)
                    return
            time.sleep(0.05)

    threading.Thread(target=tell, daemon=True).start()
    return main()


def main() -> int:
    """Run one of the processes until SIGINT."""
    role = sys.argv[1]
    if role == 'policy':
        del sys.argv[1]
        return policy()
    parser = argparse.ArgumentParser()
    parser.add_argument('role', choices=('robot', 'receiver', 'floor'))
    parser.add_argument('--out', type=Path)
    parser.add_argument('--rate-hz', type=float)
    args = parser.parse_args()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    flag = StopFlag()
    node = rclpy.create_node(f'bench_{role}')
    if role == 'robot':
        robot(node, flag)
    elif role == 'receiver':
        receiver(node, flag, args.out)
    else:
        floor(node, flag, args.rate_hz)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
