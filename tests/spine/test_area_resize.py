"""Pictures are shrunk to the mean of what a pixel covers, whichever library does it."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from qt_ros.images.area_resize import FACTORS, SMALLEST_SIDE, resize_by_area

FIRST = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)


def shares(old: int, new: int) -> np.ndarray:
    """Return (new, old): how much of each old pixel a new one covers, summing to 1."""
    found = np.zeros((new, old))
    for row in range(new):
        low, high = row * old / new, (row + 1) * old / new
        for column in range(int(low), min(old, int(np.ceil(high)))):
            found[row, column] = min(high, column + 1) - max(low, column)
    return found / found.sum(axis=1, keepdims=True)


def mean_of_area(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows = shares(pixels.shape[0], size[0])
    columns = shares(pixels.shape[1], size[1])
    mean = np.tensordot(rows, pixels.astype(np.float64), (1, 0))
    return np.moveaxis(np.tensordot(columns, mean, (1, 1)), 0, 1)


def picture(seed: int, shape: tuple[int, ...], kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == 'flat':
        return np.full(shape, rng.integers(0, 256), np.uint8)
    if kind == 'black and white':  # the hardest: neighbours differ by 255
        return (255 * rng.integers(0, 2, shape)).astype(np.uint8)
    return rng.integers(0, 256, shape, dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(20, 200), st.integers(20, 200)),
    st.tuples(st.integers(4, 130), st.integers(4, 130)),
    st.booleans(),
    st.sampled_from(['flat', 'black and white', 'any']),
)
@example(0, (480, 640), (256, 320), True, 'any')
@example(0, (480, 640), (224, 224), True, 'black and white')
@example(0, (480, 640), (96, 96), False, 'any')
@example(0, (120, 160), (16, 16), True, 'any')
def test_a_pixel_is_the_mean_of_what_it_covers(seed, shape, size, colour, kind) -> None:
    assume(size[0] <= shape[0] and size[1] <= shape[1])
    pixels = picture(seed, (*shape, 3) if colour else shape, kind)
    found = resize_by_area(pixels, size)
    assert found.shape == size + pixels.shape[2:]
    assert found.dtype == np.uint8
    wrong = np.abs(found - mean_of_area(pixels, size))
    assert wrong.max() <= (0.6 if kind == 'flat' else 1.3)
    assert abs(float((found - mean_of_area(pixels, size)).mean())) < 0.25


def test_what_is_read_is_fresh_and_does_not_depend_on_memory() -> None:
    wide = np.zeros((480, 700, 3), np.uint8)
    wide[:, 30:670] = FIRST
    for given_pixels in (FIRST, wide[:, 30:670], np.asfortranarray(FIRST)):
        found = resize_by_area(given_pixels, (256, 320))
        assert np.array_equal(found, resize_by_area(FIRST, (256, 320)))
    before = found.copy()
    resize_by_area(255 - FIRST, (256, 320))
    assert np.array_equal(found, before)
    found[...] = 0  # and it is ours to write to
    assert found.flags.c_contiguous


def test_threads_do_not_meet() -> None:
    pictures = [np.roll(FIRST, 40 * n, axis=1) for n in range(4)]
    wanted = [resize_by_area(each, (96, 96)) for each in pictures]
    same: list[bool] = []

    def work(number: int) -> None:
        for _ in range(30):
            found = resize_by_area(pictures[number], (96, 96))
            same.append(np.array_equal(found, wanted[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(same) == 120
    assert all(same)


@pytest.mark.parametrize('size', [(64, 9), (600, 700), (480, 640), (1, 1), (240, 320), (470, 640)])
def test_other_sizes_are_opencvs(size: tuple[int, int]) -> None:
    wanted = cv2.resize(FIRST, size[::-1], interpolation=cv2.INTER_AREA)
    assert np.array_equal(resize_by_area(FIRST, size), wanted)


def test_many_shapes_cost_no_more_than_a_few() -> None:
    from qt_ros.images.area_resize import _SHAPES, _kept

    for height in range(60, 90):
        resize_by_area(np.zeros((height, 80, 3), np.uint8), (SMALLEST_SIDE, 40))
    assert len(_kept.shrinkers) <= _SHAPES
    assert FACTORS[0] > 1
