"""One bag converted by one worker: open it, decode, encode; nothing is appended here."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qt_ros.bags.accounting import nothing_used
from qt_ros.bags.ages import Ages
from qt_ros.bags.episodes import BagConversion, Built, describe, light
from qt_ros.bags.labels import Label
from qt_ros.bags.reader import BagReader
from qt_ros.contract import Contract
from qt_ros.dataset import EncodedVideo, encode_videos
from qt_ros.episode import Episode
from qt_ros.errors import QtRosError


@dataclass(frozen=True)
class BagTask:
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
    ages: dict[str, Ages] = field(default_factory=dict)  # {stream: of the samples that rows use}


def convert_bag(task: BagTask) -> BagResult:
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


def _fill(task: BagTask, bag: BagReader, result: BagResult) -> None:
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
    report['topics'] = conversion.ledger.topics()
    report['streams'] = conversion.sources.disorder()
    for stream in task.contract.streams:
        ages = result.ages[stream] = Ages()
        for each in built:
            ages.add(each.ticks.ages_ns(stream), each.ticks.valid[stream])


def _encoder(
    task: BagTask, videos: dict[str, Mapping[str, EncodedVideo]], done: int
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
