"""Episodes of a LeRobot set into a dataset of ours, one after the other.

An imported episode is known by the set's path and its index in it ('/data/so100#7'), so running
the import again adds nothing. An episode that cannot be read is left out and told; the others go
on. The set itself is only read.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qt_ros.contract import Contract
from qt_ros.dataset import DatasetWriter, encode_videos
from qt_ros.episode import Episode
from qt_ros.errors import DatasetError
from qt_ros.lerobot.building import Builder
from qt_ros.lerobot.errors import EpisodeError, SourceError
from qt_ros.lerobot.ranges import Ranges
from qt_ros.lerobot.source import Source, SourceEpisode

Progress = Callable[[dict[str, Any]], None]
DONE, FAILED, PARTIAL = 0, 1, 3
IMPORTED, THERE, LEFT_OUT = 'imported', 'already there', 'left out'


@dataclass(frozen=True)
class ImportResult:
    """What `import_lerobot` did. status: 0 all, 1 nothing, 3 some episodes were left out."""

    report: dict[str, Any]
    status: int


def import_lerobot(
    dataset: str | Path | Source,
    out: str | Path,
    contract: Contract,
    *,
    outcome: str | None = None,
    source: str | None = None,
    names: Mapping[str, str] | None = None,
    actions: str | None = None,
    episodes: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> ImportResult:
    """Append the episodes of a LeRobot v3 set to the dataset `out`, as `contract` has them.

    outcome: of every episode, where the set does not say or says it wrong
    source: who drove (without it what the set says, else teleop)
    names: {OURS: THEIRS}, see `mapping.match`
    actions: 'targets' if the set's actions are where to go, 'changes' if they are how far where
        `contract` says delta (without it what the set's own contract says, else targets)
    episodes: indices (without it all)
    progress: called after each episode

    Raises `SourceError` if the set cannot be read or lacks what the contract asks for and
    `DatasetError` if `out` cannot be written; a damaged episode is told in the report instead.
    """
    begin = time.perf_counter()
    opened = dataset if isinstance(dataset, Source) else Source(dataset)
    out = Path(out)
    _check_apart(opened.path, out)
    chosen = _chosen(opened, episodes)
    builder = Builder(
        opened,
        contract,
        chosen,
        names=names or {},
        actions=actions,
        outcome=outcome,
        driver=source,
    )
    fresh = not out.exists() or not any(out.iterdir())
    ranges = Ranges(contract)
    told: list[dict[str, Any]] = []
    with DatasetWriter(out, contract) as writer:
        for each in chosen:
            told.append(_import(each, builder, writer, ranges))
            if progress is not None:
                progress(_progress(told, len(chosen)))
        nothing = len(writer) == 0
    if nothing and fresh:
        shutil.rmtree(out)  # made by this very call, and empty
    status = _status(told)
    report = {
        'status': status,
        'dataset': str(out),
        'from': str(opened.path),
        'contract': contract.name,
        'contract_hash': contract.hash,
        'fps': opened.info.fps,
        'rate_hz': contract.rate_hz,
        'mapping': builder.mapping.to_dict(contract),
        'actions': builder.actions,
        'episodes': _totals(told),
        'rows': sum(each.get('rows', 0) for each in told),
        'ranges': ranges.result(),
        'problems': [*_problems(told), *ranges.problems()],
        'per_episode': told,
        'seconds': round(time.perf_counter() - begin, 3),
    }
    return ImportResult(report, status)


def _check_apart(source: Path, out: Path) -> None:
    """Refuse to write into the set that is read."""
    target = out.resolve()
    if target == source or source in target.parents or target in source.parents:
        raise DatasetError(
            f'{out} lies in the set that is imported, or around it; give a folder beside it'
        )


def _chosen(source: Source, episodes: Sequence[int] | None) -> list[SourceEpisode]:
    if not source.episodes:
        raise SourceError(f'{source.path} has no episodes')
    if episodes is None:
        return list(source.episodes.values())
    unknown = sorted({index for index in episodes if index not in source.episodes})
    if unknown:
        first, last = min(source.episodes), max(source.episodes)
        raise SourceError(
            f'{source.path} has no episode {", ".join(map(str, unknown[:5]))}; allowed: {first} to'
            f' {last}'
        )
    return [source.episodes[index] for index in dict.fromkeys(episodes)]


def _import(
    each: SourceEpisode, builder: Builder, writer: DatasetWriter, ranges: Ranges
) -> dict[str, Any]:
    """Import one episode and return what happened to it."""
    told: dict[str, Any] = {'index': each.index, 'result': LEFT_OUT, 'problems': []}
    if writer.has(builder.uri(each), builder.episode_id(each)):
        return {**told, 'result': THERE}
    try:
        built = builder.build(each)
        encoded = encode_videos(built.episode, writer.staging_folder(), writer.contract)
    except EpisodeError as error:
        return {**told, 'problems': list(error.problems)}
    writer.append(built.episode, encoded)
    ranges.add(built.episode)
    return {
        **told,
        'result': IMPORTED,
        **_words(built.episode),
        'outcome_from': built.outcome_from,
        'problems': built.remarks,
    }


def _words(episode: Episode) -> dict[str, Any]:
    return {
        'episode_id': episode.episode_id,
        'rows': len(episode),
        'outcome': episode.outcome,
        'source': episode.source,
        'instruction': episode.instruction,
    }


def _progress(told: Sequence[dict[str, Any]], total: int) -> dict[str, Any]:
    return {
        'done': len(told),
        'total': total,
        'episodes': sum(each['result'] == IMPORTED for each in told),
        'rows': sum(each.get('rows', 0) for each in told),
    }


def _status(told: Sequence[dict[str, Any]]) -> int:
    left_out = sum(each['result'] == LEFT_OUT for each in told)
    if not left_out:
        return DONE
    return FAILED if left_out == len(told) else PARTIAL


def _totals(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    new = [each for each in told if each['result'] == IMPORTED]
    results = Counter(each['result'] for each in told)
    return {
        'total': len(told),
        'new': len(new),
        'already_there': results[THERE],
        'left_out': results[LEFT_OUT],
        'by_outcome': dict(Counter(each['outcome'] for each in new)),
        'by_source': dict(Counter(each['source'] for each in new)),
        'outcome_from': dict(Counter(each['outcome_from'] for each in new)),
    }


def _problems(told: Sequence[dict[str, Any]]) -> list[str]:
    """Return the problems of all episodes; one that many share is said once."""
    shared: dict[str, list[int]] = {}
    for each in told:
        for problem in each['problems']:
            shared.setdefault(problem, []).append(each['index'])
    return [f'{_which(indices)}: {problem}' for problem, indices in shared.items()]


def _which(indices: Sequence[int]) -> str:
    shown = ', '.join(map(str, indices[:5]))
    return f'episode {shown}' + (f' and {len(indices) - 5} more' if len(indices) > 5 else '')
