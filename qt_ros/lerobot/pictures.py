"""Pictures of a LeRobot set: frames of a long video, or images that lie in the rows.

A video file holds many episodes one after another. Frame j of an episode is shown at
`from_timestamp + j / fps`; whichever frame of the file is nearest to that is it, within half a
frame, so neither the codec nor what the file holds before matters.

Depth is stored by LeRobot as codes of 12 bits, 0 for what is not known, or as images in
millimetres (16 bits) or metres (floats); all become metres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from qt_ros.dataset.video import SCALER
from qt_ros.images.compressed import read_compressed
from qt_ros.images.depth import known_metres, metres_from_mm
from qt_ros.images.picture import DEPTH, RGB, Picture
from qt_ros.lerobot.errors import EpisodeError
from qt_ros.lerobot.info import Feature
from qt_ros.message_types import DecodeError

DEPTH_CODES = 4095  # the largest code of 12 bits
_DEPTH_FORMAT = 'gray12le'
_TIFF = (b'II*\0', b'MM\0*')


def video_pictures(
    path: Path, start_s: float, fps: float, wanted: Sequence[int], feature: Feature, what: str
) -> Iterator[Picture]:
    """Yield the frames `wanted` (which never decrease) of the episode that begins at `start_s`.

    Raises `EpisodeError` if the file is missing or damaged, or has no frame for one of them.
    """
    left = _Wanted(wanted)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = 'AUTO'
            if start_s > 0 and stream.time_base is not None:
                container.seek(round((start_s - 0.5 / fps) / stream.time_base), stream=stream)
            reformatter = VideoReformatter()
            for frame in container.decode(stream):
                if frame.time is None:
                    continue
                row = round((frame.time - start_s) * fps)
                if row > left.next:
                    break
                if row == left.next and frame.is_corrupt:  # the decoder made up for lost data
                    raise EpisodeError(f'{what} is damaged at frame {row}; restore the file')
                yield from left.take(row, partial(_frame, frame, reformatter, feature))
                if left.done:
                    return
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        raise EpisodeError(f'{what} cannot be decoded ({error}); restore the file') from error
    raise EpisodeError(
        f'{what} has no frame {left.next} (at {start_s + left.next / fps:.3f} s of the file); the'
        ' video is cut off or frames were dropped'
    )


def image_pictures(
    images: Iterable[bytes], wanted: Sequence[int], feature: Feature, what: str
) -> Iterator[Picture]:
    """Yield the pictures `wanted` (which never decrease) of those in `images`."""
    left = _Wanted(wanted)
    for row, data in enumerate(images):
        yield from left.take(row, partial(_image, data, feature, f'{what} of row {row}'))
        if left.done:
            return
    raise EpisodeError(f'{what} ends before row {left.next}')


class _Wanted:
    """Walk over the rows that are wanted; a row may be wanted several times."""

    def __init__(self, rows: Sequence[int]) -> None:
        self._rows = rows
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at >= len(self._rows)

    @property
    def next(self) -> int:
        return int(self._rows[self._at])

    def take(self, row: int, decode: Callable[[], Picture]) -> Iterator[Picture]:
        """Yield what `decode` returns as often as `row` is wanted now; decode it once."""
        if self.done or self.next != row:
            return
        picture = decode()
        while not self.done and self.next == row:
            self._at += 1
            yield picture


def _frame(frame: av.VideoFrame, reformatter: VideoReformatter, feature: Feature) -> Picture:
    if not feature.depth:
        converted = reformatter.reformat(frame, format='rgb24', interpolation=SCALER)
        return Picture(converted.to_ndarray(), RGB, feature.key)
    codes = np.asarray(frame.to_ndarray(format=_DEPTH_FORMAT), np.uint16)
    return Picture(metres_from_codes(codes, feature), DEPTH, feature.key)


def metres_from_codes(codes: NDArray[np.uint16], feature: Feature) -> NDArray[np.float32]:
    """Return metres (H, W) from LeRobot's codes, linear or logarithmic between its two ends."""
    low, high, shift, logarithmic = feature.depth_code
    share = codes.astype(np.float64) / DEPTH_CODES
    if logarithmic:
        ends = np.log([low + shift, high + shift])
        metres = np.exp(ends[0] + share * (ends[1] - ends[0])) - shift
    else:
        metres = low + share * (high - low)
    return known_metres(np.where(codes > 0, metres, np.nan))


def _image(data: bytes, feature: Feature, what: str) -> Picture:
    if feature.depth and data[:4] in _TIFF:
        return Picture(_tiff_metres(data, what), DEPTH, feature.key)
    try:
        message = SimpleNamespace(data=data, format=feature.key)
        picture = read_compressed(message, as_depth=feature.depth)
    except DecodeError as error:
        raise EpisodeError(f'{what}: {error}') from error
    if feature.depth and picture.kind != DEPTH:
        raise EpisodeError(f'{what} holds no depth; 16-bit grey PNG or TIFF is needed')
    return picture


def _tiff_metres(data: bytes, what: str) -> NDArray[np.float32]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None or image.ndim != 2 or image.dtype not in (np.uint16, np.float32):
        raise EpisodeError(f'{what} is damaged, or no TIFF of 16-bit or float depth; restore it')
    if image.dtype == np.uint16:
        return metres_from_mm(np.asarray(image, np.uint16))
    return known_metres(image)
