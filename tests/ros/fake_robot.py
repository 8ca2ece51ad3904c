"""A robot that is no good: jitter, drops and late messages; a camera, two joints and a gripper.

Run as a program by the tests. It follows the commands, so what it measures depends on them. With
`--apart` everything goes two ways: by its own topic, late but whole, and by the same topic under
/near, with delays of its own and with losses; a node that listens there misses what others hear.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
from functools import partial
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, JointState
from spoiling import spoil_image, spoil_joints
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory


class FakeRobot(Node):
    """Publishes joint states at 50 Hz and images at 20 Hz, or whatever the options spoil."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__('fake_robot')
        self.options = options
        self.random = random.Random(options.seed)
        self.position = np.zeros(3)
        self.target = np.zeros(3)
        self.spoilt: set[str] = set()  # what goes wrong, by `/fake/do`
        self.last_image: CompressedImage | None = None
        self.images = 0
        if not options.eye_only:
            self.joints = self.ways(JointState, '/joint_states')
            self.create_timer(0.02, self.publish_joints)
        self.create_subscription(JointTrajectory, '/arm/joint_trajectory', self.on_arm, 10)
        self.create_subscription(Float64MultiArray, '/gripper/commands', self.on_gripper, 10)
        self.create_subscription(String, '/fake/do', self.on_do, 10)
        if not options.blind:
            self.eye = self.ways(CompressedImage, '/eye/compressed')
            self.create_timer(0.05, self.publish_image)

    def on_arm(self, message: JointTrajectory) -> None:
        self.target[:2] = message.points[0].positions

    def on_gripper(self, message: Float64MultiArray) -> None:
        self.target[2] = message.data[0]

    def on_do(self, message: String) -> None:
        self.spoilt = set(message.data.split())

    def publish_joints(self) -> None:
        self.position += 0.3 * (self.target - self.position)
        message = JointState(name=self.options.joints.split(','))
        message.position = (self.position + self.random.gauss(0, 1e-3)).tolist()
        message.header.stamp = self.get_clock().now().to_msg()
        spoilt = spoil_joints(message, self.spoilt)
        if spoilt is not None:
            self.send(self.joints, spoilt)

    def publish_image(self) -> None:
        self.images += 1
        if self.random.random() < self.options.drops:
            return
        noise = np.random.default_rng(self.images).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = cv2.resize(noise, (40, 30), interpolation=cv2.INTER_LINEAR)
        message = CompressedImage(format='jpeg')
        message.data = cv2.imencode('.jpg', picture)[1].tobytes()
        message.header.stamp = self.get_clock().now().to_msg()
        spoilt = spoil_image(message, self.spoilt, self.last_image)
        if spoilt is not None:
            self.last_image = spoilt
            self.send(self.eye, spoilt)

    def ways(self, kind: type, topic: str) -> list[Publisher]:
        """Return the publishers that a stream goes by, the whole one first."""
        names = [topic, f'/near{topic}'] if self.options.apart else [topic]
        return [self.create_publisher(kind, name, 10) for name in names]

    def send(self, ways: list[Publisher], message: Any) -> None:
        for publisher in ways:
            if self.random.random() < self.options.loss:
                continue
            if publisher is not ways[0] and self.random.random() < self.options.drops:
                continue
            delay_s = self.random.uniform(0.0, self.options.jitter_s)
            if self.random.random() < self.options.late:
                delay_s += 0.12  # later than the next one, and than a tick that it belongs before
            self.later(delay_s, partial(publisher.publish, message))

    def later(self, delay_s: float, action) -> None:
        if delay_s <= 0:
            action()
            return

        def once() -> None:
            self.destroy_timer(timer)
            action()

        timer = self.create_timer(delay_s, once)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jitter-s', type=float, default=0.0)
    parser.add_argument('--drops', type=float, default=0.0)
    parser.add_argument('--loss', type=float, default=0.0, help='of all messages')
    parser.add_argument('--late', type=float, default=0.0)
    parser.add_argument('--apart', action='store_true', help='send by two ways')
    parser.add_argument('--blind', action='store_true', help='no camera')
    parser.add_argument('--eye-only', action='store_true', help='nothing but a camera')
    parser.add_argument('--joints', default='one,two,gripper')
    rclpy.init()  # takes its own part of the arguments
    node = FakeRobot(parser.parse_args(rclpy.utilities.remove_ros_args()[1:]))
    print('QT ' + json.dumps({'event': 'ready'}), flush=True)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


if __name__ == '__main__':
    sys.exit(main())
