"""Training caches of the simulated robot, made in process without ROS."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from qt_ros.contract import Contract
from qt_ros.episode import Episode, rewards
from training.cache import CacheAction, CacheMeta
from training.cache_writer import CacheWriter


def write_cache(folder: Path, contract: Contract, episodes: Iterable[Episode]) -> None:
    """Write a training cache of the episodes; it is there once all of them are."""
    with CacheWriter(folder, meta_of(contract), fresh=True) as writer:
        for episode in episodes:
            append(writer, episode)


def meta_of(contract: Contract) -> CacheMeta:
    """Return the layout of a contract's cache."""
    return CacheMeta(
        contract=contract.to_yaml(),
        contract_hash=contract.hash,
        cameras={camera.name: camera.size for camera in contract.cameras},
        state_names=contract.state_names,
        action=tuple(CacheAction(d.name, d.low, d.high, d.bins) for d in contract.dims),
    )


def append(writer: CacheWriter, episode: Episode) -> None:
    """Write the rows of one episode."""
    after = rewards(episode.outcome, len(episode))
    writer.append(
        id=episode.episode_id,
        instruction=episode.instruction,
        outcome=episode.outcome,
        source=episode.source,
        policy_id=episode.policy_id,
        images={camera: frames() for camera, frames in episode.images.items()},
        state=episode.state,
        action=episode.action,
        reward=after['next.reward'],
        terminated=after['next.done'],
        truncated=after['next.truncated'],
    )
