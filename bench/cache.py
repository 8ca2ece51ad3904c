"""Windows of 6 frames per second: from the training cache, and from the mp4s that it is made of.

    python bench/cache.py                       3 GB of cache, about two minutes
    python bench/cache.py --episodes 20         a quick look

A dataset of one 256x320 camera is made up (a scene that moves, with sensor noise), its cache is
built, and the same windows are read in three ways:

    in batches      what training does: `training.data.Replay.batch`, with the default settings
                    (segments of 8 windows that share their frames, shifted at random)
    one by one      the same with segments of 1: each window is copied for itself, with the frame
                    after it
    from the mp4s   PyAV seeks the key frame (every second frame is one) and decodes from there

Windows/s are per second of CPU time of one core, with the cache in memory; the wall clock is
beside it. "From disk" is measured after its pages were dropped from memory: what to expect of a
set that is larger than memory. /proc says how much really came from the disk.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray

from qt_ros.contract import Contract
from qt_ros.dataset import Dataset, DatasetWriter, build_cache
from qt_ros.dataset.layout import video_file
from qt_ros.dataset.video import frame_rate
from qt_ros.episode import Episode
from training.cache import Cache
from training.config import DataConfig
from training.data import Replay

SIZE = (256, 320)
WINDOW = 6
GOAL = 7500
CAMERA = 'front'
CONTRACT = f"""
name: bench
rate_hz: 10.0
clock: header
cameras:
  {CAMERA}: {{topic: /front, type: sensor_msgs/msg/Image, size: [{SIZE[0]}, {SIZE[1]}]}}
state:
  - {{topic: /joint_states, type: sensor_msgs/msg/JointState, fields: [position.a]}}
action:
  - topic: /arm
    type: trajectory_msgs/msg/JointTrajectory
    dims: [{{name: a, field: a, mode: absolute, low: -1.0, high: 1.0, bins: 256}}]
episodes: one_per_bag
"""


@dataclass(frozen=True)
class Speed:
    """Windows read, and what they cost."""

    windows: int
    cpu_s: float
    wall_s: float
    disk_bytes: int

    def line(self, name: str) -> str:
        return (
            f'{name:<34}{self.windows / self.cpu_s:>10.0f}{self.windows / self.wall_s:>12.0f}'
            f'{self.disk_bytes / 1e6:>14.0f}'
        )


def main() -> int:
    """Run from the command line; status 1 if the cache is slower than the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--episodes', type=int, default=200)
    parser.add_argument('--rows', type=int, default=60, help='of each episode')
    parser.add_argument('--seconds', type=float, default=5.0, help='of CPU for each measurement')
    parser.add_argument('--folder', type=Path, help='where to make it; default: a temporary one')
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix='qt_bench_', dir=args.folder) as folder:
        path = Path(folder) / 'dataset'
        make_dataset(path, args.episodes, args.rows)
        build(path)
        return compare(path, args.seconds)


def make_dataset(path: Path, episodes: int, rows: int) -> None:
    """Write a dataset of moving pictures."""
    contract = Contract.parse(CONTRACT)
    scene, noise = make_scene(np.random.default_rng(0))
    begin = time.perf_counter()
    with DatasetWriter(path, contract) as writer:
        for number in range(episodes):
            writer.append(make_episode(contract, number, rows, scene, noise))
    seconds = time.perf_counter() - begin
    size = sum(file.stat().st_size for file in path.rglob('*.mp4'))
    print(
        f'dataset: {episodes} episodes of {rows} rows, one camera {SIZE[0]}x{SIZE[1]}, h264 g=2:'
        f' {size / 1e6:.0f} MB, made in {seconds:.0f} s'
    )


