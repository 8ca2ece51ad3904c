"""Frames to h264 and back. Encoding is a pure function of the frames, so workers can call it.

h264, yuv420p, a key frame every 2 frames and no B-frames: any frame is one step from a key frame,
which is what random access in training needs, at a quarter of the cost of AV1. Frame k has time
k / fps exactly; colours are BT.601, limited range, and the file says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from qt_ros.contract import Contract
from qt_ros.dataset.stats import FeatureStats, ImageStats
from qt_ros.episode import Episode
from qt_ros.errors import DatasetError

CRF = 14  # 0 lossless .. 51; what is lost at 14 is less than what yuv420p takes
ENCODER = {
    'crf': str(CRF),
    'preset': 'veryfast',
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
        self._options: dict[str, int] = {'threads': 1}
        try:
            self._reformatter.reformat(av.VideoFrame(2, 2, 'rgb24'), format='gray', threads=1)
        except TypeError:  # PyAV < 17 has no such argument and always stays on this thread
            self._options = {}

    def to_yuv(self, frame: NDArray[np.uint8]) -> av.VideoFrame:
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format='rgb24'),
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

    Touches nothing but `staging`, which must be a folder of this episode alone; safe to call from
    other threads and processes. Raises `DatasetError` if a camera gives another number of frames
    than there are rows, frames of another size, or if the file read back disagrees.
    """
    staging.mkdir(parents=True, exist_ok=True)
    encoded = {}
    for camera in contract.cameras:
        encoded[camera.name] = encode_video(
            episode.images[camera.name](),
            staging / f'{camera.name}.mp4',
            length=len(episode),
            size=camera.size,
            rate_hz=contract.rate_hz,
            what=f'episode {episode.episode_id}: camera {camera.name}',
        )
    return encoded


def encode_video(
    frames: Iterator[NDArray[np.uint8]],
    path: Path,
    *,
    length: int,
    size: tuple[int, int],
    rate_hz: float,
    what: str,
) -> EncodedVideo:
    """Write `length` frames (H, W, 3) uint8 RGB to `path` and count them on reading back."""
    stats = ImageStats(length)
    try:
        written = _write(frames, path, size, rate_hz, what, stats)
        found = count_frames(path)
    except (av.FFmpegError, OSError) as error:
        raise DatasetError(f'{what} cannot be encoded into {path}: {error}') from error
    if written != length:
        raise DatasetError(f'{what} gave {written} frames for {length} rows; they must agree')
    if found != length:
        raise DatasetError(f'{what} was written with {length} frames but reads back {found}')
    return EncodedVideo(path=path, frames=found, sha256=file_sha256(path), stats=stats.result())


def _write(
    frames: Iterator[NDArray[np.uint8]],
    path: Path,
    size: tuple[int, int],
    rate_hz: float,
    what: str,
    stats: ImageStats,
) -> int:
    written = 0
    with av.open(str(path), 'w', format='mp4') as container:
        rate = frame_rate(rate_hz)
        stream = container.add_stream('libx264', rate=rate, options=ENCODER)
        stream.height, stream.width = size
        stream.pix_fmt = 'yuv420p'
        stream.time_base = 1 / rate
        context = stream.codec_context
        context.time_base = 1 / rate
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = BT601
        convert = _Converter()
        for frame in frames:
            if frame.shape != (*size, 3) or frame.dtype != np.uint8:
                raise DatasetError(
                    f'{what} frame {written} is {frame.dtype} {frame.shape}; expected uint8'
                    f' {(*size, 3)}'
                )
            stats.add(frame)
            picture = convert.to_yuv(frame)
            picture.pts = written
            picture.time_base = 1 / rate
            container.mux(stream.encode(picture))
            written += 1
        container.mux(stream.encode(None))
    return written


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file of any size."""
    found = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def count_frames(path: Path) -> int:
    """Return how many coded frames the file holds, by reading its packets."""
    with av.open(str(path)) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


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
    except (av.FFmpegError, OSError, IndexError) as error:
        raise DatasetError(f'{path} cannot be decoded ({error}); convert its bag again') from error
    if given < length:
        raise DatasetError(
            f'{path} ends after {first + given} frames, {first + length} are needed; convert its'
            ' bag again'
        )
