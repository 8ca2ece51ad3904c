"""Fill the training cache of a dataset; its layout is the business of `training.cache`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qt_ros.dataset.files import locked
from qt_ros.dataset.layout import CACHE, LOCK
from qt_ros.dataset.reader import Dataset
from qt_ros.episode import rewards
from training.cache import CacheAction, CacheMeta, CacheWriter

COMMIT_ROWS = 50_000  # an interrupted build goes on from the last multiple of about that


def build_cache(
    dataset_path: str | Path, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Bring `<dataset>/.cache` up to date and return its path.

    Costs nothing where it is; appends the episodes that it lacks; rewrites the rewards of those
    with another outcome than before; starts anew if the contract or any row is another. `progress`
    is called with (episodes done, episodes) after each. Raises `DatasetError` if another process
    is building it.
    """
    dataset = Dataset(dataset_path)
    cache = dataset.path / CACHE
    cache.mkdir(exist_ok=True)
    with locked(cache / LOCK, str(cache)), _writer(cache, dataset) as writer:
        _follow_outcomes(writer, dataset)
        committed = writer.meta.rows
        for index in range(len(writer.meta.episodes), len(dataset)):
            _append(writer, dataset, index)
            if writer.meta.rows - committed >= COMMIT_ROWS:
                writer.commit()
                committed = writer.meta.rows
            if progress is not None:
                progress(index + 1, len(dataset))
    return cache


def relabel_cache(dataset_path: str | Path) -> None:
    """Let the rewards of an existing cache follow the outcomes of its dataset; decode nothing."""
    dataset = Dataset(dataset_path)
    cache = dataset.path / CACHE
    if not (cache / 'meta.json').exists():
        return
    with locked(cache / LOCK, str(cache)), _writer(cache, dataset) as writer:
        _follow_outcomes(writer, dataset)


def _writer(cache: Path, dataset: Dataset) -> CacheWriter:
    """Return a writer that goes on with the cache if it holds the first episodes of `dataset`."""
    contract = dataset.contract
    meta = CacheMeta(
        contract=contract.to_yaml(),
        contract_hash=contract.hash,
        cameras={camera.name: camera.size for camera in contract.cameras},
        state_names=contract.state_names,
        action=tuple(
            CacheAction(name=dim.name, low=dim.low, high=dim.high, bins=dim.bins)
            for dim in contract.dims
        ),
    )
    writer = CacheWriter(cache, meta)
    held = [(episode.digest, episode.length) for episode in writer.meta.episodes]
    there = [(episode.digest, episode.length) for episode in dataset.episodes]
    if held != there[: len(held)]:
        writer.close()
        writer = CacheWriter(cache, meta, fresh=True)
    return writer


def _follow_outcomes(writer: CacheWriter, dataset: Dataset) -> None:
    for index, held in enumerate(writer.meta.episodes):
        outcome = dataset.episodes[index].outcome
        if outcome != held.outcome:
            columns = rewards(outcome, held.length)
            writer.relabel(
                index,
                outcome,
                columns['next.reward'],
                columns['next.done'],
                columns['next.truncated'],
            )


def _append(writer: CacheWriter, dataset: Dataset, index: int) -> None:
    episode = dataset.episodes[index]
    rows = dataset.rows(index)
    writer.append(
        id=episode.episode_id,
        instruction=episode.instruction,
        outcome=episode.outcome,
        source=episode.source,
        policy_id=episode.policy_id,
        images={
            camera.name: dataset.iter_frames(index, camera.name)
            for camera in dataset.contract.cameras
        },
        state=rows['observation.state'],
        action=rows['action'],
        reward=rows['next.reward'],
        terminated=rows['next.done'],
        truncated=rows['next.truncated'],
        digest=episode.digest,
    )
