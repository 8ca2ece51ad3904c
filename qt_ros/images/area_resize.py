"""Shrink 8-bit pictures by area: every pixel is the mean of what it covers, rounded.

OpenCV takes two thirds of the time of decoding a JPEG for it, unless a pixel covers a whole number
of pixels each way. FFmpeg's scaler has the same filter in vector code and is twice as fast, though
it scales planes only and colours have to go through three of them.

    480x640x3 to 256x320, just decoded    OpenCV 0.93 ms, FFmpeg 0.45 ms

The result depends on the pixels and the two sizes alone (FFmpeg is told to be bit-exact), so the
robot and the converter see the same picture. It is within one grey level of the true mean.
"""

from __future__ import annotations

import threading
from functools import cache, lru_cache
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

# Below the smallest factor FFmpeg's positions are too coarse, beyond the largest its filters end.
FACTORS = (1.75, 16)
SMALLEST_SIDE = 16
BY_AREA = 0x20 | 0x40000 | 0x80000  # area, accurate rounding, bit-exact: numbers of swscale
_FORMATS = {1: 'gray', 3: 'yuv444p'}  # three planes of one size, whatever they mean
_SHAPES = 8  # whose memory a thread keeps
_LARGEST = 2**23  # pixels of such a picture (4K is 8.3 million): what is kept stays below 200 MB


def resize_by_area(pixels: Pixels, size: tuple[int, int], swap: bool = False) -> Pixels:
    """Resize (H, W) or (H, W, 3) uint8 to `size` = (height, width), into fresh memory.

    Each way by its own factor. A picture that grows is interpolated, as OpenCV does it. `swap`
    turns BGR into RGB, and back.
    """
    height, width = size
    if _suits_ffmpeg(pixels.shape, size):
        return _shrinker(pixels.shape)(pixels, size, swap)
    found = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    if swap:
        found = cv2.cvtColor(found, cv2.COLOR_BGR2RGB)
    return np.asarray(found, dtype=np.uint8)


@lru_cache(maxsize=64)
def _suits_ffmpeg(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Say whether FFmpeg does it well; whole factors OpenCV does as fast."""
    low, high = FACTORS
    pairs = list(zip(shape[:2], size, strict=True))
    return (
        shape[2:] in ((), (3,))
        and shape[0] * shape[1] <= _LARGEST
        and min(size) >= SMALLEST_SIDE
        and all(low * new <= old <= high * new for old, new in pairs)
        and any(old % new for old, new in pairs)
    )


class _Shrinker:
    """The planes of pictures of one shape, and the scaler that reads them."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        height, width = shape[:2]
        self._frame = av.VideoFrame(width, height, _FORMATS[3 if shape[2:] else 1])
        self._planes = [_view(plane, height, width) for plane in self._frame.planes]
        self._scaler = VideoReformatter()
        form = self._frame.format.name
        self._options: dict[str, Any] = {'format': form, 'interpolation': BY_AREA, **_one_thread()}

    def __call__(self, pixels: Pixels, size: tuple[int, int], swap: bool) -> Pixels:
        height, width = size
        if pixels.ndim == 2:
            self._planes[0][...] = pixels
        else:
            cv2.split(pixels, self._planes)
        small = self._scaler.reformat(self._frame, width=width, height=height, **self._options)
        planes = [_view(plane, height, width) for plane in small.planes]
        if pixels.ndim == 2:
            return planes[0].copy()
        return np.asarray(cv2.merge(planes[::-1] if swap else planes))


def _view(plane: av.video.plane.VideoPlane, height: int, width: int) -> Pixels:
    """Return the pixels of a plane, without what pads its rows."""
    step = plane.line_size
    return np.ndarray((height, width), np.uint8, memoryview(plane), strides=(step, 1))


class _Kept(threading.local):
    def __init__(self) -> None:
        self.shrinkers: dict[tuple[int, ...], _Shrinker] = {}


_kept = _Kept()


def _shrinker(shape: tuple[int, ...]) -> _Shrinker:
    """Return this thread's shrinker of a shape; few are kept, for a bag may hold any sizes."""
    found = _kept.shrinkers.get(shape)
    if found is None:
        if len(_kept.shrinkers) == _SHAPES:
            del _kept.shrinkers[next(iter(_kept.shrinkers))]
        found = _kept.shrinkers[shape] = _Shrinker(shape)
    return found


@cache
def _one_thread() -> dict[str, int]:
    """Return the argument that keeps the scaler on this thread; PyAV < 17 always does."""
    try:
        VideoReformatter().reformat(av.VideoFrame(2, 2, 'rgb24'), format='gray', threads=1)
    except TypeError:
        return {}
    return {'threads': 1}
