"""Bags and a contract into a dataset, on one or more processes, with one committer.

Workers open bags, decode and encode; this process alone appends, in the order in which the bags
were given, so the dataset does not depend on the number of workers.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qt_ros.bags.conversion_report import REPORT, summarise, write_report
from qt_ros.bags.finding import find_bags
from qt_ros.bags.labels import read_labels
from qt_ros.bags.pools import run_tasks
from qt_ros.bags.work import BagResult, BagTask
from qt_ros.contract import Contract
from qt_ros.dataset import Dataset, DatasetWriter
from qt_ros.errors import BagError

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
            BagTask(
                path, contract, rows, stored.get(_uri(path), frozenset()), writer.staging_folder()
            )
            for path in paths
        )
        with ExitStack() as stack:
            for result in run_tasks(tasks, min(workers, len(paths)), stack):
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
