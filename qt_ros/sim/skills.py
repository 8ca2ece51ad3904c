"""What an operator would do next, from what can be seen now: one rule per kind of task.

The rules keep no memory. Every decision follows from where the tool, the gripper and the blocks
are at this moment, so a policy that sees the same can learn it, and a mistake is corrected by the
same rules that made the attempt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qt_ros.sim.scene import BIN, BLOCK_HALF, PLATE
from qt_ros.sim.tasks import BLOCKS, Task

ALIGNED = 0.009  # close, descend or push when this near [m]
ALIGNED_YAW = 0.15  # and this well turned [rad]
TRAVEL_Z = 0.12  # tool height on the way to a block [m]
CARRY_Z = 0.15  # and on the way with one
GRASP_Z = 0.018
PUSH_Z = 0.022
BEHIND = 0.065  # where a push starts: from the block's centre [m]
FUNNEL = 4.0  # metres of height per metre still to go sideways
FAST, SLOW = 0.030, 0.018  # tool speed [m] per tick
HELD = (0.42, 0.70)  # gripper opening with a block between the fingers


@dataclass(frozen=True)
class Seen:
    """What an operator goes by. Positions [m], yaws [rad], gripper opening 0 to 1."""

    tool: np.ndarray  # (3,)
    tool_yaw: float
    opening: float
    blocks: np.ndarray  # (3, 3)
    yaws: np.ndarray  # (3,)


@dataclass(frozen=True)
class Move:
    """Where to take the tool, how fast, and what to do with the gripper."""

    position: np.ndarray  # (3,)
    yaw: float
    opening: float  # 0 or 1
    stage: str  # approach | push | grasp | carry | place | leave
    speed: float = FAST


def next_move(task: Task, seen: Seen, overshoot: float = 0.0) -> Move:
    """Return what to do now; overshoot [m]: how far a push goes on once it has missed."""
    if task.kind == 'push':
        return _push(task, seen, overshoot)
    if task.kind == 'pick':
        target = None
    elif task.kind == 'bin':
        target = np.array([*BIN, 0.05])
    elif task.kind == 'plate':
        target = np.array([*PLATE, BLOCK_HALF + 0.002])
    else:
        target = seen.blocks[BLOCKS.index(task.goal)] + (0.0, 0.0, 2 * BLOCK_HALF + 0.001)
    if target is not None and _placed(task, seen, target):
        return _leave(seen)
    if _holding(task, seen):
        return _carry(task, seen, target)
    return _grasp(task, seen)


def _funnel(distance: float, bottom: float, top: float) -> float:
    """Return the height at which to travel, this far [m] sideways from where to go down."""
    return min(top, bottom + FUNNEL * max(0.0, distance - ALIGNED))


def _above(place: np.ndarray, height: float) -> np.ndarray:
    return np.array([place[0], place[1], height])


def _push(task: Task, seen: Seen, overshoot: float) -> Move:
    """Go behind the block, down, and through it."""
    block = seen.blocks[task.index]
    aside = abs(seen.tool[0] - block[0])
    ahead = task.side * (seen.tool[1] - block[1])
    # In touch with the block, a small slip is corrected on the way instead of starting again.
    tolerance = ALIGNED if ahead < -0.05 else 2 * ALIGNED
    if aside < tolerance and ahead < -0.02 + overshoot and seen.tool[2] < 2 * PUSH_Z:
        through = np.array([block[0], seen.tool[1] + task.side * 0.05, PUSH_Z])
        return Move(through, 0.0, 0.0, 'push', SLOW)
    behind = block - (0.0, task.side * BEHIND, 0.0)
    distance = float(np.linalg.norm(seen.tool[:2] - behind[:2]))
    height = _funnel(distance, PUSH_Z, TRAVEL_Z)
    return Move(_above(behind, height), 0.0, 0.0, 'approach')


def _grasp(task: Task, seen: Seen) -> Move:
    """Go over the block, turn with it, go down, close."""
    block = seen.blocks[task.index]
    quarter = np.pi / 2
    turn = (seen.yaws[task.index] - seen.tool_yaw + quarter / 2) % quarter - quarter / 2
    yaw = seen.tool_yaw + turn
    distance = float(np.linalg.norm(seen.tool[:2] - block[:2]))
    low = block[2] - BLOCK_HALF + GRASP_Z
    aligned = distance < ALIGNED and abs(turn) < ALIGNED_YAW
    if aligned and seen.tool[2] < low + 0.008:
        return Move(_above(block, low), yaw, 0.0, 'grasp')
    # Turning beside a block would knock it away: that is done higher up.
    off = distance + max(0.0, abs(turn) - ALIGNED_YAW) * 0.1
    return Move(_above(block, _funnel(off, low, block[2] + 0.09)), yaw, 1.0, 'approach')


def _holding(task: Task, seen: Seen) -> bool:
    offset = seen.tool - seen.blocks[task.index]
    between = np.linalg.norm(offset[:2]) < 0.022 and abs(offset[2]) < 0.025
    return bool(between and HELD[0] < seen.opening < HELD[1])


def _carry(task: Task, seen: Seen, target: np.ndarray | None) -> Move:
    """Lift the block and, unless that was all, take it over its target, down, and let go."""
    block = seen.blocks[task.index]
    if target is None:
        return Move(_above(seen.tool, 0.20), seen.tool_yaw, 0.0, 'carry')
    offset = block - target
    distance = float(np.linalg.norm(offset[:2]))
    tolerance = ALIGNED if task.kind == 'stack' else 2 * ALIGNED
    if distance < tolerance and offset[2] < 0.006:
        return Move(seen.tool, 0.0, 1.0, 'place', SLOW)
    # Up first: sideways at table height would sweep the other blocks away.
    raised = block[2] > 0.06 or distance < 0.03
    near = target[2] + FUNNEL * max(0.0, distance - ALIGNED)
    height = min(target[2] + 0.11, max(near, target[2])) if raised else CARRY_Z
    place = target if raised else seen.tool
    position = _above(place + (seen.tool - block) if raised else place, 0.0)
    position[2] = height + (seen.tool[2] - block[2])
    speed = SLOW if distance < 0.03 else FAST
    return Move(position, 0.0 if raised else seen.tool_yaw, 0.0, 'carry', speed)


def _placed(task: Task, seen: Seen, target: np.ndarray) -> bool:
    """Say whether the block lies where it should and the gripper is letting go of it."""
    offset = seen.blocks[task.index] - target
    distance = np.linalg.norm(offset[:2])
    if task.kind == 'stack':
        return bool(distance < 0.022 and abs(offset[2]) < 0.006 and seen.opening > HELD[1])
    near = distance < (0.05 if task.kind == 'bin' else 0.045)
    return bool(near and offset[2] < 0.004 and seen.opening > HELD[1])


def _leave(seen: Seen) -> Move:
    height = seen.tool[2] if seen.opening < 0.85 else seen.tool[2] + 0.10
    return Move(_above(seen.tool, min(height, 0.22)), seen.tool_yaw, 1.0, 'leave')