def make_scene(rng: np.random.Generator) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Return a scene (768, 960, 3) with detail of all sizes, as photographs have, and noise."""
    height, width = 3 * SIZE[0], 3 * SIZE[1]
    scene = np.full((height, width, 3), 110.0)
    for scale in (96, 48, 24, 12, 6, 3):
        coarse = rng.normal(0, 4 * scale**0.5, (height // scale + 1, width // scale + 1, 3))
        scene += np.kron(coarse, np.ones((scale, scale, 1)))[:height, :width]
    noise = rng.normal(0, 2.5, (8, *SIZE, 3)).round().astype(np.int16)
    return scene.round().astype(np.int16), noise


def make_episode(
    contract: Contract, number: int, rows: int, scene: NDArray, noise: NDArray
) -> Episode:
    """Return an episode whose camera wanders over the scene."""
    rng = np.random.default_rng(number)
    corner = rng.integers(SIZE[0] // 2, SIZE[0] * 3 // 2), rng.integers(0, SIZE[1] * 3 // 2)
    speed = rng.uniform(-2, 2, 2)

    def frames() -> Iterator[NDArray[np.uint8]]:
        for k in range(rows):
            y, x = (int(c + v * k) % (2 * s) for c, v, s in zip(corner, speed, SIZE, strict=True))
            picture = scene[y : y + SIZE[0], x : x + SIZE[1]] + noise[(number + k) % len(noise)]
            yield picture.clip(0, 255).astype(np.uint8)

    stamps = (number * 10**12) + np.arange(rows, dtype=np.int64) * 10**8
    return Episode(
        episode_id=f'{number}',
        instruction='look around',
        outcome=('success', 'failure')[number % 2],
        source='teleop',
        policy_id='',
        bag_uri=f'bench/{number}',
        contract_hash=contract.hash,
        start_stamp_ns=int(stamps[0]),
        state=rng.normal(size=(rows, 1)).astype(np.float32),
        action=rng.uniform(-1, 1, (rows, 1)).astype(np.float32),
        requested=np.zeros((rows, 1), np.float32),
        intervention=np.zeros(rows, bool),
        stamps_ns=dict.fromkeys(contract.streams, stamps),
        valid=dict.fromkeys(contract.streams, np.ones(rows, bool)),
        images={CAMERA: frames},
    )


def build(path: Path) -> None:
    """Build the cache and say how fast that went."""
    wall, cpu = time.perf_counter(), time.process_time()
    cache = Cache.open(build_cache(path))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    size = len(cache) * cache.meta.bytes_per_row
    free = os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    print(
        f'cache:   {len(cache)} frames, {size / 1e6:.0f} MB ({free / 1e6:.0f} MB of memory are'
        f' free), built at {len(cache) / wall:.0f} frames/s ({len(cache) / cpu:.0f} per core)'
    )


def compare(path: Path, seconds: float) -> int:
    """Measure, print, and return the exit status."""
    print(f'\n{"windows of 6 frames":<34}{"per core s":>10}{"per s":>12}{"MB from disk":>14}')
    quick = from_cache(path, DataConfig(), seconds)
    print(quick.line('cache, in batches as in training'))
    alone = DataConfig(batch=64, segment=1)
    print(from_cache(path, alone, seconds).line('cache, one by one'))
    videos = Videos(path)
    check_equal(videos, replay(path, alone))
    print(measure(videos.read, seconds).line('mp4, one by one'))
    drop_pages(path / '.cache')
    # Few windows: later ones would meet frames that are in memory by then.
    disk = from_cache(path, alone, seconds, share=0.25 / WINDOW)
    print(disk.line('cache, one by one, from disk'))
    print(f'\nplain copying in memory: {copy_speed() / 1e9:.1f} GB/s; a window is 1.47 MB')
    reached = quick.windows / quick.cpu_s
    print(f'goal {GOAL} windows/s per core: {"reached" if reached >= GOAL else "missed"}')
    return int(reached < GOAL)


def from_cache(path: Path, config: DataConfig, seconds: float, share: float = 0.0) -> Speed:
    """Draw batches as training does; with `share`, that much of the windows once, cold."""
    data = replay(path, config)
    if not share:
        for cache in data.caches:  # map and read every page, as the first pass of a training does
            cache.images[CAMERA].reshape(-1)[::4096].sum()
    limit = int(len(data) * share / config.batch) if share else sys.maxsize
    return measure(lambda step: drawn(data, step), seconds, limit)


def replay(path: Path, config: DataConfig) -> Replay:
    """Return what training draws its batches from."""
    return Replay(
        [path / '.cache'], config, window=WINDOW, gamma=0.98, text_encoder='hashed', text_size=64
    )


def drawn(data: Replay, step: int) -> int:
    """Draw a batch; return the number of windows in it that lie within their episode."""
    return int(data.batch(step).valid.sum())


def measure(read: Callable[[int], int], seconds: float, limit: int = sys.maxsize) -> Speed:
    """Read for that much CPU time, after a first time that does not count unless `limit` is given.

    `limit` is the largest number of reads, each with another step.
    """
    if limit == sys.maxsize:
        read(0)  # maps pages and takes memory, once
    step, windows = 1, 0
    wall, cpu, disk = time.perf_counter(), time.process_time(), from_disk()
    while time.process_time() - cpu < seconds and step <= limit:
        windows += read(step)
        step += 1
    return Speed(
        windows, time.process_time() - cpu, time.perf_counter() - wall, from_disk() - disk
    )


class Videos:
    """Random windows from the mp4s; files stay open, so that only seeking and decoding counts."""

    def __init__(self, path: Path) -> None:
        self.dataset = Dataset(path)
        self._open: dict[int, av.container.InputContainer] = {}
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._files = min(len(self.dataset), limit // 2)
        self._rng = np.random.default_rng(0)

    def read(self, step: int) -> int:
        """Read one window of some episode."""
        index = int(self._rng.integers(self._files))
        last = self.dataset.episodes[index].length - WINDOW
        self.window(index, int(self._rng.integers(last + 1)))
        return 1

    def window(self, index: int, first: int) -> NDArray[np.uint8]:
        """Return frames `first` to `first + 6` of an episode, (6, H, W, 3)."""
        if index not in self._open:
            place, _ = self.dataset.episodes[index].videos[CAMERA]
            opened = av.open(str(video_file(self.dataset.path, CAMERA, place)))
            opened.streams.video[0].codec_context.thread_count = 1
            self._open[index] = opened
        container = self._open[index]
        stream = container.streams.video[0]
        per_frame = 1 / (frame_rate(self.dataset.contract.rate_hz) * stream.time_base)
        container.seek(int(first * per_frame), stream=stream)
        out = np.empty((WINDOW, *SIZE, 3), np.uint8)
        for picture in container.decode(stream):
            at = round(picture.pts / per_frame) - first
            if at >= 0:
                out[at] = picture.to_ndarray(format='rgb24')
            if at == WINDOW - 1:
                break
        return out


def check_equal(videos: Videos, data: Replay) -> None:
    """Compare windows of the two ways with the frames that were decoded in order."""
    middle = np.full((1, 1, 2), data.config.shift_px)
    for episode, first in ((0, 0), (1, 7), (3, 20)):
        stop = first + WINDOW
        batch = data.gather(np.array([episode]), np.array([stop - 1]), middle)
        frames = videos.dataset.frames(episode, CAMERA)
        same = np.array_equal(batch.images[CAMERA][0, :WINDOW].numpy(), frames[first:stop])
        # A plain conversion to RGB rounds another way than the one that filled the cache.
        sought = videos.window(episode, first).astype(np.int16)
        nearest = [np.abs(frames - each).mean(axis=(1, 2, 3)).argmin() for each in sought]
        if not same or nearest != list(range(first, stop)):
            raise SystemExit(f'episode {episode} at row {first}: not the same frames')


def drop_pages(folder: Path) -> None:
    """Drop the files of a folder from the page cache; nothing may map them."""
    os.sync()
    for file in folder.glob('*.u8'):
        with open(file, 'rb') as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def from_disk() -> int:
    """Return the bytes that this process has had read from disk so far."""
    try:
        text = Path('/proc/self/io').read_text()
    except OSError:
        return 0
    return int(text.partition('read_bytes: ')[2].split()[0])


def copy_speed() -> float:
    """Return how fast this machine copies memory that no cache holds [bytes/s]."""
    source = np.ones((256, WINDOW, *SIZE, 3), np.uint8)
    target = np.ones((32, WINDOW, *SIZE, 3), np.uint8)
    begin = time.process_time()
    for at in range(0, len(source), len(target)):
        target[:] = source[at : at + len(target)]
    return source.nbytes / (time.process_time() - begin)


if __name__ == '__main__':
    sys.exit(main())
