"""Let policies and operators drive the simulated robot in process: evaluation, demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from qt_ros.commands import action_from_targets, targets_from_action
from qt_ros.contract import Contract
from qt_ros.errors import SimError
from qt_ros.observation import Observation
from qt_ros.sim.env import BlockArmEnv
from qt_ros.sim.expert import Expert, Operator, make_operator
from qt_ros.sim.tasks import parse

MAX_STEPS = 100


class HasAction(Protocol):
    """A decision: at least an action (A,), the terminate dimension last where declared."""

    @property
    def action(self) -> np.ndarray: ...


class Acts(Protocol):
    """What can be evaluated."""

    def reset(self, instruction: str) -> None:
        """Begin an episode."""

    def act(self, observation: Observation) -> HasAction:
        """Decide on the observation of one tick."""


@dataclass(frozen=True)
class Action:
    """The decision of an operator: an action (A,) float64."""

    action: np.ndarray


@dataclass(frozen=True)
class EpisodeResult:
    """How one episode went."""

    instruction: str
    seed: int  # of the scene; the same one starts the same again
    success: bool
    steps: int  # actions sent
    ended: str  # success | timeout | lost (a block fell off) | terminated (by who drove)


class OperatorPolicy:
    """A scripted operator behind the interface of a policy; it sees its environment's truth."""

    def __init__(self, operator: Operator, env: BlockArmEnv) -> None:
        self._operator = operator
        self._env = env

    def reset(self, instruction: str) -> None:
        """Begin an episode; the environment has been reset."""
        self._operator.reset(parse(instruction), self._env.world.joint_positions)

    @property
    def finished(self) -> bool:
        """True once the operator would end the attempt."""
        return self._operator.finished

    def act(self, observation: Observation) -> Action:
        """Return the operator's action at the environment's current tick."""
        del observation
        env = self._env
        targets = env.full_targets(self._operator.act(env.arm_state()))
        action = action_from_targets(env.contract, targets, env.targets)
        return Action(_with_terminate(env.contract, action, False))


class ExpertPolicy(OperatorPolicy):
    """The scripted expert; at noise 1 a clumsy one."""

    def __init__(self, env: BlockArmEnv, noise: float = 0.0, seed: int = 0) -> None:
        super().__init__(Expert(noise=noise, seed=seed), env)


class RandomPolicy(OperatorPolicy):
    """A random walk: the score of knowing nothing."""

    def __init__(self, env: BlockArmEnv, seed: int = 0) -> None:
        super().__init__(make_operator('random', seed), env)


def evaluate(
    policy: Acts,
    contract: Contract,
    instructions: Sequence[str],
    episodes: int,
    seed: int,
    max_steps: int = MAX_STEPS,
    progress: Callable[[EpisodeResult], None] | None = None,
    env: BlockArmEnv | None = None,
) -> list[EpisodeResult]:
    """Return how a policy does on `episodes` fresh scenes, the instructions taking turns.

    Scene i has seed `seed + i`. An episode ends with success, after max_steps actions, when the
    policy says it is done (or its `finished` is true), or when a block that is needed fell off.
    Operators' policies have to be given the `env` that they watch.
    """
    for instruction in instructions:
        parse(instruction)
    if not instructions:
        raise SimError('nothing to evaluate: give at least one instruction')
    env = env if env is not None else BlockArmEnv(contract)
    results = []
    for index in range(episodes):
        instruction = instructions[index % len(instructions)]
        result = run_episode(policy, env, instruction, seed + index, max_steps)
        results.append(result)
        if progress is not None:
            progress(result)
    return results


def run_episode(
    policy: Acts, env: BlockArmEnv, instruction: str, seed: int, max_steps: int
) -> EpisodeResult:
    """Let a policy drive one episode."""
    contract = env.contract
    observation = env.reset(instruction, seed)
    policy.reset(instruction)
    ended = 'timeout'
    while env.step_count < max_steps:
        action = np.asarray(policy.act(observation).action, np.float64)
        done = contract.terminate_bins is not None and action[-1] >= 0.5
        action = action[: len(contract.action_dims)]
        observation = env.step(targets_from_action(contract, action, env.targets))
        if env.world.success():
            ended = 'success'
        elif done or getattr(policy, 'finished', False):
            ended = 'terminated'
        elif env.world.lost():
            ended = 'lost'
        else:
            continue
        break
    return EpisodeResult(instruction, env.seed, ended == 'success', env.step_count, ended)


def _with_terminate(contract: Contract, action: np.ndarray, done: bool) -> np.ndarray:
    """Return an action with the terminate dimension that the contract may declare."""
    return action if contract.terminate_bins is None else np.append(action, float(done))
