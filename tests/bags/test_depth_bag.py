"""A recording with a depth camera and a nameless gripper, by way of the dataset, to metres."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
from made_bags import JOINTS, JPEG, MS, T0, Bag, header, make

from qt_ros.bags.converter import convert
from qt_ros.contract import Contract
from qt_ros.dataset import Dataset
from qt_ros.images.depth import metres_from_grey

NEAR, FAR = 0.2, 2.2
STEP_M = (FAR - NEAR) / 254
HEIGHT, WIDTH = 120, 160

CONTRACT = Contract.parse(f"""
name: deep
rate_hz: 10
clock: header
cameras:
  depth:
    topic: /depth
    type: {JPEG}
    size: [40, 48]
    crop: [20, 16, 80, 96]
    depth_m: [{NEAR}, {FAR}]
state:
  - {{name: grip, topic: /grip, type: {JOINTS}, fields: [position.0, position.1], by_index: true}}
action:
  - topic: /grip_command
    type: {JOINTS}
    by_index: true
    dims:
      - {{name: left, field: position.0, base: grip.position.0, mode: delta,
         low: -1, high: 1, bins: 3}}
      - {{name: right, field: position.1, low: 0, high: 9, bins: 2}}
episodes: one_per_bag
""")


def scene(number: int) -> np.ndarray:
    """A slope whose depth falls with each frame, with a box that is nearer and a hole."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    metres = 1.9 - 0.004 * rows - 0.002 * columns - 0.03 * number
    metres[50:80, 60:100] = 0.6
    metres[30:48, 20:40] = np.nan
    return metres.astype(np.float32)


def compressed_depth(metres: np.ndarray) -> bytes:
    millimetres = np.rint(np.nan_to_num(metres) * 1000).astype(np.uint16)
    return struct.pack('<iff', 0, 0, 0) + cv2.imencode('.png', millimetres)[1].tobytes()


def add_depth(bag: Bag, ms: int, data: bytes) -> None:
    message = make(
        JPEG,
        header=header(T0 + ms * MS),
        format='16UC1; compressedDepth png',
        data=np.frombuffer(data, np.uint8),
    )
    bag.add('/depth', JPEG, message, ms)


def add_grip(bag: Bag, topic: str, ms: int, position: list[float]) -> None:
    message = make(JOINTS, header=header(T0 + ms * MS), position=position)
    bag.add(topic, JOINTS, message, ms)


def recording() -> Bag:
    bag = Bag()
    for k in range(11):
        add_depth(bag, 100 * k, compressed_depth(scene(k)))
        add_grip(bag, '/grip', 100 * k, [0.5 * k, -k])
        add_grip(bag, '/grip_command', 100 * k + 50, [0.5 * k + 0.25, k % 2])
    return bag


def test_depth_comes_back_in_metres_from_the_dataset(tmp_path: Path) -> None:
    recording().write(tmp_path / 'bag')
    result = convert([tmp_path / 'bag'], CONTRACT, tmp_path / 'set')
    assert result.status == 0, result.report
    dataset = Dataset(tmp_path / 'set')
    rows = dataset.rows(0)
    # Row k starts from what was commanded before: measured 0 in the first, then 0.5 k - 0.25.
    assert np.array(rows['action'].tolist())[:, 0].tolist() == [0.25] + [0.5] * 9
    assert np.array(rows['action'].tolist())[:, 1].tolist() == [k % 2 for k in range(10)]
    frames = list(dataset.iter_frames(0, 'depth'))
    assert len(frames) == 10
    for k, frame in enumerate(frames):
        found = metres_from_grey(frame, (NEAR, FAR))
        # A pixel is the mean of 2x2 recorded ones; the parts below are away from edges.
        expected = scene(k)[20:100, 16:112].reshape(40, 2, 48, 2).mean(axis=(1, 3))
        plain = np.zeros((40, 48), bool)
        plain[34:38, 2:46] = True  # the slope below the box
        plain[18:27, 25:39] = True  # the box
        plain[2:36, 44:47] = True
        error = np.abs(found - expected)[plain]
        assert np.median(error) < STEP_M
        assert error.max() < 6 * STEP_M
        assert (frame[8:12, 5:9] < 8).all()  # the hole


def test_an_image_without_the_crop_is_passed_over_and_told(tmp_path: Path) -> None:
    bag = recording()
    bag.rows = [r for r in bag.rows if not (r[1] == '/depth' and r[0] == T0 + 300 * MS)]
    add_depth(bag, 300, compressed_depth(scene(3)[:60]))
    bag.write(tmp_path / 'bag')
    report = convert([tmp_path / 'bag'], CONTRACT, tmp_path / 'set').report
    (entry,) = report['per_bag']
    assert any('the image is 60x160' in text for text in entry['problems'])
    assert any('crop needs 100x112' in text for text in entry['problems'])
    account = entry['topics']['/depth']
    assert account['read'] == 11
    assert account['read'] == account['used'] + sum(account['skipped'].values())
    assert Dataset(tmp_path / 'set').episodes[0].length == 10
