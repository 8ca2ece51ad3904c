"""The clumsy operator: it goes about a task as the expert does, but misjudges and gives up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qt_ros.sim.skills import Move, Seen, next_move
from qt_ros.sim.tasks import Task

AIM = {'push': 0.028}  # standard deviation of where it believes a block to be [m] ...
AIM_OTHERWISE = 0.014  # ... less where a gripper has to fit
GOAL = 0.028  # and of where it believes the place for the block to be [m]
HURRIED_SHARE = 0.4  # of the attempts it breaks off, or lets go, on the way
PATIENCE = {'push': 35, 'pick': 35}  # ticks that it gives an attempt ...
PATIENCE_OTHERWISE = 60
OVERSHOOT = 0.12  # how far it pushes on, past a block that it missed [m]
RESTS = 4  # ticks from its last move to saying that it is done
_NEVER = 10**9


class Clumsiness:
    """The mistakes of one attempt: wrong aim, wrong target, and when to break it off."""

    def __init__(self, task: Task, noise: float, rng: np.random.Generator) -> None:
        """noise: 1 makes most attempts fail; aims err in proportion to it."""
        self._task = task
        self._aim = rng.normal(0.0, noise * AIM.get(task.kind, AIM_OTHERWISE), 3)
        self._aim[2] = abs(self._aim[2]) / 2  # aiming into the table is nothing to see
        self._goal = np.append(rng.normal(0.0, noise * GOAL, 2), 0.0)
        hurried = rng.random() < HURRIED_SHARE * noise
        self._busy_left = int(rng.integers(2, 7)) if hurried else _NEVER
        self._ticks_left = PATIENCE.get(task.kind, PATIENCE_OTHERWISE)
        self._tried = self._over = False
        self._rested = 0

    @property
    def finished(self) -> bool:
        """True once the attempt is over and the arm has come to rest."""
        return self._rested >= RESTS

    def next_move(self, seen: Seen) -> Move:
        """Return the next move for what is seen, mistaken as this attempt is."""
        row = self._task.index
        blocks = seen.blocks.copy()
        blocks[row] += self._aim
        # A target believed to be elsewhere is the same as a tool and a block believed to be so.
        carried = self._tried and self._task.kind in ('bin', 'plate', 'stack')
        shift = self._goal if carried else np.zeros(3)
        blocks[row] -= shift
        mistaken = replace(seen, tool=seen.tool - shift, blocks=blocks)
        move = next_move(self._task, mistaken, OVERSHOOT)
        self._notice(move)
        if not self._over:
            return replace(move, position=move.position + shift)
        self._rested += 1
        opening = move.opening if self._task.kind == 'push' else 1.0
        return replace(move, position=seen.tool, opening=opening, stage='leave')

    def _notice(self, move: Move) -> None:
        """End the attempt when it failed once, was broken off, or took too long."""
        self._ticks_left -= 1
        if move.stage in ('push', 'carry'):
            self._tried = True
            self._busy_left -= 1
        failed = self._tried and move.stage == 'approach'
        if failed or self._busy_left < 0 or self._ticks_left < 0:
            self._over = True
