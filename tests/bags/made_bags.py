"""Bags made by hand, with rosbags' own writer, so that the right answers are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from qt_ros.bags.types import own_types
from qt_ros.contract import Contract

STORE = own_types()
PLUGINS = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}
MS = 1_000_000
T0 = 1_700_000_000_000 * MS  # some time; tests count milliseconds from here

JOINTS = 'sensor_msgs/msg/JointState'
JPEG = 'sensor_msgs/msg/CompressedImage'
TRAJECTORY = 'trajectory_msgs/msg/JointTrajectory'
ARRAY = 'std_msgs/msg/Float64MultiArray'
EVENT = 'q_transformer_ros/msg/EpisodeEvent'
STEP = 'q_transformer_ros/msg/PolicyStep'

CONTRACT = """
name: made
rate_hz: 10.0
clock: header
max_gap_s: 1.0
cameras:
  front: {topic: /front, type: sensor_msgs/msg/CompressedImage, size: [16, 16], max_age_s: 0.25}
state:
  - {name: joints, topic: /joint_states, type: sensor_msgs/msg/JointState,
     fields: [position.a, position.b], max_age_s: 0.25}
action:
  - topic: /arm
    type: trajectory_msgs/msg/JointTrajectory
    dims:
      - {name: a, field: a, mode: delta, low: -1.0, high: 1.0, bins: 5}
  - topic: /gripper
    type: std_msgs/msg/Float64MultiArray
    dims:
      - {name: grip, field: "0", mode: absolute, low: 0.0, high: 1.0, bins: 2}
episodes: {events: /episode/events}
"""


def contract(**changes: str) -> Contract:
    """Return the contract above with lines replaced: contract(**{'old text': 'new text'})."""
    text = CONTRACT
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return Contract.parse(text)


def make(kind: str, /, **values: Any) -> Any:
    """Build a message; fields that are not given are zero or empty."""
    cls = STORE.types[kind]
    defaults = {}
    for name, (node, detail) in STORE.fielddefs[kind][1]:
        if name in values:
            value = values[name]
            if (
                node.name == 'SEQUENCE'
                and detail[0][0].name == 'BASE'
                and detail[0][1][0] != 'string'
            ):
                value = np.asarray(value, dtype=_dtype(detail[0][1][0]))
            defaults[name] = value
        elif node.name == 'BASE':
            defaults[name] = {'string': '', 'bool': False}.get(detail[0], 0)
        elif node.name == 'NAME':
            defaults[name] = make(detail)
        elif detail[0][0].name == 'BASE' and detail[0][1][0] != 'string':
            defaults[name] = np.zeros(0, _dtype(detail[0][1][0]))
        else:
            defaults[name] = []
    return cls(**defaults)


def _dtype(name: str) -> str:
    return {'byte': 'uint8', 'octet': 'uint8'}.get(name, name)


def time(stamp_ns: int) -> Any:
    seconds, rest = divmod(stamp_ns, 10**9)
    return make('builtin_interfaces/msg/Time', sec=seconds, nanosec=rest)


def header(stamp_ns: int) -> Any:
    return make('std_msgs/msg/Header', stamp=time(stamp_ns))


def jpeg(grey: int) -> bytes:
    """An image of one brightness, so that a test can tell which one a row shows."""
    ok, data = cv2.imencode('.jpg', np.full((16, 16, 3), grey, np.uint8))
    assert ok
    return data.tobytes()


@dataclass
class Bag:
    """Collects messages with times in ms after T0, then writes them in the order of log time."""

    rows: list[tuple[int, str, str, bytes]] = field(default_factory=list)

    def add(self, topic: str, kind: str, message: Any, log_ms: float) -> None:
        data = bytes(STORE.serialize_cdr(message, kind))
        self.rows.append((T0 + round(log_ms * MS), topic, kind, data))

    def joints(
        self,
        ms: float,
        a: float,
        b: float = 0.0,
        log_ms: float | None = None,
        stamp_ns: int | None = None,
        names: tuple[str, ...] = ('a', 'b'),
    ) -> None:
        stamp = T0 + round(ms * MS) if stamp_ns is None else stamp_ns
        message = make(
            JOINTS, header=header(stamp), name=list(names), position=[a, b][: len(names)]
        )
        self.add('/joint_states', JOINTS, message, ms if log_ms is None else log_ms)

    def image(
        self, ms: float, grey: int, log_ms: float | None = None, data: bytes | None = None
    ) -> None:
        message = make(
            JPEG,
            header=header(T0 + round(ms * MS)),
            format='jpeg',
            data=np.frombuffer(jpeg(grey) if data is None else data, np.uint8),
        )
        self.add('/front', JPEG, message, ms if log_ms is None else log_ms)

    def arm(self, ms: float, a: float) -> None:
        point = make('trajectory_msgs/msg/JointTrajectoryPoint', positions=[a])
        message = make(
            TRAJECTORY, header=header(T0 + round(ms * MS)), joint_names=['a'], points=[point]
        )
        self.add('/arm', TRAJECTORY, message, ms)

    def grip(self, log_ms: float, value: float) -> None:
        self.add('/gripper', ARRAY, make(ARRAY, data=[value]), log_ms)

    def event(self, ms: float, kind: int, episode: str = 'e', **values: Any) -> None:
        message = make(
            EVENT, header=header(T0 + round(ms * MS)), kind=kind, episode_id=episode, **values
        )
        self.add('/episode/events', EVENT, message, ms)

    def step(
        self,
        number: int,
        ms: float,
        stamps: dict[str, float],
        episode: str = 'e',
        valid: bool = True,
        **values: Any,
    ) -> None:
        message = make(
            STEP,
            header=header(T0 + round(max(stamps.values()) * MS)),
            episode_id=episode,
            step=number,
            tick=time(T0 + round(ms * MS)),
            streams=list(stamps),
            stream_stamps=[time(T0 + round(each * MS)) for each in stamps.values()],
            stream_valid=[valid] * len(stamps),
            **values,
        )
        self.add('/policy/step', STEP, message, ms + 20)

    def write(self, path: Path, storage: str = 'mcap', definitions: bool = True) -> Path:
        with Writer(path, version=9, storage_plugin=PLUGINS[storage]) as writer:
            connections: dict[str, Any] = {}
            for log_ns, topic, kind, data in sorted(self.rows, key=lambda row: row[0]):
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
                writer.write(connections[topic], log_ns, data)
        return path


def steady(seconds: float = 1.0, events: bool = True, start_ms: float = 0.0) -> Bag:
    """A healthy episode of the contract above: joints every 20 ms, images every 50 ms, commands
    40 ms after each tick; joint a is 0.001 * ms, commands ask for 0.001 * ms too.
    """
    bag = Bag()
    stop = start_ms + seconds * 1000
    for ms in np.arange(start_ms - 40, stop + 1, 20):
        bag.joints(ms, 0.001 * ms, -0.001 * ms)
    for number, ms in enumerate(np.arange(start_ms - 50, stop + 1, 50)):
        bag.image(ms, 10 + 5 * number % 240)
    for ms in np.arange(start_ms, stop, 100):
        bag.arm(ms + 40, 0.001 * (ms + 40))
        bag.grip(ms + 41, float(ms >= start_ms + 500))
    if events:
        bag.event(start_ms, 0, instruction='push', source='teleop')
        bag.event(stop, 1, outcome='success')
    return bag
