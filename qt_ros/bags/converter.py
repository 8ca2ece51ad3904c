"""Bags and a contract into a dataset, on one or more processes, with one committer.

Workers open bags, decode and encode; this process alone appends, in the order in which the bags
were given, so the dataset does not depend on the number of workers.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.accounting import nothing_used
from qt_ros.bags.conversion_report import REPORT, summarise, write_report
from qt_ros.bags.episodes import BagConversion, Built, describe, light
from qt_ros.bags.files import find_bags
from qt_ros.bags.labels import Label, read_labels
from qt_ros.bags.reader import BagReader
from qt_ros.contract import Contract
from qt_ros.dataset import Dataset, DatasetWriter, EncodedVideo, encode_videos
from qt_ros.episode import Episode
from qt_ros.errors import BagError, QtRosError

Progress = Callable[[dict[str, Any]], None]
DONE, FAILED, PARTIAL = 0, 1, 3

__all__ = ['REPORT', 'ConversionResult', 'convert']


@dataclass(frozen=True)
class ConversionResult:
    """What `convert` did. status: 0 all, 1 nothing, 3 some bags or episodes were left out."""

    report: dict[str, Any]
    status: int


@dataclass(frozen=True)
class _Task:
    path: Path
    contract: Contract
    labels: tuple[Label, ...]
    stored: frozenset[str]  # ids of the bag's episodes that the dataset has already
    staging: Path


@dataclass
class BagResult:
    """What a worker hands back about one bag."""

    report: dict[str, Any]
    episodes: list[tuple[Episode, Mapping[str, EncodedVideo]]] = field(default_factory=list)
    ages_ns: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    valid: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


def convert(
    bags: Iterable[Path | str],
    contract: Contract,
    out: Path | str,
    labels: Path | str | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> ConversionResult:
    """Append the episodes of `bags` to the dataset `out` and write its conversion report.

    Each of `bags` is a recording, or a folder with recordings below it. Episodes that the dataset
    has already (same bag, same id) are passed over. `labels` is a CSV file (see `labels`).
    `progress` is called after each bag. Raises `BagError` if a path is wrong and `DatasetError` if
    the dataset cannot be written; a bag that cannot be converted is told in the report instead.
    """
    if workers < 1:
        raise BagError(f'workers is {workers}; allowed: 1 or more')
    begin = time.perf_counter()
    out = Path(out)
    paths = _all_bags(bags)
    rows = read_labels(labels) if labels is not None else ()
    fresh = not out.exists() or not any(out.iterdir())
    results: list[BagResult] = []
    with DatasetWriter(out, contract) as writer:
        stored = _stored(out)
        tasks = (
            _Task(
                path, contract, rows, stored.get(_uri(path), frozenset()), writer.staging_folder()
            )
            for path in paths
        )
        with ExitStack() as stack:
            for result in _run(tasks, min(workers, len(paths)), stack):
                for episode, encoded in result.episodes:
                    writer.append(episode, encoded)
                result.episodes.clear()
                results.append(result)
                if progress is not None:
                    progress(_progress(results, len(paths)))
        nothing = len(writer) == 0
    status = _status(results, nothing)
    report = summarise(results, contract, out, status, time.perf_counter() - begin)
    if nothing and fresh:
        shutil.rmtree(out)  # made by this very call, and empty
    else:
        write_report(out, report)
    return ConversionResult(report, status)


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
    return str(path.resolve())


def _stored(out: Path) -> dict[str, frozenset[str]]:
    """Return {bag: ids of its episodes in the dataset}."""
    found: dict[str, set[str]] = {}
    for episode in Dataset(out).episodes:
        found.setdefault(episode.bag_uri, set()).add(episode.episode_id)
    return {uri: frozenset(ids) for uri, ids in found.items()}


def _run(tasks: Iterator[_Task], workers: int, stack: ExitStack) -> Iterator[BagResult]:
    """Yield results in the order of the tasks; few are in flight, so memory stays bounded."""
    if workers == 1:
        yield from map(_convert_bag, tasks)
        return
    pool = stack.enter_context(
        ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context('spawn'), initializer=_start_worker
        )
    )
    waiting: deque[tuple[_Task, Future[BagResult]]] = deque()
    for task in tasks:
        waiting.append((task, pool.submit(_convert_bag, task)))
        if len(waiting) >= 4 * workers:
            yield _finished(*waiting.popleft())
    while waiting:
        yield _finished(*waiting.popleft())


def _finished(task: _Task, future: Future[BagResult]) -> BagResult:
    try:
        return future.result()
    except BrokenProcessPool as exc:
        raise BagError(
            f'a worker process died at or before {task.path} (out of memory?); try fewer --workers'
        ) from exc


def _start_worker() -> None:
    cv2.setNumThreads(1)  # the workers share the cores already


def _convert_bag(task: _Task) -> BagResult:
    begin = time.perf_counter()
    result = BagResult({'bag': str(task.path), 'result': 'failed', 'episodes': []})
    report = result.report
    try:
        with BagReader(task.path) as bag:
            report.update(
                storage=bag.kind,
                messages=bag.count,
                partial=bag.partial,
                problems=list(bag.problems),
                topics=nothing_used(bag.topics),
            )
            _fill(task, bag, result)
            report['partial'] = bag.partial
    except QtRosError as exc:
        report.setdefault('problems', []).extend(exc.problems)
    except Exception as exc:  # noqa: BLE001 - one bad bag must not end the others' conversion
        report.setdefault('problems', []).append(f'unexpected {type(exc).__name__}: {exc}')
    for name, default in (('messages', 0), ('topics', {}), ('partial', False), ('duration_s', 0)):
        report.setdefault(name, default)
    report['seconds'] = round(time.perf_counter() - begin, 4)
    return result


def _fill(task: _Task, bag: BagReader, result: BagResult) -> None:
    """Convert every segment of an open bag into `result`."""
    conversion = BagConversion(task.contract, bag, task.labels)
    report = result.report
    times = [index.log_ns for index in conversion.sources.index.values() if len(index)]
    low, high = min(int(t.min()) for t in times), max(int(t.max()) for t in times)
    report.update(
        duration_s=(high - low) / 1e9,
        cuts=0,
        stored=0,
        left_out=0,
        ticks={'planned': 0, 'leading': 0, 'in_gaps': 0, 'without_command': 0, 'undeclared': 0},
    )
    built: list[Built] = []
    for segment in conversion.segments:
        plan = conversion.plan(segment)
        names = conversion.names(segment, plan)
        if plan.parts and task.stored.issuperset(names):
            conversion.ledger.stored.append(segment)
            report['stored'] += len(names)
            continue
        videos: dict[str, Mapping[str, EncodedVideo]] = {}
        encode = _encoder(task, videos, len(built))
        found = conversion.convert(segment, encode)
        for each in found.built:
            if each.episode.episode_id in videos:
                built.append(each)
                name = each.episode.episode_id
                result.episodes.append((light(each.episode), videos[name]))
        report['cuts'] += max(len(found.built) - 1, 0)
        report['left_out'] += not found.built
        report['ticks']['planned'] += found.total
        for name in ('leading', 'in_gaps', 'without_command', 'undeclared'):
            report['ticks'][name] += getattr(found, name)
    report['result'] = 'converted' if built else 'already there' if report['stored'] else 'failed'
    report['episodes'] = [describe(each) for each in built]
    report['problems'] = list(dict.fromkeys([*bag.problems, *conversion.problems]))
    report['topics'] = conversion.ledger.topics(conversion.sources)
    report['streams'] = conversion.disorder()
    for stream in task.contract.streams:
        result.ages_ns[stream] = np.array(
            [tick.samples[stream].age_ns for each in built for tick in each.ticks], np.int64
        )
        flags = [each.episode.valid[stream] for each in built]
        result.valid[stream] = np.concatenate(flags) if flags else np.zeros(0, bool)


def _encoder(
    task: _Task, videos: dict[str, Mapping[str, EncodedVideo]], done: int
) -> Callable[[Episode], None]:
    """Return a function that encodes an episode's images unless the dataset has the episode."""

    def encode(episode: Episode) -> None:
        if episode.episode_id in task.stored:
            return
        folder = task.staging / f'{done:06d}_{len(videos):04d}'
        if episode.episode_id in videos:  # planned anew: the first attempt is thrown away
            folder = next(iter(videos.pop(episode.episode_id).values())).path.parent
        shutil.rmtree(folder, ignore_errors=True)
        videos[episode.episode_id] = encode_videos(episode, folder, task.contract)

    return encode


def _progress(results: Sequence[BagResult], total: int) -> dict[str, Any]:
    last = results[-1].report
    return {
        'bag': last['bag'],
        'result': last['result'],
        'done': len(results),
        'total': total,
        'episodes': sum(len(each.report['episodes']) for each in results),
        'rows': sum(row['rows'] for each in results for row in each.report['episodes']),
    }


def _status(results: Sequence[BagResult], nothing: bool) -> int:
    """Return 0, 1 or 3 as the command line does."""
    fine = [each for each in results if each.report['result'] != 'failed']
    if nothing or not fine:
        return FAILED
    whole = all(not each.report['partial'] and not each.report.get('left_out', 0) for each in fine)
    return DONE if whole and len(fine) == len(results) else PARTIAL
