"""Frames survive encoding: all of them, in order, close to what went in."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_episodes import picture, psnr_db

from qt_ros.dataset.video import VideoWriter, count_frames, decode_video
from qt_ros.errors import DatasetError


def encode(frames: list[np.ndarray], path: Path, *, length: int | None = None, rate_hz=10.0):
    size = frames[0].shape[:2] if frames else (32, 48)
    length = len(frames) if length is None else length
    with VideoWriter(
        path, length=length, size=size, rate_hz=rate_hz, what='episode x: camera c'
    ) as video:
        for frame in frames:
            video.add(frame)
    return video.result()


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 40),
    height=st.integers(10, 40),
    width=st.integers(10, 40),
    rate_hz=st.sampled_from([1.0, 7.5, 10.0, 12.5, 29.97, 30.0, 100.0]),
)
def test_frames_come_back(tmp_path_factory, seed, length, height, width, rate_hz):
    path = tmp_path_factory.mktemp('video') / 'a.mp4'
    rng = np.random.default_rng(seed)
    frames = [picture(rng, (2 * height, 2 * width), k) for k in range(length)]
    encoded = encode(frames, path, rate_hz=rate_hz)
    assert encoded.frames == length == count_frames(path)
    decoded = list(decode_video(path, 0, length))
    assert len(decoded) == length
    for before, after in zip(frames, decoded, strict=True):
        assert after.shape == before.shape
        assert after.dtype == np.uint8
        assert psnr_db(before, after) > 34.0
        assert abs(float(after.mean()) - float(before.mean())) < 1.0  # no colour cast


def test_saturated_colours_at_64x64_keep_their_place(tmp_path):
    """Hard edges between saturated colours are the worst case of yuv420p."""
    frame = np.full((64, 64, 3), (120, 110, 100), np.uint8)
    for n, colour in enumerate([(200, 30, 30), (30, 180, 40), (40, 60, 200)]):
        frame[10 + 15 * n : 20 + 15 * n, 21:31] = colour
    path = tmp_path / 'a.mp4'
    encode([frame] * 4, path)
    for decoded in decode_video(path, 0, 4):
        assert psnr_db(frame, decoded) > 30.0
        for n in range(3):  # the colours themselves, away from the edges
            inner = np.s_[12 + 15 * n : 18 + 15 * n, 23:29]
            error = frame[inner].astype(int) - decoded[inner]
            assert np.abs(error.mean(axis=(0, 1))).max() <= 8


def test_the_same_frames_give_the_same_file(tmp_path):
    for size in ((16, 24), (32, 48), (64, 64)):
        frames = [picture(np.random.default_rng(0), size, k) for k in range(9)]
        assert len({encode(frames, tmp_path / 'a.mp4').sha256 for _ in range(30)}) == 1


def test_each_frame_has_its_exact_time(tmp_path):
    rng = np.random.default_rng(0)
    for rate_hz in (10.0, 12.5, 29.97, 30.0):
        path = tmp_path / f'{rate_hz}.mp4'
        encode([picture(rng, (32, 48), k) for k in range(7)], path, rate_hz=rate_hz)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            times = [float(f.pts * f.time_base) for f in container.decode(stream)]
            assert (stream.codec_context.name, stream.pix_fmt) == ('h264', 'yuv420p')
            assert stream.codec_context.has_b_frames == 0
        # LeRobot looks a frame up by float32(k / fps), within 1e-4 s.
        wanted = (np.arange(7) / rate_hz).astype(np.float32)
        assert np.abs(np.array(times) - wanted).max() < 1e-4


def test_every_second_frame_is_a_key_frame(tmp_path):
    rng = np.random.default_rng(0)
    encode([picture(rng, (32, 48), k) for k in range(9)], tmp_path / 'a.mp4')
    with av.open(str(tmp_path / 'a.mp4')) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert keys == [k % 2 == 0 for k in range(9)]


def test_a_part_of_a_longer_video(tmp_path):
    rng = np.random.default_rng(0)
    encode([picture(rng, (32, 48), k) for k in range(9)], tmp_path / 'a.mp4')
    whole = list(decode_video(tmp_path / 'a.mp4', 0, 9))
    part = list(decode_video(tmp_path / 'a.mp4', 3, 4))
    assert len(part) == 4
    assert all(np.array_equal(a, b) for a, b in zip(whole[3:7], part, strict=True))


@pytest.mark.parametrize(('given_frames', 'rows'), [(5, 6), (6, 5), (0, 3)])
def test_another_number_of_frames_is_refused(tmp_path, given_frames, rows):
    rng = np.random.default_rng(0)
    frames = [picture(rng, (32, 48), k) for k in range(given_frames)]
    with pytest.raises(DatasetError, match='episode x: camera c'):
        encode(frames, tmp_path / 'a.mp4', length=rows)


def test_another_size_is_refused(tmp_path):
    frames = [np.zeros((32, 48, 3), np.uint8), np.zeros((48, 32, 3), np.uint8)]
    with pytest.raises(DatasetError, match=r'frame 1 is uint8 \(48, 32, 3\); expected'):
        encode(frames, tmp_path / 'a.mp4')
    with pytest.raises(DatasetError, match='frame 0 is float64'):
        encode([np.zeros((32, 48, 3))], tmp_path / 'a.mp4')


def test_a_damaged_video_is_named(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / 'a.mp4'
    encode([picture(rng, (32, 48), k) for k in range(9)], path)
    with pytest.raises(DatasetError, match='ends after 9 frames, 12 are needed'):
        list(decode_video(path, 0, 12))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DatasetError, match=r'a\.mp4 cannot be decoded'):
        list(decode_video(path, 0, 9))
    with pytest.raises(DatasetError, match=r'none\.mp4 cannot be decoded'):
        list(decode_video(tmp_path / 'none.mp4', 0, 9))
