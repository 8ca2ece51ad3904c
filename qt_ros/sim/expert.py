"""Scripted operators of the simulated arm: an expert, a clumsy one, and one who moves at random.

An operator is asked once per tick and answers with absolute targets; targets of successive ticks
never differ by more than `STEP_LIMITS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from qt_ros.errors import SimError
from qt_ros.sim.clumsy import Clumsiness
from qt_ros.sim.ik import ArmKinematics
from qt_ros.sim.scene import HOME, JOINT_RANGES, JOINTS
from qt_ros.sim.skills import Seen, next_move
from qt_ros.sim.tasks import Task

MODES = ('expert', 'noisy', 'random')
STEP_LIMITS = (0.15, 0.15, 0.15, 0.05, 0.15, 0.35)  # per tick, in the order of JOINTS [rad]
YAW_STEP = 0.25  # per tick [rad]
JITTER_SHARE = 0.25  # of the ticks on which the expert's hand slips
JITTER = 0.006  # by this standard deviation [m]


@dataclass(frozen=True)
class ArmState:
    """What an operator is shown at a tick. Joint vectors are in the order of `JOINTS` [rad]."""

    positions: np.ndarray  # (6,) measured
    reference: np.ndarray  # (6,) what the arm's controller is tracking
    opening: float  # of the gripper, 0 closed to 1 open
    blocks: np.ndarray  # (3, 7) poses as `BlockWorld.truth` gives them


class Operator(Protocol):
    """Drives the arm, one attempt after the other."""

    def reset(self, task: Task, positions: np.ndarray) -> None:
        """Begin an attempt with the arm at joint positions (6,) [rad]."""

    def act(self, state: ArmState) -> np.ndarray:
        """Return targets (7,): joint positions [rad] and the gripper's opening."""

    @property
    def finished(self) -> bool:
        """True once the operator would end the attempt, whether or not it succeeded."""


def make_operator(mode: str, seed: int) -> Operator:
    """Return the operator of a mode; the same seed makes the same mistakes."""
    if mode == 'expert':
        return Expert(seed=seed)
    if mode == 'noisy':
        return Expert(noise=1.0, seed=seed)
    if mode == 'random':
        return RandomWalk(seed=seed)
    raise SimError(f"unknown operator mode '{mode}'; allowed: {', '.join(MODES)}")


class Expert:
    """Acts on what it sees, tick by tick; its hand slips now and then and it corrects that.

    noise: 0 for an expert; at 1 it misjudges places, stops or lets go early, so that most attempts
    go wrong in ways that look like trying, and does not try twice.
    """

    def __init__(self, noise: float = 0.0, jitter: float = JITTER, seed: int = 0) -> None:
        self.noise = noise
        self.jitter = jitter
        self._rng = np.random.default_rng(seed)
        self._arm = ArmKinematics(STEP_LIMITS)
        self._last = HOME.copy()
        self._task: Task | None = None
        self._clumsiness: Clumsiness | None = None

    def reset(self, task: Task, positions: np.ndarray) -> None:
        """Begin an attempt with the arm at joint positions (6,) [rad]."""
        self._task = task
        self._last = np.array(positions, np.float64)
        self._clumsiness = Clumsiness(task, self.noise, self._rng) if self.noise else None

    @property
    def finished(self) -> bool:
        """True once a clumsy operator has seen enough; an expert tries until it is stopped."""
        return self._clumsiness is not None and self._clumsiness.finished

    def act(self, state: ArmState) -> np.ndarray:
        """Return targets (7,): joint positions [rad] and the gripper's opening."""
        if self._task is None:
            raise SimError('the expert has no task yet; call reset first')
        seen = self._see(state)
        if self._clumsiness is None:
            move = next_move(self._task, seen)
        else:
            move = self._clumsiness.next_move(seen)
        base, base_yaw = self._arm.tool(self._last)
        way = move.position - base
        way *= min(1.0, move.speed / max(float(np.linalg.norm(way)), 1e-9))
        if self._rng.random() < JITTER_SHARE:
            way += self._rng.normal(0.0, self.jitter, 3) * (1.0, 1.0, 0.5)
        turn = float(np.clip(move.yaw - base_yaw, -YAW_STEP, YAW_STEP))
        self._last = self._arm.step(self._last, base + way, base_yaw + turn)
        return np.append(self._last, move.opening)

    def _see(self, state: ArmState) -> Seen:
        tool, yaw = self._arm.tool(state.positions)
        x, y, z, w = state.blocks[:, 3:].T
        yaws = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        return Seen(tool, yaw, state.opening, state.blocks[:, :3], yaws)


class RandomWalk:
    """Adds a uniform step within `STEP_LIMITS` to every joint, tick by tick."""

    finished = False

    def __init__(self, seed: int = 0, limits: Sequence[float] = STEP_LIMITS) -> None:
        self._rng = np.random.default_rng(seed)
        self._limits = np.array(limits)
        self._low, self._high = np.array([JOINT_RANGES[joint] for joint in JOINTS]).T
        self._last = HOME.copy()

    def reset(self, task: Task, positions: np.ndarray) -> None:
        """Begin an attempt with the arm at joint positions (6,) [rad]; the task is ignored."""
        del task
        self._last = np.array(positions, np.float64)

    def act(self, state: ArmState) -> np.ndarray:
        """Return targets (7,): joint positions [rad] and the gripper's opening."""
        del state
        step = self._rng.uniform(-self._limits, self._limits)
        self._last = np.clip(self._last + step, self._low, self._high)
        return np.append(self._last, float(self._rng.integers(2)))
