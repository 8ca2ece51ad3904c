"""Meet a disk that takes no more. Run by test_full_disk.py in a name space with a disk of its own.

full_disk.py FOLDER tmpfs    the disk is a small tmpfs: mounted read-only, then filled
full_disk.py FOLDER limit    no file may grow beyond a size (RLIMIT_FSIZE)
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from made_bags import contract as bag_contract
from made_bags import steady
from made_episodes import contract, episode

from qt_ros.bags.converter import convert
from qt_ros.dataset import Dataset, DatasetWriter, build_cache, relabel
from qt_ros.dataset.files import CannotWrite
from qt_ros.dataset.swap import beside
from qt_ros.errors import DatasetError

SIZE = 4 << 20  # of the disk
PAGE = 4096
BAG = bag_contract()
OURS = contract(cameras=1)


def state(out: Path) -> list[tuple[str, str]]:
    """Check a dataset; return digest and outcome of each episode."""
    dataset = Dataset(out)
    for index in range(len(dataset)):
        assert dataset.problems(index) == [], dataset.problems(index)
        dataset.rows(index)
    assert sum(e.length for e in dataset.episodes) == dataset.info()['total_frames']
    return [(e.digest, e.outcome) for e in dataset.episodes]


@contextmanager
def room(folder: Path, left: int) -> Iterator[None]:
    """Leave `left` bytes on the disk."""
    ballast = folder / 'ballast'
    with ballast.open('wb', buffering=0) as file:
        try:
            while True:
                file.write(bytes(PAGE))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - left) // PAGE * PAGE)
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def small_files(_: Path, left: int) -> Iterator[None]:
    """Let no file grow beyond `left` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def read_only(folder: Path, _: int) -> Iterator[None]:
    """Mount the disk anew so that it cannot be written."""
    subprocess.run(['mount', '-o', 'remount,ro', str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(['mount', '-o', 'remount,rw', str(folder)], check=True)


def works(folder: Path, bags: list[Path]) -> dict[str, tuple[Path, Callable[[], object]]]:
    """Return what is tried, {name: (dataset, work)}; each can be repeated until it works."""
    ours, ros = folder / 'ours', folder / 'ros'
    draw = random.Random(0)

    def append() -> None:
        with DatasetWriter(ours, OURS, batch=3) as writer:
            for seed in range(2, 12):
                if not writer.has(f'bags/{seed}', f'episode-{seed}'):
                    writer.append(episode(OURS, seed, 12))

    return {
        'append': (ours, append),
        'convert': (ros, lambda: convert(bags, BAG, ros, batch=2)),
        'convert with workers': (ros, lambda: convert(bags, BAG, ros, batch=2, workers=2)),
        'convert anew': (ros, lambda: convert(bags[:2], BAG, ros, replace=True)),
        'relabel': (ours, lambda: relabel(ours, {0: draw.choice(('failure', 'timeout'))}, 'me')),
        'cache': (ours, lambda: build_cache(ours)),
    }


def meet(name: str, out: Path, work: Callable[[], object]) -> str:
    """Try it; return what was said, '' if it could be done."""
    before = state(out)
    said, refusal = '', None
    try:
        work()
    except DatasetError as error:
        refusal = error
    if isinstance(refusal, CannotWrite):
        said = str(refusal).partition('cannot be written: ')[2]
        assert 'what was committed before is intact' in said, refusal
    elif refusal is not None:
        assert name == 'cache', refusal
        assert 'make room' in str(refusal), refusal  # it looks before it begins
        said = 'No space left'
    after = state(out)
    if name == 'relabel':
        assert [digest for digest, _ in after] == [digest for digest, _ in before]
    elif name == 'convert anew':
        assert len(after) == len(before)
    else:
        assert after[: len(before)] == before, name
    return said


def main(folder: Path, how: str) -> None:
    bags = []
    for number in range(4):
        made = steady(0.5, start_ms=5000.0 * number)
        bags.append(made.write(folder / 'bags' / str(number)))
    for out, made_with in ((folder / 'ours', OURS), (folder / 'ros', BAG)):
        DatasetWriter(out, made_with).close()
    with DatasetWriter(folder / 'ours', OURS) as writer:
        for seed in range(2):
            writer.append(episode(OURS, seed, 12, outcome='success'))
    convert(bags[:1], BAG, folder / 'ros')
    said: dict[str, set[str]] = {}
    limits = [(small_files, 2000), (small_files, 8000), (small_files, 30_000)]
    if how == 'tmpfs':
        limits = [(read_only, 0)] + [(room, size << 10) for size in (0, 24, 100, 300)]
    for limit, size in limits:
        for name, (out, work) in works(folder, bags).items():
            with limit(folder, size):
                words = meet(name, out, work)
            said.setdefault(name, set()).add(words[:22])
            if limit is read_only:
                assert 'Read-only file system' in words, (name, words)
    for name, (out, work) in works(folder, bags).items():
        assert meet(name, out, work) == '', name  # with room again all of it goes through
    assert len(state(folder / 'ours')) == 12
    assert len(state(folder / 'ros')) == 4
    reason = 'No space left' if how == 'tmpfs' else 'File too large'
    for name, words in said.items():
        assert any(each.startswith(reason) for each in words), (name, said)
    for out in (folder / 'ours', folder / 'ros'):
        assert not (out / '.staging').exists()
        assert not beside(out).exists()
        assert not [path for path in out.rglob('*.tmp') if '.cache' not in path.parts]
    print('met')


if __name__ == '__main__':
    main(Path(sys.argv[1]), sys.argv[2])
