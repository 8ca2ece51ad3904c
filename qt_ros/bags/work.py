"""One bag converted by one worker: open it, decode, encode; nothing is appended here."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qt_ros.bags.accounting import nothing_used
from qt_ros.bags.ages import Ages
from qt_ros.bags.episodes import BagConversion, describe, light
from qt_ros.bags.known import Known, fingerprint, standing
from qt_ros.bags.labels import Label
from qt_ros.bags.meter import Meter, Tell
from qt_ros.bags.reader import BagReader
from qt_ros.contract import Contract
from qt_ros.dataset import EncodedVideo, encode_videos
from qt_ros.dataset.files import CannotWrite
from qt_ros.episode import Episode
from qt_ros.errors import BagError, QtRosError
from qt_ros.heap import give_back


@dataclass(frozen=True)
class BagTask:
    path: Path
    contract: Contract
    labels: tuple[Label, ...]
    known: Known  # what the dataset has already, of this bag and of its like
    staging: Path


@dataclass
class BagResult:
    """What a worker hands back about one bag."""

    report: dict[str, Any]
    episodes: list[tuple[Episode, Mapping[str, EncodedVideo]]] = field(default_factory=list)
    ages: dict[str, Ages] = field(default_factory=dict)  # {stream: of the samples that rows use}


def convert_bag(task: BagTask, tell: Tell | None = None) -> BagResult:
    """Convert one bag; `tell` is called with the share that is done, a few times a second."""
    begin, cpu_begin = time.perf_counter(), time.process_time()
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
            _fill(task, bag, result, tell)
            report['partial'] = bag.partial
    except CannotWrite:  # not this bag's fault, and the next one would fare no better
        raise
    except QtRosError as exc:
        report.setdefault('problems', []).extend(exc.problems)
    except Exception as exc:  # noqa: BLE001 - one bad bag must not end the others' conversion
        report.setdefault('problems', []).append(f'unexpected {type(exc).__name__}: {exc}')
    if report['result'] != 'converted':
        # The report accounts for none of them.
        result.episodes, result.ages, report['episodes'] = [], {}, []
    report['seconds'] = round(time.perf_counter() - begin, 4)
    report['cpu_seconds'] = round(time.process_time() - cpu_begin, 4)
    return _completed(result)


def not_converted(task: BagTask, *problems: str) -> BagResult:
    """Return the result of a bag that could not even be opened."""
    report = {'bag': str(task.path), 'result': 'failed', 'episodes': [], 'problems': [*problems]}
    return _completed(BagResult(report))


def _completed(result: BagResult) -> BagResult:
    """Fill in what every report of a bag has."""
    defaults = {'messages': 0, 'topics': {}, 'partial': False, 'duration_s': 0, 'problems': []}
    for name, default in {**defaults, 'seconds': 0.0, 'cpu_seconds': 0.0}.items():
        result.report.setdefault(name, default)
    result.report['problems'] = list(dict.fromkeys(result.report['problems']))
    return result


def _fill(task: BagTask, bag: BagReader, result: BagResult, tell: Tell | None) -> None:
    """Convert every segment of an open bag into `result`."""
    conversion = BagConversion(task.contract, bag, task.labels)
    give_back()  # the index took more than what is kept of it
    report = result.report
    report['label_rows'] = sorted(conversion.applied)
    low, high = conversion.sources.span_ns
    report.update(
        duration_s=(high - low) / 1e9,
        cuts=0,
        stored=0,
        left_out=0,
        ticks={'planned': 0, 'leading': 0, 'in_gaps': 0, 'without_command': 0, 'undeclared': 0},
    )
    result.ages = {stream: Ages() for stream in task.contract.streams}
    standings = [standing(conversion, segment, task.known) for segment in conversion.segments]
    changed = [text for each in standings for text in each.changed]
    if changed:
        report['result'] = 'changed'
        raise BagError(changed)
    meter = Meter(task.contract, conversion.segments, tell)
    for number, (segment, known) in enumerate(zip(conversion.segments, standings, strict=True)):
        if known.there:
            conversion.ledger.stored.append(segment)
            conversion.problems += known.moved
            report['stored'] += known.episodes
            meter.finish(number)
            continue
        videos: dict[str, Mapping[str, EncodedVideo]] = {}
        fingerprints: dict[str, str] = {}
        encode = _encoder(task, videos, fingerprints, len(result.episodes), meter)
        found = conversion.convert(segment, encode)
        for each in found.built:
            if each.episode.episode_id in videos:
                earlier = [text for text in segment.earlier_outcomes if text != 'unknown']
                report['episodes'].append({**describe(each), 'earlier_outcomes': earlier})
                for stream, ages in result.ages.items():
                    ages.add(each.ticks.ages_ns(stream), each.ticks.valid[stream])
                name = each.episode.episode_id
                episode = replace(light(each.episode), fingerprint=fingerprints[name])
                result.episodes.append((episode, videos[name]))
        report['cuts'] += max(len(found.built) - 1, 0)
        report['left_out'] += not found.built
        report['ticks']['planned'] += found.total
        for name in ('leading', 'in_gaps', 'without_command', 'undeclared'):
            report['ticks'][name] += getattr(found, name)
        meter.finish(number)
        give_back()
    if result.episodes:
        report['result'] = 'converted'
    elif report['stored']:
        report['result'] = 'already there'
    report['problems'] = list(dict.fromkeys([*bag.problems, *conversion.problems]))
    report['topics'] = conversion.ledger.topics()
    report['streams'] = conversion.sources.disorder()


def _encoder(
    task: BagTask,
    videos: dict[str, Mapping[str, EncodedVideo]],
    fingerprints: dict[str, str],
    done: int,
    meter: Meter,
) -> Callable[[Episode], None]:
    """Return a function that encodes an episode's images unless the dataset has the episode."""

    def encode(episode: Episode) -> None:
        name = episode.episode_id
        if name in task.known.here:
            return
        folder = task.staging / f'{done:06d}_{len(videos):04d}'
        if name in videos:  # planned anew: the first attempt is thrown away
            folder = next(iter(videos.pop(name).values())).path.parent
        shutil.rmtree(folder, ignore_errors=True)
        fingerprints[name] = fingerprint(episode, task.contract)
        videos[name] = encode_videos(meter.counted(episode), folder, task.contract)

    return encode
