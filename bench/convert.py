"""Say what converting a bag costs, stage by stage, and how far that is from the floor.

    python bench/convert.py
    python bench/convert.py --seconds 120 --rates 30 --sizes 256x320 96x96 --repeat 5

Makes a bag of two 640x480 JPEG cameras at 30 Hz and joints at 200 Hz, and converts it with one
worker. Every figure is CPU time of this process with all its threads, so other work on the machine
does not count; of `--repeat` runs the cheapest is told, since caches shared with that work do.
The floor is decoding the JPEGs that were used and encoding the very same frames into the same
files, and nothing else; it is measured right after each conversion.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
from camera_bag import BagPlan, contract, write_bag

from qt_ros.bags.converter import convert
from qt_ros.contract import Contract
from qt_ros.dataset import video
from qt_ros.dataset.stats import ImageStats
from qt_ros.images import decoding

STAGES = ('decode', 'resize', 'encode', 'rest')
GOALS = {30.0: 5.0, 10.0: 12.0}  # {ticks per second: multiple of real time}
GOAL_FLOOR = 1.25


@dataclass
class Run:
    """CPU seconds of one conversion, and what the floor needs to do the same."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    pictures: list[Any] = field(default_factory=list)  # every JPEG that was decoded
    flags: int = cv2.IMREAD_COLOR
    written: list[tuple[str, int]] = field(default_factory=list)  # per frame: file, its JPEG
    total: float = 0.0
    floor: float = 0.0

    @contextmanager
    def on_the_clock(self, stage: str) -> Iterator[None]:
        """Add the CPU time of a block to a stage."""
        began = time.process_time()
        yield
        self.seconds[stage] += time.process_time() - began

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, on the clock."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.on_the_clock(stage):
                return function(*args, **kwargs)

        return run


def measure(bag: Path, spec: Contract, folder: Path) -> Run:
    """Convert the bag once with every stage on the clock, then do the floor's part of it."""
    run = Run()
    decode, add = cv2.imdecode, video.VideoWriter.add

    def noted_decode(data: Any, flags: int) -> Any:
        run.pictures.append(data)
        run.flags = flags
        with run.on_the_clock('decode'):
            return decode(data, flags)

    def noted_add(writer: video.VideoWriter, frame: Any) -> None:
        run.written.append((str(writer.path), len(run.pictures) - 1))
        with run.on_the_clock('encode'):
            add(writer, frame)

    with ExitStack() as stack:
        for target, name, function in (
            (cv2, 'imdecode', noted_decode),
            (
                decoding,
                'resize_by_area',
                run.timed('resize', decoding.resize_by_area),
            ),
            (video.VideoWriter, 'add', noted_add),
            (video.VideoWriter, '__exit__', run.timed('encode', video.VideoWriter.__exit__)),
        ):
            stack.enter_context(mock.patch.object(target, name, function))
        began = time.process_time()
        result = convert([bag], spec, folder / 'dataset')
        run.total = time.process_time() - began
    if result.status != 0:
        sys.exit(f'the bag was not converted: {result.report["per_bag"][0]["problems"]}')
    run.seconds['rest'] = run.total - sum(run.seconds.values())
    run.floor = floor(run, spec, folder)
    return run


def _pass(stats: ImageStats, frame: Any) -> None:
    """Stand in for what the floor leaves out."""


def floor(run: Run, spec: Contract, folder: Path) -> float:
    """Return the CPU seconds of decoding the JPEGs that rows show, and of encoding the rows."""
    size = spec.cameras[0].size
    lengths: dict[str, int] = {}
    for path, _ in run.written:
        lengths[path] = lengths.get(path, 0) + 1
    total, shown, frames = 0.0, {}, {}
    writers: dict[str, video.VideoWriter] = {}
    with ExitStack() as stack, mock.patch.object(ImageStats, 'add', _pass):
        for path, picture in run.written:
            if path not in writers:
                writers[path] = stack.enter_context(
                    video.VideoWriter(
                        folder / f'{len(writers)}.mp4',
                        length=lengths[path],
                        size=size,
                        rate_hz=spec.rate_hz,
                        what='floor',
                    )
                )
            if shown.get(path) != picture:
                began = time.process_time()
                image = cv2.imdecode(run.pictures[picture], run.flags)
                total += time.process_time() - began
                small = decoding.resize_by_area(image, size)
                shown[path], frames[path] = picture, cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
            began = time.process_time()
            writers[path].add(frames[path])
            total += time.process_time() - began
        began = time.process_time()
        stack.close()
        total += time.process_time() - began
    return total


def tell(run: Run, rate_hz: float, size: tuple[int, int], recorded_s: float) -> dict[str, Any]:
    """Print the table of one case and return its figures."""
    frames = len(run.written)
    print(
        f'\n{rate_hz:g} Hz ticks, {size[0]}x{size[1]} px: {recorded_s:g} s recorded,'
        f' {frames} frames encoded, {len(set(run.written))} of them different'
    )
    print(f'  {"":10}{"CPU s":>9}{"share":>8}{"ms a frame":>12}')
    for stage in STAGES:
        seconds = run.seconds[stage]
        print(
            f'  {stage:10}{seconds:9.3f}{seconds / run.total:8.0%}{1e3 * seconds / frames:12.3f}'
        )
    print(f'  {"all":10}{run.total:9.3f}{1:8.0%}{1e3 * run.total / frames:12.3f}')
    print(f'  {"floor":10}{run.floor:9.3f}{"":8}{1e3 * run.floor / frames:12.3f}')
    multiple, ratio = recorded_s / run.total, run.total / run.floor
    goal = f' (goal {GOALS[rate_hz]:g})' if rate_hz in GOALS else ''
    print(
        f'  {multiple:.1f} times real time{goal}, {ratio:.2f} times the floor (goal {GOAL_FLOOR})'
    )
    return {
        'rate_hz': rate_hz,
        'size': list(size),
        'cpu_s': {**run.seconds, 'all': run.total, 'floor': run.floor},
        'frames': frames,
        'times_real_time': multiple,
        'times_floor': ratio,
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=60.0, help='length of the bag')
    parser.add_argument('--rates', type=float, nargs='+', default=[30.0, 10.0], help='ticks [Hz]')
    parser.add_argument('--sizes', nargs='+', default=['256x320'], help='HEIGHTxWIDTH')
    parser.add_argument(
        '--compression', choices=('none', 'zstd'), default='none', help='of chunks'
    )
    parser.add_argument('--repeat', type=int, default=3)
    parser.add_argument('--json', type=Path, help='write the figures to this file')
    args = parser.parse_args()
    cv2.setNumThreads(1)  # as in a worker
    figures = []
    for rate_hz in args.rates:
        with tempfile.TemporaryDirectory(prefix='qt-ros-bench-') as temporary:
            bag = Path(temporary) / 'bag.mcap'
            write_bag(bag, BagPlan(args.seconds, rate_hz, compression=args.compression))
            for text in args.sizes:
                height, width = map(int, text.split('x'))
                spec = contract(rate_hz, (height, width))
                runs = []
                for number in range(args.repeat):
                    sys.stderr.write(f'run {number + 1} of {args.repeat}\n')
                    with tempfile.TemporaryDirectory(dir=temporary) as folder:
                        runs.append(measure(bag, spec, Path(folder)))
                best = min(runs, key=lambda run: run.total)
                best.floor = min(run.floor for run in runs)
                figures.append(tell(best, rate_hz, (height, width), args.seconds))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1), encoding='utf-8')


if __name__ == '__main__':
    main()
