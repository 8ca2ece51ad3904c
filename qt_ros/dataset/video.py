"""Frames to h264 and back. Encoding is a pure function of the frames, so workers can call it.

h264, yuv420p, a key frame every 2 frames and no B-frames: any frame is one step from a key frame,
which is what random access in training needs, at a quarter of the cost of AV1. Frame k has time
k / fps exactly; colours are BT.601, limited range, and the file says so.

Of x264's presets the quickest, at a higher quality: against veryfast at crf 14 it encodes 256x320
camera pictures in a third of the time, decodes in half, keeps as much (40.4 dB against 40.2) and
takes 11 % more room (`bench/convert.py` says what encoding costs).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from qt_ros.contract import Contract
from qt_ros.dataset.files import REFUSED, plain_errors
from qt_ros.dataset.stats import FeatureStats, ImageStats
from qt_ros.episode import Episode
from qt_ros.errors import DatasetError

# What PyAV raises for files without a video, without a known codec, or with wrong lengths.
DAMAGED = (av.FFmpegError, OSError, IndexError, AttributeError, ValueError)
CRF = 16  # 0 lossless .. 51; what is lost at 16 is less than what yuv420p takes
ENCODER = {
    'crf': str(CRF),
    'preset': 'ultrafast',
    'g': '2',
    'bf': '0',
    'threads': '1',
    # Looking ahead gains nothing with g=2, holds frames in memory, and made one encoding in a
    # hundred of a tiny picture differ from the others.
    'x264-params': 'mbtree=0:rc-lookahead=0',
}
BT601 = 6  # SMPTE 170M, as h264 counts matrices, primaries and transfer curves
# swscale's bicubic with accurate rounding and chroma of full width: without the last three the
# picture comes back 1.5 grey levels too dark. As a number, since older PyAV does not name them.
SCALER = 0x4 | 0x40000 | 0x2000 | 0x4000


@dataclass(frozen=True)
class EncodedVideo:
    """One camera of one episode, on disk but not yet part of a dataset."""

    path: Path
    frames: int  # as read back from the file
    sha256: str  # of the file (hex)
    stats: FeatureStats


class _Converter:
    """Pixel formats to and fro, with one swscale context for all frames, on this thread alone."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._picture = av.VideoFrame(2, 2, 'rgb24')
        self._pixels: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)  # the picture's memory
        self._options: dict[str, int] = {'threads': 1}
        try:
            self._reformatter.reformat(av.VideoFrame(2, 2, 'rgb24'), format='gray', threads=1)
        except TypeError:  # PyAV < 17 has no such argument and always stays on this thread
            self._options = {}

    def to_yuv(self, frame: NDArray[np.uint8]) -> av.VideoFrame:
        height, width, _ = frame.shape
        if self._pixels.shape != (height, 3 * width):
            self._picture = av.VideoFrame(width, height, 'rgb24')
            plane = self._picture.planes[0]
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            self._pixels = rows[:height, : 3 * width]
        self._pixels[...] = frame.reshape(height, 3 * width)
        return self._reformatter.reformat(
            self._picture,
            format='yuv420p',
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            interpolation=SCALER,
            **self._options,
        )

    def to_rgb(self, picture: av.VideoFrame) -> NDArray[np.uint8]:
        converted = self._reformatter.reformat(
            picture, format='rgb24', interpolation=SCALER, **self._options
        )
        return converted.to_ndarray().astype(np.uint8, copy=False)


EncodedEpisode = Mapping[str, EncodedVideo]  # camera -> its video


def frame_rate(rate_hz: float) -> Fraction:
    """Return frames per second as the fraction that the file holds."""
    return Fraction(rate_hz).limit_denominator(1001)


def encode_videos(episode: Episode, staging: Path, contract: Contract) -> dict[str, EncodedVideo]:
    """Encode every camera of `episode` into `staging`/<camera>.mp4; T frames each.

    The cameras are encoded side by side, as `Episode.frames` hands them out. Touches nothing but
    `staging`, which must be a folder of this episode alone; safe to call from other threads and
    processes. Raises `DatasetError` if a camera gives another number of frames than there are
    rows, frames of another size, or if the file read back disagrees.
    """
    with plain_errors(staging):
        staging.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        writers = {
            camera.name: stack.enter_context(
                VideoWriter(
                    staging / f'{camera.name}.mp4',
                    length=len(episode),
                    size=camera.size,
                    rate_hz=contract.rate_hz,
                    what=f'episode {episode.episode_id}: camera {camera.name}',
                )
            )
            for camera in contract.cameras
        }
        for name, frame in episode.frames():
            if name in writers:
                writers[name].add(frame)
    return {name: writer.result() for name, writer in writers.items()}


