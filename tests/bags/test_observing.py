"""All cameras of an episode come out of one pass over the bag, each in the order of its rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_bags import T0, Bag, contract, steady

from qt_ros.bags.accounting import _inside
from qt_ros.bags.index import index_bag
from qt_ros.bags.observing import BagImages, Unusable, read_numbers, state_numbers
from qt_ros.bags.reader import BagReader
from qt_ros.bags.segments import Segment
from qt_ros.contract import Camera
from qt_ros.errors import BagError

FRONT = contract().cameras[0]
JOINTS = contract().state[0]


def grey(frame: np.ndarray) -> int:
    return int(frame.mean().round())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9)))
def test_frames_follow_the_rows_whatever_their_order(
    tmp_path_factory, front: list[int], half: list[int]
) -> None:
    """Two cameras, one of them a crop of the other's topic; rows may go back and repeat."""
    bag = Bag()
    for number in range(10):
        bag.image(number, 10 + 20 * number)
    cameras = [FRONT, replace(FRONT, name='half', crop=(0, 0, 8, 16))]
    shown = {'front': front, 'half': half}
    with BagReader(bag.write(tmp_path_factory.mktemp('bag') / 'bag')) as reader:
        known = index_bag(reader)['/front'].ordinals
        images = BagImages(
            reader, cameras, {name: known[np.array(rows, int)] for name, rows in shown.items()}
        )
        together: dict[str, list[int]] = {'front': [], 'half': []}
        for name, frame in images.together():
            assert frame.shape == (16, 16, 3)
            together[name].append(grey(frame))
        alone = {name: [grey(frame) for frame in images[name]()] for name in images}
    assert together == alone
    for name, rows in shown.items():
        wanted = [10 + 20 * number for number in rows]
        assert together[name] == pytest.approx(wanted, abs=2)


def test_a_picture_that_does_not_decode_is_named(tmp_path: Path) -> None:
    bag = steady()
    bag.image(460, 0, data=b'\xff\xd8 no picture')
    with BagReader(bag.write(tmp_path / 'bag')) as reader:
        ordinals = index_bag(reader)['/front'].ordinals
        images = BagImages(reader, [FRONT], {'front': ordinals})
        with pytest.raises(Unusable, match='front: message') as caught:
            list(images.together())
        assert caught.value.ordinal in ordinals
        with pytest.raises(KeyError):
            images['rear']


def test_numbers_come_back_in_the_order_in_which_they_are_asked_for(tmp_path: Path) -> None:
    with BagReader(steady().write(tmp_path / 'bag')) as reader:
        ordinals = index_bag(reader)['/joint_states'].ordinals
        wanted = ordinals[np.array([5, 3, 3, 40])]
        (values,) = read_numbers(reader, [state_numbers(JOINTS, '/joint_states', wanted)])
        # Joint states come every 20 ms from -40; joint a is 0.001 * ms.
        expected = [[0.06, -0.06], [0.02, -0.02], [0.02, -0.02], [0.76, -0.76]]
        assert values == pytest.approx(np.array(expected))
        (nothing,) = read_numbers(reader, [state_numbers(JOINTS, '/joint_states', ordinals[:0])])
        assert nothing.shape == (0, 2)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_many_messages_are_fetched_in_blocks(tmp_path: Path, storage: str) -> None:
    bag = Bag()
    for ms in range(9000):
        bag.joints(ms, ms, -ms)
    with BagReader(bag.write(tmp_path / 'bag', storage)) as reader:
        ordinals = index_bag(reader)['/joint_states'].ordinals
        (values,) = read_numbers(reader, [state_numbers(JOINTS, '/joint_states', ordinals[::-1])])
    assert values[:, 0].tolist() == list(range(8999, -1, -1))


def test_messages_that_are_gone_are_told(tmp_path: Path) -> None:
    with BagReader(steady().write(tmp_path / 'bag')) as reader:
        index_bag(reader)
        beyond = np.array([10**6])
        with pytest.raises(BagError, match='gone in the second'):
            read_numbers(reader, [state_numbers(JOINTS, '/joint_states', beyond)])
        with pytest.raises(BagError, match='gone in the second'):
            list(BagImages(reader, [FRONT], {'front': beyond}).together())


def test_cameras_of_another_type_are_refused(tmp_path: Path) -> None:
    odd = Camera('front', '/joint_states', 'sensor_msgs/msg/JointState', (16, 16))
    with BagReader(steady().write(tmp_path / 'bag')) as reader:
        ordinals = index_bag(reader)['/joint_states'].ordinals
        with pytest.raises(Unusable, match='is no image'):
            list(BagImages(reader, [odd], {'front': ordinals}).together())


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=8),
    st.lists(st.integers(-5, 80), max_size=20),
)
def test_what_lies_within_a_segment(bounds: list[tuple[int, int]], times: list[int]) -> None:
    segments = [Segment('e', T0 + start, T0 + start + length) for start, length in bounds]
    found = _inside(np.array(times, np.int64) + T0, segments)
    wanted = [any(low <= t <= low + length for low, length in bounds) for t in times]
    assert found.tolist() == wanted
