"""Small training caches made of episodes given as plain arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.cache import CacheAction, CacheMeta
from training.cache_writer import CacheWriter

CONTRACT = 'name: test\n'


def write_cache(path: Path, episodes: list[dict], *, action=None, cameras=None, size=3) -> Path:
    """Write episodes: dicts with state (T, S), action (T, A), outcome, instruction, images."""
    action = action or (
        CacheAction('x', -1.0, 1.0, 5),
        CacheAction('y', 0.0, 1.0, 3),
        CacheAction('grip', 0.0, 1.0, 2),
    )
    cameras = {'front': (16, 20)} if cameras is None else cameras
    names = tuple(f's{i}' for i in range(size))
    meta = CacheMeta(CONTRACT, 'hash', cameras, names, action)
    with CacheWriter(path, meta) as writer:
        for number, episode in enumerate(episodes):
            length = len(episode['action'])
            outcome = episode.get('outcome', 'success')
            reward = np.zeros(length, np.float32)
            reward[-1] = outcome == 'success'
            ends = np.zeros(length, np.uint8)
            ends[-1] = 1
            over = outcome in ('success', 'failure')
            writer.append(
                id=f'e{number}',
                instruction=episode.get('instruction', 'push it'),
                outcome=outcome,
                source='teleop',
                policy_id='',
                images=episode.get('images', {}),
                state=episode['state'].astype(np.float32),
                action=episode['action'].astype(np.float32),
                reward=episode.get('reward', reward),
                terminated=episode.get('terminated', ends * over),
                truncated=ends * (not over),
            )
    return path


def random_episodes(lengths, outcomes, seed=0, cameras=None, size=3):
    """Episodes of noise; state[:, 0] counts the rows of all of them."""
    rng = np.random.default_rng(seed)
    cameras = {'front': (16, 20)} if cameras is None else cameras
    episodes, count = [], 0
    for number, (length, outcome) in enumerate(zip(lengths, outcomes, strict=True)):
        state = rng.normal(size=(length, size))
        state[:, 0] = np.arange(count, count + length)
        count += length
        episodes.append(
            {
                'state': state,
                'action': rng.uniform(-1, 1, size=(length, 3)),
                'outcome': outcome,
                'instruction': ('go left', 'go right')[number % 2],
                'images': {
                    name: rng.integers(0, 256, (length, *hw, 3), dtype=np.uint8)
                    for name, hw in cameras.items()
                },
            }
        )
    return episodes
