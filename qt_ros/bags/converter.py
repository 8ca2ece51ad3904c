"""Bags and a contract into a dataset, on one or more processes, with one committer.

Workers open bags, decode and encode; this process alone appends, in the order in which the bags
were given, so the dataset does not depend on the number of workers. With `replace` the episodes
come into a copy of the dataset that shares its videos, and that takes its place in the end.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qt_ros.bags.accounting import STORED
from qt_ros.bags.conversion_report import REPORT, Cost, summarise, write_report
from qt_ros.bags.finding import find_bags
from qt_ros.bags.known import Recordings, passed_over
from qt_ros.bags.labelling import check_applied, check_bags
from qt_ros.bags.labels import Label, read_labels
from qt_ros.bags.pools import check_pool, run_tasks
from qt_ros.bags.redoing import Redoing
from qt_ros.bags.relabelling import not_followed
from qt_ros.bags.work import BagResult, BagTask
from qt_ros.contract import Contract
from qt_ros.dataset import Dataset, DatasetWriter
from qt_ros.dataset.files import plain_errors
from qt_ros.dataset.layout import read_info
from qt_ros.dataset.replacing import replacing
from qt_ros.dataset.writer import BATCH
from qt_ros.errors import BagError, DatasetError
from qt_ros.spelling import spelled

Progress = Callable[[dict[str, Any]], None]
DONE, FAILED, PARTIAL = 0, 1, 3

__all__ = ['REPORT', 'ConversionResult', 'convert']


@dataclass(frozen=True)
class ConversionResult:
    """What `convert` did. status: 0 all, 1 nothing, 3 some bags or episodes were left out."""

    report: dict[str, Any]
    status: int


def convert(
    bags: Iterable[Path | str],
    contract: Contract,
    out: Path | str,
    labels: Path | str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    *,
    ray: str | None = None,
    replace: bool = False,
    batch: int = BATCH,
) -> ConversionResult:
    """Append the episodes of `bags` to the dataset `out` and write its conversion report.

    Each of `bags` is a recording, or a folder with recordings below it. Episodes that the dataset
    has already are passed over: by bag and id, or because they are the same recording under
    another path. With `replace` the bags are converted anew, and what the dataset had of them goes
    as far as something comes for it; the set changes all at once, at the end. `labels` is a CSV
    file (see `labels`). `progress` is called after each bag, and a few times a second during one.
    `batch` episodes are committed at a time. `workers` processes convert (None: this one); with
    `ray`, 'local' or the address of a Ray cluster, that many bags at a time are converted there
    (None: one for each of its cores).
    Raises `BagError` if a path is wrong and `DatasetError` if the dataset cannot be written;
    a bag that cannot be converted is told in the report instead.
    """
    check_pool(workers, ray)
    run = _Run(
        paths=_all_bags(bags),
        contract=contract,
        labels=read_labels(labels) if labels is not None else (),
        workers=workers,
        ray=ray,
        progress=progress,
        batch=batch,
    )
    if replace and _holds_episodes(out):
        return run.replacing(Path(out))
    return run.appending(Path(out))


@dataclass
class _Run:
    """One conversion; `results` fills as it goes."""

    paths: list[Path]
    contract: Contract
    labels: tuple[Label, ...]
    workers: int | None
    ray: str | None
    progress: Progress | None
    batch: int

    def __post_init__(self) -> None:
        self._label_problems = check_bags(self.labels, [path.resolve() for path in self.paths])
        self._begin, self._cpu_begin = time.perf_counter(), time.process_time()
        self._results: list[BagResult] = []
        self._under_way: dict[Path, float] = {}  # how much of a bag is done
        self._telling = threading.Lock()

    def appending(self, out: Path) -> ConversionResult:
        with plain_errors(out):
            fresh = not out.exists() or not any(out.iterdir())
        with DatasetWriter(out, self.contract, batch=self.batch) as writer:
            known = Recordings(Dataset(out).episodes)
            for _ in self._converted(writer, known):
                pass
            nothing = len(writer) == 0
        if self.labels and not nothing:
            new = [
                (_uri(Path(bag.report['bag'])), row['episode_id'])
                for bag in self._results
                for row in bag.report['episodes']
            ]
            self._label_problems += not_followed(self.labels, Dataset(out).episodes, new)
        report = self._report(out, nothing)
        if nothing and fresh:
            shutil.rmtree(out)  # made by this very call, and empty
        else:
            with plain_errors(out):
                write_report(out, report)
        return ConversionResult(report, report['status'])

    def replacing(self, out: Path) -> ConversionResult:
        with replacing(out, self.contract, batch=self.batch) as change:
            redoing = Redoing(change.old, self.labels)
            for result, first in self._converted(change.fresh, Recordings()):
                redoing.add(result, first)
            folder = out
            if redoing.changes:
                change.build(redoing.changes, redoing.labels())
                folder = change.path
            report = self._report(out, nothing=False)
            with plain_errors(out):
                write_report(folder, report)
        return ConversionResult(report, report['status'])

    def _converted(
        self, writer: DatasetWriter, known: Recordings
    ) -> Iterator[tuple[BagResult, int]]:
        """Append what comes of each bag; yield it and the index of its first episode."""
        tasks = [
            BagTask(
                path, self.contract, self.labels, known.of(_uri(path)), writer.staging_folder()
            )
            for path in self.paths
        ]
        with ExitStack() as stack:
            for result in run_tasks(tasks, self.workers, stack, self.ray, self._tell):
                first = len(writer)
                append(result, writer, known)
                yield result, first
                result.episodes.clear()
                self._results.append(result)
                self._tell(tasks[len(self._results) - 1], None)

    def _tell(self, task: BagTask, share: float | None) -> None:
        """Report how much of a bag is done; None: it is appended. Any thread may call."""
        if self.progress is None:
            return
        with self._telling:
            if share is None:
                self._under_way.pop(task.path, None)
            else:
                self._under_way[task.path] = share
            parts = sum(self._under_way.values())
            self.progress(_progress(self._results, len(self.paths), parts))

    def _report(self, out: Path, nothing: bool) -> dict[str, Any]:
        status = _status(self._results, nothing)
        own_s = time.process_time() - self._cpu_begin
        bags_s = sum(each.report['cpu_seconds'] for each in self._results)
        here = self.ray is None and min(self.workers or 1, len(self.paths)) == 1
        cost = Cost(
            seconds=time.perf_counter() - self._begin,
            cpu_s=own_s if here else own_s + bags_s,
            committer_cpu_s=own_s - bags_s if here else own_s,
        )
        report = summarise(self._results, self.contract, out, status, cost)
        return {**report, 'labels': self._labels()}

    def _labels(self) -> dict[str, Any]:
        """Return what became of the rows of the label file, those of other recordings too."""
        applied = {row for each in self._results for row in each.report.get('label_rows', ())}
        unused = check_applied(self.labels, applied)
        return {
            'rows': len(self.labels),
            'applied': len(applied),
            'problems': [*self._label_problems, *unused],
        }


def append(result: BagResult, writer: DatasetWriter, known: Recordings) -> None:
    """Append the episodes of one bag but those that came in from another path meanwhile."""
    kept = []
    for episode, encoded in result.episodes:
        twin = known.twin(episode)
        if twin:
            _pass_over(result.report, episode.episode_id, twin)
            for video in encoded.values():
                shutil.rmtree(video.path.parent, ignore_errors=True)
        else:
            writer.append(episode, encoded)
            known.add(episode)
            kept.append((episode, encoded))
    result.episodes[:] = kept


def _pass_over(report: dict[str, Any], episode_id: str, twin: str) -> None:
    """Take an episode out of the report of its bag."""
    report['episodes'] = [row for row in report['episodes'] if row['episode_id'] != episode_id]
    report['stored'] += 1
    report['problems'].append(passed_over(episode_id, twin))
    if not report['episodes']:
        report['result'] = 'already there'
        for topic in report['topics'].values():
            if topic['used']:
                topic['skipped'][STORED] = topic['skipped'].get(STORED, 0) + topic['used']
                topic['used'] = 0


def _holds_episodes(out: Path | str) -> bool:
    try:
        return read_info(Path(out))['total_episodes'] > 0
    except DatasetError:
        return False  # there is nothing to replace; appending says what is wrong, if anything


def _all_bags(bags: Iterable[Path | str]) -> list[Path]:
    """Find the recordings below the paths; raise `BagError` naming every path without one."""
    found: dict[Path, Path] = {}
    problems: list[str] = []
    for given in bags:
        try:
            found.update((path.resolve(), path) for path in find_bags(Path(given)))
        except BagError as exc:
            problems += exc.problems
    if problems:
        raise BagError(problems)
    if not found:
        raise BagError('no recording given; give folders or files of recordings')
    return list(found)


def _uri(path: Path) -> str:
    return spelled(path.resolve())


def _progress(results: Sequence[BagResult], total: int, parts: float) -> dict[str, Any]:
    """Describe how far the run is; `parts` of a bag are done beside the finished ones."""
    last = results[-1].report if results else {'bag': '', 'result': ''}
    return {
        'bag': last['bag'],
        'result': last['result'],
        'done': len(results),
        'under_way': parts,
        'total': total,
        'episodes': sum(len(each.report['episodes']) for each in results),
        'rows': sum(row['rows'] for each in results for row in each.report['episodes']),
    }


def _status(results: Sequence[BagResult], nothing: bool) -> int:
    """Return 0, 1 or 3 as the command line does."""
    fine = [each for each in results if each.report['result'] not in ('failed', 'changed')]
    if nothing or not fine:
        return FAILED
    whole = all(not each.report['partial'] and not each.report.get('left_out', 0) for each in fine)
    return DONE if whole and len(fine) == len(results) else PARTIAL
