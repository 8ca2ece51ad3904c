"""Training data of Meta-World: scripted demonstrations, and noisy replays of them that failed.

The expert's hand slips now and then and it corrects that. The actions of each demonstration are
then sent again from the same start, blindly and with drifting noise on every one, until enough of
these attempts have failed; those that succeed by luck are left out, so that the share of
successes is the one asked for. A replay that is at its end without success has run out of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np

from bench.learning.metaworld_env import (
    ACTION,
    CAMERAS,
    INSTRUCTIONS,
    STATE,
    MetaWorld,
    Observation,
)
from bench.learning.study import LearningError
from training.cache import CacheAction, CacheMeta
from training.cache_writer import CacheWriter

CONTRACT = 'name: metaworld_mt10\n'
PATIENCE = 20  # attempts per episode wanted before something is called wrong


@dataclass(frozen=True)
class Plan:
    """How many episodes of each task, and how noisy."""

    demonstrations: int = 25
    failures: int = 75
    jitter: float = 0.5  # of the expert on a quarter of its decisions, std of an action in -1..1
    noise: float = 0.3  # of a replay, on every decision ...
    correlation: float = 0.9  # ... and from one to the next: a hand that drifts off


@dataclass(frozen=True)
class Episode:
    """One attempt: what was seen before each of the actions (T, 4)."""

    seen: list[Observation]
    action: np.ndarray
    success: bool


def attempt(
    env: MetaWorld, task: str, seed: int, act: Callable[[int], np.ndarray], steps: int
) -> Episode:
    """Record one attempt of at most `steps` decisions; act(k) gives the action (4,) of step k."""
    seen, actions = [env.reset(task, seed)], []
    while not env.over and env.step_count < steps:
        actions.append(ACTION.to_values(ACTION.to_bins(act(env.step_count))))
        seen.append(env.step(actions[-1]))
    return Episode(seen[:-1], np.array(actions), env.success)


def episodes(
    env: MetaWorld, task: str, plan: Plan, scene: int, rng: np.random.Generator
) -> Iterator[Episode]:
    """Yield the episodes of one task; starts have seeds from `scene` on.

    Raises LearningError where the expert, or a replay's failing, takes too many attempts.
    """

    def slip(std: float) -> np.ndarray:
        return np.append(rng.normal(0.0, std, 3), 0.0)

    def demonstrate(_: int) -> np.ndarray:
        return env.expert_action() + (slip(plan.jitter) if rng.random() < 0.25 else 0.0)

    originals: list[tuple[int, np.ndarray]] = []
    for tried in range(PATIENCE * plan.demonstrations):
        if len(originals) == plan.demonstrations:
            break
        episode = attempt(env, task, scene + tried, demonstrate, 10**9)
        if episode.success:
            originals.append((scene + tried, episode.action))
            yield episode
    if len(originals) < plan.demonstrations:
        raise LearningError(f'{task}: the expert succeeded {len(originals)} times only')
    failed = 0
    for tried, (seed, actions) in enumerate(cycle(originals)):
        if failed == plan.failures:
            return
        if tried > PATIENCE * plan.failures:
            raise LearningError(f'{task}: {failed} of {tried} replays failed; use more noise')
        noisy = actions + _drift(plan, len(actions), rng)
        episode = attempt(env, task, seed, noisy.__getitem__, len(noisy))
        if not episode.success:
            failed += 1
            yield episode


def _drift(plan: Plan, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return the noise (length, 4) on a replay's actions, none on the gripper."""
    fresh = rng.normal(0.0, plan.noise, (length, 3))
    fresh[1:] *= (1 - plan.correlation**2) ** 0.5
    for before, now in pairwise(fresh):
        now += plan.correlation * before
    return np.hstack([fresh, np.zeros((length, 1))])


def write_cache(
    folder: Path, plan: Plan, tasks: tuple[str, ...], scene: int, per_task: int, seed: int
) -> None:
    """Write the training cache of some tasks, `per_task` starts apart from `scene` on."""
    env = MetaWorld()
    try:
        with CacheWriter(folder, layout(), fresh=True) as writer:
            for row, task in enumerate(tasks):
                rng = np.random.default_rng([seed, row])
                start = scene + row * per_task
                for number, episode in enumerate(episodes(env, task, plan, start, rng)):
                    _append(writer, episode, task, f'{task}-{number}')
    finally:
        env.close()


def layout() -> CacheMeta:
    """Return the layout of the cache."""
    return CacheMeta(
        contract=CONTRACT,
        contract_hash='metaworld_mt10',
        cameras=CAMERAS,
        state_names=STATE,
        action=tuple(CacheAction(d.name, d.low, d.high, d.bins) for d in ACTION.dims),
    )


def _append(writer: CacheWriter, episode: Episode, task: str, name: str) -> None:
    length = len(episode.action)
    last = np.arange(length) == length - 1
    writer.append(
        id=name,
        instruction=INSTRUCTIONS[task],
        outcome='success' if episode.success else 'timeout',
        source='teleop',
        policy_id='',
        images={camera: [seen.images[camera] for seen in episode.seen] for camera in CAMERAS},
        state=np.stack([seen.state for seen in episode.seen]),
        action=episode.action.astype(np.float32),
        reward=(last & episode.success).astype(np.float32),
        terminated=last & episode.success,
        truncated=last & (not episode.success),
    )
