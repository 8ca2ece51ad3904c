"""What the simulated robot can be asked to do, where blocks start, and when it has succeeded.

Left and right are the robot's own: left is +y. Positions are in metres; rows of block arrays are
in the order of `scene.COLORS`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np

from qt_ros.errors import SimError
from qt_ros.sim.scene import BIN, BLOCK_HALF, COLORS, PLATE

BLOCKS = tuple(COLORS)
KINDS = ('pick', 'push', 'bin', 'plate', 'stack')
PUSH_DISTANCE = 0.08  # a pushed block has to move this far [m]
OPEN = 0.6  # from this gripper opening on, a block counts as let go
STILL = 0.02  # below this speed [m/s], a block counts as at rest
WORKSPACE = ((0.20, 0.42), (-0.145, 0.145))  # where blocks start: x, y [m]
PUSH_FROM = (-0.06, 0.06)  # y of a block to be pushed, to either side: only words tell which [m]
GAP = 0.09  # between the centres of two blocks at the start, so that the fingers fit [m]
LANE = 0.08  # between the lane of a pushed block and the other blocks, along x [m]

_WORDS = {
    'pick': 'pick up the {block} block',
    'push': 'push the {block} block to the {goal}',
    'bin': 'put the {block} block in the bin',
    'plate': 'place the {block} block on the white plate',
    'stack': 'stack the {block} block on the {goal} block',
}


@dataclass(frozen=True)
class Task:
    """One thing to do: `goal` is a side for push, a block for stack, else empty."""

    kind: str
    block: str
    goal: str = ''

    @property
    def instruction(self) -> str:
        """Return the task in words: what a policy is given."""
        return _WORDS[self.kind].format(block=self.block, goal=self.goal)

    @property
    def index(self) -> int:
        """Return the row of the task's block in block arrays."""
        return BLOCKS.index(self.block)

    @property
    def side(self) -> int:
        """Return the direction of a push along y: 1 left, -1 right."""
        return 1 if self.goal == 'left' else -1


TASKS = (
    *(Task('pick', block) for block in BLOCKS),
    *(Task('push', block, side) for block in BLOCKS for side in ('left', 'right')),
    *(Task('bin', block) for block in BLOCKS),
    *(Task('plate', block) for block in BLOCKS),
    *(Task('stack', block, base) for block in BLOCKS for base in BLOCKS if block != base),
)
INSTRUCTIONS = tuple(task.instruction for task in TASKS)
_BY_INSTRUCTION = {task.instruction: task for task in TASKS}


def parse(instruction: str) -> Task:
    """Return the task that an instruction names; case, spacing and a final stop do not matter.

    Raises SimError with the nearest and all known instructions.
    """
    words = ' '.join(instruction.lower().split()).rstrip('. ')
    task = _BY_INSTRUCTION.get(words)
    if task is not None:
        return task
    near = difflib.get_close_matches(words, INSTRUCTIONS, n=1)
    hint = f" (nearest: '{near[0]}')" if near else ''
    known = ', '.join(f"'{known}'" for known in INSTRUCTIONS)
    raise SimError(f"unknown instruction '{instruction}'{hint}; allowed: {known}")


def scatter(task: Task, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw where the blocks start: positions (3, 2) x, y [m] and yaws (3,) [rad].

    Blocks keep `GAP` apart; a block to be pushed has room to travel and a free lane.
    """
    order = [task.index, *(row for row in range(len(BLOCKS)) if row != task.index)]
    positions = np.zeros((len(BLOCKS), 2))
    while not _clear(task, positions[order]):
        for row in order:
            positions[row] = [rng.uniform(*span) for span in WORKSPACE]
        if task.kind == 'push':
            positions[task.index, 1] = rng.uniform(*PUSH_FROM)
    return positions, rng.uniform(-np.pi / 4, np.pi / 4, len(BLOCKS))


def _clear(task: Task, positions: np.ndarray) -> bool:
    """Say whether blocks at (3, 2), the task's first, leave room to work."""
    pairs = ((0, 1), (0, 2), (1, 2))
    if min(np.linalg.norm(positions[a] - positions[b]) for a, b in pairs) < GAP:
        return False
    lanes = np.abs(positions[1:, 0] - positions[0, 0])
    return task.kind != 'push' or bool(lanes.min() >= LANE)


def succeeded(
    task: Task, blocks: np.ndarray, start: np.ndarray, speed: float, opening: float
) -> bool:
    """Say whether the task is done.

    blocks, start: positions (3, 3) now and at the reset [m]; speed: of the task's block [m/s];
    opening: of the gripper, 0 closed to 1 open.
    """
    block = blocks[task.index]
    if task.kind == 'pick':
        return bool(block[2] > 0.10)
    if task.kind == 'push':
        travelled = task.side * (block[1] - start[task.index, 1])
        return bool(travelled > PUSH_DISTANCE and 0 < block[2] < BLOCK_HALF + 0.01)
    if opening <= OPEN or speed >= STILL:
        return False
    if task.kind == 'bin':
        return bool(np.abs(block[:2] - BIN).max() < 0.055 and 0 < block[2] < 0.045)
    if task.kind == 'plate':
        return bool(np.linalg.norm(block[:2] - PLATE) < 0.05 and 0 < block[2] < BLOCK_HALF + 0.01)
    offset = block - blocks[BLOCKS.index(task.goal)]
    return bool(np.linalg.norm(offset[:2]) < 0.025 and abs(offset[2] - 2 * BLOCK_HALF) < 0.008)
