"""Scripted operators of the simulated arm: an expert, a clumsy one, and one who moves at random.

An operator is asked once per tick and answers with absolute targets; targets of successive ticks
never differ by more than `STEP_LIMITS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from qt_ros.errors import SimError
from qt_ros.sim.ik import ArmKinematics
from qt_ros.sim.scene import HOME, JOINT_RANGES, JOINTS
from qt_ros.sim.skills import Move, Seen, next_move
from qt_ros.sim.tasks import Task

MODES = ('expert', 'noisy', 'random')
STEP_LIMITS = (0.15, 0.15, 0.15, 0.05, 0.15, 0.35)  # per tick, in the order of JOINTS [rad]
YAW_STEP = 0.25  # per tick [rad]
JITTER_SHARE = 0.25  # of the ticks on which the expert's hand slips
JITTER = 0.006  # by this standard deviation [m]
PATIENCE = 60  # ticks that a clumsy operator gives an attempt
GIVE_UP_TICKS = 4  # after a clumsy operator has seen that it went wrong


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


@dataclass(frozen=True)
class _Flaws:
    """What is wrong with one attempt of a clumsy operator."""

    aim: np.ndarray  # (3,) error in where it believes the task's block to be [m]
    goal: np.ndarray  # (3,) error in where it believes the target to be [m]
    give_up: int  # ticks of pushing or carrying after which it stops or lets go


_FLAWLESS = _Flaws(np.zeros(3), np.zeros(3), 10**9)


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

    def reset(self, task: Task, positions: np.ndarray) -> None:
        """Begin an attempt with the arm at joint positions (6,) [rad]."""
        self._task = task
        self._last = np.array(positions, np.float64)
        self._flaws = self._draw_flaws(task) if self.noise else _FLAWLESS
        self._ticks = 0
        self._busy = 0  # ticks spent pushing or carrying
        self._idle = 0  # ticks since the attempt was over
        self._tried = self._over = False

    @property
    def finished(self) -> bool:
        """True once a clumsy operator has seen enough; an expert tries until it is stopped."""
        return self._idle >= GIVE_UP_TICKS

    def act(self, state: ArmState) -> np.ndarray:
        """Return targets (7,): joint positions [rad] and the gripper's opening."""
        if self._task is None:
            raise SimError('the expert has no task yet; call reset first')
        tool, yaw = self._arm.tool(state.positions)
        move = self._noticed(self._decide(self._task, tool, yaw, state), tool)
        base, base_yaw = self._arm.tool(self._last)
        way = move.position - base
        way *= min(1.0, move.speed / max(float(np.linalg.norm(way)), 1e-9))
        if self._rng.random() < JITTER_SHARE and self.jitter:
            way += self._rng.normal(0.0, self.jitter, 3) * (1.0, 1.0, 0.5)
        turn = float(np.clip(move.yaw - base_yaw, -YAW_STEP, YAW_STEP))
        self._last = self._arm.step(self._last, base + way, base_yaw + turn)
        return np.append(self._last, move.opening)

    def _decide(self, task: Task, tool: np.ndarray, yaw: float, state: ArmState) -> Move:
        blocks = state.blocks[:, :3].copy()
        x, y, z, w = state.blocks[:, 3:].T
        yaws = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        seen = Seen(tool, yaw, state.opening, blocks, yaws)
        if not self.noise:
            return next_move(task, seen)
        seen.blocks[task.index] += self._flaws.aim
        # Targets are seen from the tool: an error of the target is the opposite one of the tool.
        shift = self._flaws.goal if self._tried and task.kind not in ('push', 'pick') else 0.0
        shifted = replace(seen, tool=tool - shift, blocks=seen.blocks.copy())
        shifted.blocks[task.index] -= shift
        move = next_move(task, shifted, overshoot=0.12)
        return replace(move, position=move.position + shift)

    def _noticed(self, move: Move, tool: np.ndarray) -> Move:
        """Keep track of a clumsy attempt: it is over when it failed once or is cut short."""
        if not self.noise:
            return move
        if move.stage in ('push', 'carry'):
            self._tried = True
            self._busy += 1
        elif self._tried and move.stage == 'approach':
            self._over = True
        self._ticks += 1
        if self._over or self._busy > self._flaws.give_up or self._ticks > PATIENCE:
            self._over = True
            self._idle += 1
            opening = move.opening if self._task and self._task.kind == 'push' else 1.0
            return replace(move, position=tool, opening=opening, stage='leave')
        return move

    def _draw_flaws(self, task: Task) -> _Flaws:
        """Draw one attempt's mistakes; a grasp forgives less than a push."""
        spread = self.noise * (0.028 if task.kind == 'push' else 0.014)
        aim, goal = self._rng.normal(0.0, spread, (2, 3))
        aim[2] = abs(aim[2]) * 0.5
        goal = goal * 2.0
        goal[2] = 0.0
        hurried = self._rng.random() < 0.4 * self.noise
        return _Flaws(aim, goal, int(self._rng.integers(2, 7)) if hurried else 10**9)


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
