"""Write a training cache of demonstrations and failed attempts, made in process without ROS.

    python bench/make_block_cache.py --out /tmp/cache --demos 150 --noisy 60

Counts are per instruction. Scenes of demonstrations have seeds from --seed on, those of failed
attempts from --seed + 500000 on; evaluate on others. Of the noisy operator's attempts the
successful ones are dropped, so that the cache has exactly --noisy failures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np

from qt_ros.contract import Contract
from qt_ros.episode import Episode, rewards
from qt_ros.resources import resource
from qt_ros.sim.demonstrations import collect_episodes
from training.cache import CacheAction, CacheMeta
from training.cache_writer import CacheWriter

PUSHES = ('push the red block to the left', 'push the red block to the right')
NOISY_SEEDS = 500_000


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


def failures(contract: Contract, instruction: str, noise: float, seed: int) -> Iterator[Episode]:
    """Yield attempts that did not succeed, without end."""
    attempts = collect_episodes(contract, (instruction,), NOISY_SEEDS, noise, seed)
    return (episode for episode in attempts if episode.outcome != 'success')


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, required=True, help='folder of the cache')
    parser.add_argument('--demos', type=int, default=150, help='per instruction')
    parser.add_argument('--noisy', type=int, default=60, help='failures per instruction')
    parser.add_argument('--noise', type=float, default=1.0, help='how clumsy the failures are')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--contract', type=Path, help='default: config/robots/block_arm.yaml')
    parser.add_argument('--instructions', nargs='+', default=PUSHES)
    args = parser.parse_args()
    contract = Contract.load(args.contract or resource('config/robots/block_arm.yaml'))
    began = time.perf_counter()
    lengths: dict[str, list[int]] = {}
    with CacheWriter(args.out, meta_of(contract), fresh=True) as writer:
        for row, instruction in enumerate(args.instructions):
            first = args.seed + row * 1_000_000
            good = collect_episodes(contract, (instruction,), args.demos, 0.0, first)
            bad = failures(contract, instruction, args.noise, first + NOISY_SEEDS)
            for episode in chain(good, islice(bad, args.noisy)):
                append(writer, episode)
                lengths.setdefault(episode.outcome, []).append(len(episode))
    for outcome, steps in lengths.items():
        print(f'{outcome}: {len(steps)} episodes, {np.mean(steps):.1f} steps on average')
    total = sum(map(sum, lengths.values()))
    print(f'{total} rows in {time.perf_counter() - began:.1f} s: {args.out}')


if __name__ == '__main__':
    main()
