"""Failures as the paper's simulation makes them: demonstrations replayed with noise.

A few demonstrations succeed. The actions of each are then sent again, many times, from the same
scene and each time with other noise on them; the simulator says what came of it. A replay is
blind: it neither sees that it missed nor corrects it, and so most replays fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from bench.learning.study import LearningError
from qt_ros.contract import Contract
from qt_ros.episode import Episode
from qt_ros.sim.demonstrations import attempt
from qt_ros.sim.env import BlockArmEnv
from qt_ros.sim.expert import STEP_LIMITS, ArmState, Expert, Operator
from qt_ros.sim.tasks import Task

PATIENCE = 20  # attempts per episode wanted before the noise is called too small


@dataclass(frozen=True)
class Plan:
    """How many episodes of each instruction, and how noisy."""

    episodes: int  # in the end
    demonstrations: int  # of them
    share: float = 0.08  # of successes among all; replays that succeed count
    noise: float = 0.5  # standard deviation on each action, in steps of `STEP_LIMITS`
    correlation: float = 0.5  # of the noise from one tick to the next; 0: a new draw each time

    @property
    def successes(self) -> int:
        """Return the most successes there will be."""
        return max(self.demonstrations, round(self.share * self.episodes))


class Recorded:
    """An operator whose commands are kept."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self.commands: list[np.ndarray] = []  # (7,) each

    def reset(self, task: Task, positions: np.ndarray) -> None:
        """Begin an attempt with the arm at joint positions (6,) [rad]."""
        self._operator.reset(task, positions)
        self.commands = []

    def act(self, state: ArmState) -> np.ndarray:
        """Return the operator's targets (7,)."""
        self.commands.append(self._operator.act(state))
        return self.commands[-1].copy()

    @property
    def finished(self) -> bool:
        """True once the operator would end the attempt."""
        return self._operator.finished


class NoisyReplay:
    """Sends the steps of a demonstration again, with noise on each joint's step.

    The noise adds up, as the actions do: they are steps from where the arm was sent last. And it
    goes on in its direction for a while (an Ornstein-Uhlenbeck process): drawn anew at every tick
    it would cancel out, in the arm's path as in the mean of what a network imitates.
    """

    def __init__(self, commands: list[np.ndarray], plan: Plan, rng: np.random.Generator) -> None:
        self._commands, self._rng = commands, rng
        self._limits = np.array(STEP_LIMITS)
        self._scale = plan.noise * self._limits
        self._correlation = plan.correlation
        self._next = 0

    def reset(self, task: Task, positions: np.ndarray) -> None:
        """Begin an attempt with the arm at joint positions (6,) [rad]: those of the original."""
        del task
        self._next = 0
        self._last = np.array(positions, np.float64)
        self._original = self._last.copy()
        self._noise = self._rng.normal(0.0, self._scale)

    def act(self, state: ArmState) -> np.ndarray:
        """Return targets (7,), whatever the state."""
        del state
        command = self._commands[self._next]
        self._next += 1
        step = command[:6] - self._original + self._noise
        fresh = self._rng.normal(0.0, self._scale)
        self._noise = self._correlation * self._noise + (1 - self._correlation**2) ** 0.5 * fresh
        self._original = command[:6]
        self._last = self._last + np.clip(step, -self._limits, self._limits)
        return np.append(self._last, command[6])

    @property
    def finished(self) -> bool:
        """True once the demonstration is at its end."""
        return self._next >= len(self._commands)


def noisy_replays(
    contract: Contract,
    instruction: str,
    plan: Plan,
    scene: int,
    seed: int,
    env: BlockArmEnv | None = None,
) -> Iterator[Episode]:
    """Yield the episodes of one instruction: demonstrations, then replays of them in turn.

    Scenes have seeds from `scene` on; an attempt of the expert that fails is no demonstration and
    is left out. Replays that succeed beyond `plan.successes` are left out too, so the share is at
    most the one wanted. env: where they happen, None for a new one of the contract. Raises
    LearningError where the noise is too small for the failures wanted.
    """
    env = env or BlockArmEnv(contract)
    expert = Recorded(Expert(seed=seed))
    originals: list[tuple[int, list[np.ndarray]]] = []
    while len(originals) < plan.demonstrations:
        episode = attempt(env, expert, instruction, scene)
        if episode.outcome == 'success':
            originals.append((scene, expert.commands))
            yield episode
        scene += 1
    successes = plan.successes - len(originals)
    failures = plan.episodes - plan.successes
    rng = np.random.default_rng([seed, 1])
    for tried, (at, commands) in enumerate(cycle(originals)):
        if failures <= 0:
            return
        if tried > PATIENCE * plan.episodes:
            raise LearningError(
                f'{instruction}: of {tried} replays at noise {plan.noise:g} only'
                f' {plan.episodes - plan.successes - failures} failed; use more noise'
            )
        episode = attempt(env, NoisyReplay(commands, plan, rng), instruction, at)
        good = episode.outcome == 'success'
        if good and successes <= 0:
            continue
        successes, failures = successes - good, failures - (not good)
        yield episode
