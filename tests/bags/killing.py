"""Kill converting processes at random moments and look at what they leave.

Each child is forked from a server process that has imported everything, so a trial costs little
more than its conversion. `bench/crash.py` runs more of them than the tests do.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from made_bags import contract, steady

from qt_ros.bags.converter import convert
from qt_ros.bags.pools import PRELOAD
from qt_ros.dataset import Dataset, relabel
from qt_ros.dataset.swap import REPLACING
from qt_ros.episode import OUTCOMES

CONTRACT = contract()
BAGS, EPISODES = 4, 3  # bags, and episodes in each
BATCH = 2  # episodes of a commit
SECONDS = 0.3  # of an episode
STEPS = ('os.rename', 'os.link', 'os.remove', 'os.rmdir', 'os.mkdir', 'ctypes.dlsym')
WRITING = ('w', 'wb', 'ab', 'a+b')  # modes
ORPHAN_S = 20.0  # how long a worker may take to notice that its parent is gone


def make_bags(folder: Path) -> list[Path]:
    """Write bags whose episodes are named by number; the outcome tells the version of a bag."""
    found = []
    for bag in range(BAGS):
        start_ms = 10_000.0 * bag
        made = steady(EPISODES * (SECONDS + 0.1), events=False, start_ms=start_ms)
        for episode in range(EPISODES):
            at = start_ms + 1000 * episode * (SECONDS + 0.1)
            name = f'{bag}-{episode}'
            made.event(at, 0, name, instruction='push', source='teleop')
            made.event(at + 1000 * SECONDS, 1, name, outcome='failure')
        found.append(made.write(folder / f'bag_{bag}'))
    return found


def make_labels(folder: Path, version: int) -> Path:
    """Write a label file that marks every episode with a version."""
    path = folder / f'version_{version}.csv'
    names = [f'{bag}-{episode}' for bag in range(BAGS) for episode in range(EPISODES)]
    rows = [f'{name},version {version}\n' for name in names]
    path.write_text('episode_id,instruction\n' + ''.join(rows))
    return path


@dataclass(frozen=True)
class Work:
    """What one child does; all of it can be sent to another process."""

    kind: str  # convert | replace | relabel | append
    out: Path
    bags: tuple[Path, ...] = ()
    labels: Path | None = None
    workers: int = 1
    outcome: str = ''
    die_at: int = 0  # kill itself before its n-th step in the file system; 0: never
    count_into: Path | None = None  # write there how many steps it took


class Steps:
    """Count what this process does in the file system, and die at one of these steps."""

    def __init__(self, die_at: int) -> None:
        self.taken, self._die_at = 0, die_at
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple) -> None:
        if event in STEPS or (event == 'open' and arguments[1] in WRITING):
            self.taken += 1
            if self.taken == self._die_at:
                os.kill(os.getpid(), signal.SIGKILL)


def do(work: Work) -> None:
    """Do it, in a process of its own."""
    steps = Steps(work.die_at)
    _do(work)
    if work.count_into is not None:
        work.count_into.write_text(str(steps.taken))


def _do(work: Work) -> None:
    if work.kind == 'nothing':
        return
    if work.kind == 'relabel':
        count = len(Dataset(work.out))
        relabel(work.out, dict.fromkeys(range(count), work.outcome), 'me')
        return
    convert(
        work.bags,
        CONTRACT,
        work.out,
        labels=work.labels,
        workers=work.workers,
        replace=work.kind == 'replace',
        batch=BATCH,
    )


def check(out: Path) -> list[tuple[str, str, str]]:
    """Check all that a dataset holds; return (id, outcome, instruction) of its episodes."""
    dataset = Dataset(out)
    info, at = dataset.info(), 0
    for index, meta in enumerate(dataset.episodes):
        assert dataset.problems(index) == [], (index, dataset.problems(index))
        rows = dataset.rows(index)
        assert meta.from_index == at
        assert rows['index'].tolist() == list(range(at, at + meta.length))
        assert bool(rows['next.reward'][-1]) == (meta.outcome == 'success')
        at += meta.length
        for camera in CONTRACT.cameras:
            assert len(dataset.frames(index, camera.name)) == meta.length
    assert info['total_frames'] == at
    assert info['total_episodes'] == len(dataset)
    assert info['splits'] == ({'train': f'0:{len(dataset)}'} if len(dataset) else {})
    return [(e.episode_id, e.outcome, e.instruction) for e in dataset.episodes]


@dataclass
class Killer:
    """Runs children and kills them at random moments; counts what it saw."""

    folder: Path
    seed: int
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.context = multiprocessing.get_context('forkserver')
        # The converter forks its workers from the same server, so it wants its preload too.
        self.context.set_forkserver_preload(['killing', *PRELOAD])
        self.run(Work('nothing', self.folder))
        self._ours = below(os.getpid())  # the server itself
        self._bags = tuple(make_bags(self.folder / 'bags'))
        self._wanted = self.folder / 'wanted'
        self._version = 0
        self._lasts: dict[str, float] = {}
        self._steps: dict[str, int] = {}
        for kind in ('convert', 'replace', 'relabel'):
            out, counted = self._wanted, self.folder / kind
            if kind != 'convert':
                out = self.folder / 'copy'
                shutil.copytree(self._wanted, out, dirs_exist_ok=True)
            work = Work(kind, out, self._bags, outcome='success', count_into=counted)
            self._lasts[kind] = self.run(work)
            self._steps[kind] = int(counted.read_text())

    def run(self, work: Work, kill: bool = False) -> float:
        """Run `work` in a child, killed at some time or step if asked to; return its seconds.

        Waits until every process that the child started is gone too.
        """
        wait_s = None
        if kill and self.draw.random() < 0.5:
            work = replace(work, die_at=self.draw.randint(1, self._steps[work.kind]))
        elif kill:
            starting = 1.0 if work.workers == 1 else 2.0
            wait_s = self.draw.uniform(0, self._lasts[work.kind] * starting)
        child = self.context.Process(target=do, args=(work,))
        begin = time.monotonic()
        child.start()
        child.join(wait_s)
        child.kill()
        child.join()
        lasted = time.monotonic() - begin
        killed = child.exitcode == -signal.SIGKILL
        assert kill or not killed
        assert killed or child.exitcode == 0, f'{work} ended with status {child.exitcode}'
        self.seen['killed'] += killed
        how = f'killed at a {"step" if work.die_at else "time"}' if killed else 'done'
        self.seen[f'{work.kind}, {work.workers} workers, {how}'] += 1
        deadline = time.monotonic() + ORPHAN_S
        while kill and (left := below(os.getpid()) - self._ours):
            assert time.monotonic() < deadline, f'processes {left} outlived their parent'
            time.sleep(0.01)
        return lasted

    def converting(self, out: Path) -> None:
        """Convert until it is done, killed on the way; what was committed once stays."""
        held = 0
        names = [each[0] for each in check(self._wanted)]
        killed = -1
        while killed < self.seen['killed']:
            killed = self.seen['killed']
            workers = 2 if self.draw.random() < 0.2 else 1
            self.run(Work('convert', out, self._bags, workers=workers), kill=True)
            found = [each[0] for each in check(out)] if (out / 'meta/info.json').exists() else []
            assert found == names[: len(found)]
            assert len(found) >= held, f'{len(found)} episodes of {held} are left'
            held = len(found)
        same_as(out, self._wanted)

    def redoing(self, out: Path) -> None:
        """Convert some bags anew, killed on the way: the set is the old one or the new one."""
        self._version += 1
        labels = make_labels(self.folder, self._version)
        chosen = sorted(self.draw.sample(range(BAGS), self.draw.randint(1, BAGS)))
        before = check(out)
        after = [
            (name, outcome, f'version {self._version}' if int(name[0]) in chosen else text)
            for name, outcome, text in before
        ]
        bags = tuple(self._bags[index] for index in chosen)
        workers = 2 if self.draw.random() < 0.2 else 1
        killed = self.seen['killed']
        self.run(Work('replace', out, bags, labels, workers), kill=True)
        found = check(out)
        assert found == after or (found == before and self.seen['killed'] > killed), found
        self.seen['replaced' if found == after else 'not replaced'] += 1

    def relabelling(self, out: Path) -> None:
        """Give all episodes another outcome, killed on the way: each has the old or the new."""
        outcome = self.draw.choice(OUTCOMES)
        before = check(out)
        self.run(Work('relabel', out, outcome=outcome), kill=True)
        for (name, old, text), now in zip(before, check(out), strict=True):
            assert now in ((name, old, text), (name, outcome, text))
        if self.draw.random() < 0.5:
            self.run(Work('relabel', out, outcome='failure'))
            assert {now for _, now, _ in check(out)} == {'failure'}

    def campaign(self, kills: int) -> None:
        """Go on until so many children were killed; each set is finished and compared."""
        number = 0
        while self.seen['killed'] < kills:
            number += 1
            out = self.folder / f'set_{number}'
            self.converting(out)
            for _ in range(4):
                self.draw.choice((self.redoing, self.redoing, self.relabelling))(out)
            before = check(out)
            self.run(Work('convert', out, self._bags))  # cleans up, and adds nothing
            assert check(out) == before
            no_remains(out)
            shutil.rmtree(out)


def same_as(out: Path, wanted: Path) -> None:
    """Compare a set that was finished in spite of everything with an undisturbed one."""
    assert check(out) == check(wanted)
    one, other = Dataset(out), Dataset(wanted)
    assert [e.digest for e in one.episodes] == [e.digest for e in other.episodes]
    assert one.info() == other.info()
    files = [sorted(made_files(folder)) for folder in (out, wanted)]
    assert files[0] == files[1]
    for name in files[0]:
        if name.endswith('.mp4'):
            assert (out / name).read_bytes() == (wanted / name).read_bytes()


def made_files(out: Path) -> list[str]:
    return [
        str(path.relative_to(out))
        for folder in ('data', 'meta', 'videos')
        for path in (out / folder).rglob('*')
        if path.is_file() and path.name != 'conversions.jsonl'  # of runs that lived
    ]


def no_remains(out: Path) -> None:
    """Assert that nothing of the work of killed processes is left."""
    assert not (out / '.staging').exists()
    assert not out.with_name(out.name + REPLACING).exists()
    assert not [name for name in made_files(out) if name.endswith('.tmp')]
    listed = {f'{episode.videos["front"][0]}' for episode in Dataset(out).episodes}
    assert len(list(out.rglob('*.mp4'))) == len(listed) == len(Dataset(out))


def below(pid: int) -> set[int]:
    """Return the running processes that a process started, and those that these started."""
    parents = {}
    for entry in Path('/proc').iterdir():
        found = _stat(int(entry.name)) if entry.name.isdigit() else []
        if found and found[0] not in 'ZX':
            parents[int(entry.name)] = int(found[1])
    found, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        grown = bool(more)
        found |= more
    return found - {pid}


def _stat(pid: int) -> list[str]:
    """Return state, parent and so on of a process; empty if there is none."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return []
