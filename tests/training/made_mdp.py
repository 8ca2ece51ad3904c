"""Small decision problems with known answers, written as training data.

A problem is three tables over (state, *action): the next state, the reward, and whether it ends.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from made_caches import write_cache

from training.cache import CacheAction

GAMMA = 0.8


class Problem(NamedTuple):
    """Deterministic; each table is (states, *counts)."""

    after: np.ndarray
    reward: np.ndarray
    ended: np.ndarray

    @property
    def counts(self) -> tuple[int, ...]:
        return self.reward.shape[1:]

    @property
    def states(self) -> int:
        return len(self.reward)

    def rows(self) -> list[tuple[int, ...]]:
        """Every (state, *action)."""
        return list(product(*map(range, self.reward.shape)))


def chain(counts: tuple[int, ...], states: int = 4) -> Problem:
    """The right bins lead on, others nowhere, back, or to an end; the last state pays."""
    after = np.zeros((states, *counts), int)
    reward = np.zeros((states, *counts))
    ended = np.zeros((states, *counts), bool)
    for s, *action in product(range(states), *map(range, counts)):
        at = (s, *action)
        good = all(action[i] == (s + 1 + i) % n for i, n in enumerate(counts))
        after[at] = min(s + 1, states - 1) if good else (s if action[-1] else 0)
        ended[at] = (good and s == states - 1) or sum(action) == sum(counts) - len(counts)
        reward[at] = float(good and s == states - 1)
    first = (1, *(0 for _ in counts))
    reward[first], ended[first] = 0.3, True  # a tempting way out
    return Problem(after, reward, ended)


def stopping(counts: tuple[int, ...], states: int = 4) -> Problem:
    """The last dimension ends the episode: this pays 1 in the last state, elsewhere nothing."""
    after = np.zeros((states, *counts), int)
    reward = np.zeros((states, *counts))
    ended = np.zeros((states, *counts), bool)
    for s, *action in product(range(states), *map(range, counts)):
        at = (s, *action)
        good = all(action[i] == (s + i) % n for i, n in enumerate(counts[:-1]))
        after[at] = min(s + 1, states - 1) if good else 0
        ended[at] = action[-1] == 1
        reward[at] = float(ended[at] and s == states - 1)
    return Problem(after, reward, ended)


def value_iteration(problem: Problem) -> np.ndarray:
    """Return the exact Q* (states, *counts)."""
    q = np.zeros(problem.reward.shape)
    for _ in range(500):
        best = q.reshape(problem.states, -1).max(1)
        q = problem.reward + GAMMA * np.where(problem.ended, 0, best[problem.after])
    return q


def exact_tables(q: np.ndarray, target: str) -> list[np.ndarray]:
    """Return Q of every prefix, one (states, *counts[:i]) per dimension i.

    Per dimension it is the best that the later ones can make of it. n-step skips these maxima:
    what is left is the mean over the actions of the data, which here holds each of them once.
    """
    over = np.max if target == 'per_dim' else np.mean
    tables = [q]
    for axis in range(q.ndim - 1, 1, -1):
        tables.append(over(tables[-1], axis=axis))
    return tables[::-1]


def write_problem(path: Path, problem: Problem, q: np.ndarray, history: bool) -> tuple[Path, int]:
    """Write every transition as an episode; return the cache and the number of its episodes.

    The row behind a transition does the best there is and is cut off. history: every transition
    comes once more behind each that leads to its state.
    """
    best = np.stack(
        np.unravel_index(q.reshape(problem.states, -1).argmax(1), problem.counts), axis=1
    )
    paths = [[row] for row in problem.rows()]
    if history:
        paths = [
            [before, (problem.after[before], *action)] if not problem.ended[before] else [before]
            for before in problem.rows()
            for action in product(*map(range, problem.counts))
        ]
    episodes = [_episode(problem, rows, best) for rows in paths]
    action = tuple(CacheAction(f'a{i}', 0.0, n - 1.0, n) for i, n in enumerate(problem.counts))
    return write_cache(path, episodes, action=action, cameras={}, size=problem.states), len(
        episodes
    )


def _episode(problem: Problem, rows: list[tuple[int, ...]], best: np.ndarray) -> dict:
    over = bool(problem.ended[rows[-1]])
    gain = [problem.reward[row] for row in rows]
    end = [bool(problem.ended[row]) for row in rows]
    if not over:
        state = problem.after[rows[-1]]
        rows = [*rows, (state, *best[state])]
        gain, end = [*gain, 0.0], [*end, False]
    return {
        'state': np.eye(problem.states)[[row[0] for row in rows]],
        'action': np.array([row[1:] for row in rows], float),
        'outcome': 'failure' if over else 'timeout',
        'reward': np.array(gain, np.float32),
        'terminated': np.array(end, np.uint8),
    }