class VideoWriter:
    """Writes one camera of one episode, `length` frames of `size` = (height, width).

    with VideoWriter(path, length=2, size=(48, 64), rate_hz=10.0, what='camera front') as video:
        video.add(frame)
        video.add(frame)
    encoded = video.result()
    """

    def __init__(
        self, path: Path, *, length: int, size: tuple[int, int], rate_hz: float, what: str
    ) -> None:
        self.path = path
        self.written = 0
        self._length, self._size, self._what = length, size, what
        self._rate = frame_rate(rate_hz)
        self._time_base = 1 / self._rate
        self._stats = ImageStats(length)
        self._convert = _Converter()
        self._mux = ExitStack()

    def __enter__(self) -> VideoWriter:
        rate = self._rate
        with self._plain_errors(), ExitStack() as stack:
            container = stack.enter_context(av.open(str(self.path), 'w', format='mp4'))
            stream = container.add_stream('libx264', rate=rate, options=ENCODER)
            stream.height, stream.width = self._size
            stream.pix_fmt = 'yuv420p'
            stream.time_base = self._time_base
            context = stream.codec_context
            context.time_base = self._time_base
            context.color_range = ColorRange.MPEG
            context.colorspace = context.color_primaries = context.color_trc = BT601
            self._container, self._stream = container, stream
            self._mux = stack.pop_all()
        return self

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Encode the next frame (H, W, 3) uint8 RGB."""
        if frame.shape != (*self._size, 3) or frame.dtype != np.uint8:
            raise DatasetError(
                f'{self._what} frame {self.written} is {frame.dtype} {frame.shape}; expected uint8'
                f' {(*self._size, 3)}'
            )
        self._stats.add(frame)
        picture = self._convert.to_yuv(frame)
        picture.pts = self.written
        picture.time_base = self._time_base
        with self._plain_errors():
            self._container.mux(self._stream.encode(picture))
        self.written += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:  # what went wrong matters, not what closing a part of a file says
            with suppress(av.FFmpegError, OSError):
                self._mux.close()
            return
        with self._plain_errors(), self._mux:
            self._container.mux(self._stream.encode(None))

    def result(self) -> EncodedVideo:
        """Read the closed file back and return what it is; raise `DatasetError` if it is wrong."""
        what, length = self._what, self._length
        if self.written != length:
            raise DatasetError(
                f'{what} gave {self.written} frames for {length} rows; they must agree'
            )
        with self._plain_errors():
            found = count_frames(self.path)
        if found != length:
            raise DatasetError(f'{what} was written with {length} frames but reads back {found}')
        return EncodedVideo(
            path=self.path,
            frames=found,
            sha256=file_sha256(self.path),
            stats=self._stats.result(),
        )

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Turn what FFmpeg and the disk say into a `DatasetError`."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            if error.errno in REFUSED:
                with plain_errors(self.path):
                    raise OSError(error.errno, os.strerror(error.errno)) from error
            raise DatasetError(
                f'{self._what} cannot be encoded into {self.path}: {error}'
            ) from error


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file of any size."""
    found = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def count_frames(path: Path) -> int:
    """Return how many coded frames the file holds, by reading its packets.

    Raises `DatasetError` if it is no video, or a damaged one.
    """
    try:
        with av.open(str(path)) as container:
            return sum(1 for packet in container.demux(video=0) if packet.size)
    except DAMAGED as error:
        raise DatasetError(f'{path} is no sound video ({error}); convert its bag again') from error


def decode_video(path: Path, first: int, length: int) -> Iterator[NDArray[np.uint8]]:
    """Yield frames `first` to `first + length` (excluded) of the file, (H, W, 3) uint8 RGB.

    Raises `DatasetError` if the file is missing, damaged or too short.
    """
    given = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            convert = _Converter()
            for index, picture in enumerate(container.decode(stream)):
                if index < first:
                    continue
                if given == length:
                    return
                given += 1
                yield convert.to_rgb(picture)
    except DAMAGED as error:
        raise DatasetError(f'{path} cannot be decoded ({error}); convert its bag again') from error
    if given < length:
        raise DatasetError(
            f'{path} ends after {first + given} frames, {first + length} are needed; convert its'
            ' bag again'
        )
