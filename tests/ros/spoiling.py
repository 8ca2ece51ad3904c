"""What may go wrong with what a robot sends; and a program that stands between robot and policy.

As a program it passes on the topics that it is given, from /TOPIC to /spoilt/TOPIC, and does to
the messages what `/spoil/do` says: any of the words below, '' for nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
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
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String

IMAGES = ('freeze', 'same', 'black', 'wrong_size')
JOINTS = ('mute', 'nan', 'other_joints', 'reversed')
LOSS = 0.3  # of all messages, for `loss`


def spoil_image(
    message: CompressedImage, faults: set[str], last: CompressedImage | None
) -> CompressedImage | None:
    """Return what is sent for an image, None for nothing; `last` is what was sent before."""
    if 'freeze' in faults:
        return None
    if 'same' in faults and last is not None:
        return last  # stamp and all
    if not faults & {'black', 'wrong_size'}:
        return message
    picture = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    if 'wrong_size' in faults:
        height, width = picture.shape[:2]
        picture = cv2.resize(picture, (width * 8 // 5, height * 8 // 5))
    picture = picture * ('black' not in faults)
    spoilt = CompressedImage(header=message.header, format='jpeg')
    spoilt.data = cv2.imencode('.jpg', picture)[1].tobytes()
    return spoilt


def spoil_joints(message: JointState, faults: set[str]) -> JointState | None:
    """Return what is sent for joint states, None for nothing."""
    if 'mute' in faults:
        return None
    spoilt = copy.deepcopy(message)
    if 'nan' in faults:
        spoilt.position[1] = float('nan')
    if 'other_joints' in faults:
        spoilt.name = [spoilt.name[0], 'zwei', *spoilt.name[2:]]
    if 'reversed' in faults:
        spoilt.name, spoilt.position = spoilt.name[::-1], spoilt.position[::-1]
        spoilt.velocity, spoilt.effort = spoilt.velocity[::-1], spoilt.effort[::-1]
    return spoilt


class Spoiler(Node):
    """Passes topics on, or not quite."""

    def __init__(self, images: list[str], joints: list[str]) -> None:
        super().__init__(f'spoiler_{random.randrange(1 << 30)}')
        self.faults: set[str] = set()
        self.last: dict[str, Any] = {}
        self.create_subscription(String, '/spoil/do', self.on_do, 10)
        for kind, topics in ((CompressedImage, images), (JointState, joints)):
            for topic in topics:
                out = self.create_publisher(kind, f'/spoilt{topic}', 10)
                self.create_subscription(kind, topic, partial(self.on_message, out), 10)

    def on_do(self, message: String) -> None:
        self.faults = set(message.data.split())

    def on_message(self, out: Any, message: Any) -> None:
        if 'loss' in self.faults and random.random() < LOSS:
            return
        if isinstance(message, JointState):
            spoilt = spoil_joints(message, self.faults)
        else:
            spoilt = spoil_image(message, self.faults, self.last.get(out.topic_name))
        if spoilt is not None:
            self.last[out.topic_name] = spoilt
            out.publish(spoilt)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--images', nargs='*', default=[])
    parser.add_argument('--joints', nargs='*', default=[])
    given = parser.parse_args()
    rclpy.init()
    node = Spoiler(given.images, given.joints)
    print('QT ' + json.dumps({'event': 'ready'}), flush=True)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


if __name__ == '__main__':
    sys.exit(main())
