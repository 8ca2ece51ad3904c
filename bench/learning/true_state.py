"""The block study's episodes with the simulator's truth in place of images, as flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from bench.learning.block import PER_SEED, contract
from bench.learning.noisy_replay import Plan, noisy_replays
from qt_ros.episode import rewards
from qt_ros.observation import Observation
from qt_ros.sim.env import BlockArmEnv
from qt_ros.sim.rollout import Action


class SeeingEnv(BlockArmEnv):
    """The simulated robot without cameras; `poses` holds the blocks' of every tick so far."""

    def __init__(self) -> None:
        super().__init__(replace(contract(), cameras=()))
        self.poses: list[np.ndarray] = []  # (21,) each

    def reset(self, instruction: str, seed: int | None = None) -> Observation:
        """Start an episode; return o_0."""
        observation = super().reset(instruction, seed)
        self.poses = [self.world.truth().ravel()]
        return observation

    def step(self, targets: np.ndarray) -> Observation:
        """Send absolute targets (A,); return the next observation."""
        observation = super().step(targets)
        self.poses.append(self.world.truth().ravel())
        return observation


def true_state(state: np.ndarray, poses: np.ndarray, number: int, tasks: int) -> np.ndarray:
    """Return what d3rlpy is shown (..., S + 21 + tasks) float32; number: of the instruction."""
    which = np.zeros((*state.shape[:-1], tasks))
    which[..., number] = 1.0
    return np.concatenate([state, poses, which], axis=-1).astype(np.float32)


def make_arrays(plans: Mapping[str, Plan], seed: int) -> dict[str, np.ndarray]:
    """Return the block study's episodes of a seed as flat arrays, one row per tick."""
    env = SeeingEnv()
    parts: dict[str, list[np.ndarray]] = {}
    for row, (instruction, plan) in enumerate(plans.items()):
        scene = (1 + seed) * PER_SEED + row * PER_SEED // len(plans)
        for episode in noisy_replays(
            env.contract, instruction, plan, scene, seed * 100 + row, env=env
        ):
            after = rewards(episode.outcome, len(episode))
            poses = np.stack(env.poses[: len(episode)])
            for name, values in (
                ('state', true_state(episode.state, poses, row, len(plans))),
                ('action', episode.action),
                ('reward', after['next.reward']),
                ('terminated', after['next.done']),
                ('truncated', after['next.truncated']),
            ):
                parts.setdefault(name, []).append(np.asarray(values, np.float32))
    return {name: np.concatenate(each) for name, each in parts.items()}


class Predicts(Protocol):
    """What acts on states."""

    def predict(self, states: np.ndarray) -> np.ndarray:
        """Return the actions (N, A) for states (N, S)."""


class TruePolicy:
    """An algorithm of d3rlpy behind the interface of a policy; it sees its environment's truth."""

    def __init__(self, algorithm: Predicts, env: SeeingEnv, instructions: Sequence[str]) -> None:
        self._algorithm, self._env, self._instructions = algorithm, env, list(instructions)
        self._low = np.array([dim.low for dim in env.contract.dims])
        self._high = np.array([dim.high for dim in env.contract.dims])
        self._two = np.array([dim.bins == 2 for dim in env.contract.dims])

    def reset(self, instruction: str) -> None:
        """Begin an episode."""
        self._number = self._instructions.index(instruction)

    def act(self, observation: Observation) -> Action:
        """Return the greedy action, within its range; a dimension of two bins takes one."""
        shown = true_state(
            observation.state, self._env.poses[-1], self._number, len(self._instructions)
        )
        action = np.clip(self._algorithm.predict(shown[None])[0], self._low, self._high)
        nearest = np.where(action > (self._low + self._high) / 2, self._high, self._low)
        return Action(np.where(self._two, nearest, action).astype(np.float64))
