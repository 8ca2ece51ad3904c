"""The physics of the block world, and the arm's controller that tracks what it is told."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from qt_ros.errors import SimError
from qt_ros.sim.render import Renderer
from qt_ros.sim.scene import (
    BLOCK_HALF,
    CAMERAS,
    COLORS,
    FINGER_TRAVEL,
    HOME,
    JOINT_RANGES,
    JOINTS,
    STEP_NS,
    scene_model,
)
from qt_ros.sim.tasks import BLOCKS, INSTRUCTIONS, Task, parse, scatter, succeeded

FALLEN_Z = -0.05  # below the table's top [m]


class BlockWorld:
    """One simulated table. Time only moves in `advance`, and never backwards, not even on reset.

    Joint vectors (6,) are in the order of `scene.JOINTS` [rad]; openings run from 0 closed to 1.
    """

    def __init__(self) -> None:
        self.model = scene_model()
        self.data = mujoco.MjData(self.model)
        fingers = ('finger_left', 'finger_right')
        self._joint_q = np.array([self.model.joint(joint).qposadr[0] for joint in JOINTS])
        self._joint_v = np.array([self.model.joint(joint).dofadr[0] for joint in JOINTS])
        self._finger_q = np.array([self.model.joint(finger).qposadr[0] for finger in fingers])
        self._finger_v = np.array([self.model.joint(finger).dofadr[0] for finger in fingers])
        self._block_q = np.array([self.model.joint(block).qposadr[0] for block in COLORS])
        self._block_v = np.array([self.model.joint(block).dofadr[0] for block in COLORS])
        self._low, self._high = np.array([JOINT_RANGES[joint] for joint in JOINTS]).T
        self._steps = 0
        self._renderer: Renderer | None = None
        self.reset(INSTRUCTIONS[0], 0)

    # ---- time

    @property
    def time_ns(self) -> int:
        """Return the simulated time since the world was made (ns)."""
        return self._steps * STEP_NS

    def advance(self, steps: int = 1) -> None:
        """Run the physics for a number of steps of 5 ms."""
        for done in range(steps):
            if self.time_ns >= self._arrival_ns:  # the reference no longer moves
                mujoco.mj_step(self.model, self.data, steps - done)
                self._steps += steps - done
                return
            self._steps += 1
            self.data.ctrl[:6] = self.arm_reference
            mujoco.mj_step(self.model, self.data)

    def reset(self, instruction: str, seed: int | None = None) -> int:
        """Put the arm home and scatter the blocks for a task; return the seed that was used.

        The same seed gives the same start; None or a negative one draws a seed. Raises SimError
        for an unknown instruction.
        """
        task = parse(instruction)
        if seed is None or seed < 0:
            seed = int(np.random.default_rng().integers(2**31))
        rng = np.random.default_rng(seed)
        mujoco.mj_resetData(self.model, self.data)
        arm = HOME + rng.normal(0.0, 0.02, 6)
        self.data.qpos[self._joint_q] = arm
        self.data.qpos[self._finger_q] = FINGER_TRAVEL
        positions, yaws = scatter(task, rng)
        for address, (x, y), yaw in zip(self._block_q, positions, yaws, strict=True):
            pose = [x, y, BLOCK_HALF, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
            self.data.qpos[address : address + 7] = pose
        self._from = self._to = arm
        self._start_ns = self._arrival_ns = self.time_ns
        self.data.ctrl[:6] = arm
        self.set_gripper(1.0)
        mujoco.mj_forward(self.model, self.data)
        self._task = task
        self._start = self._positions()
        return seed

    # ---- commands

    def set_arm_target(self, positions: Sequence[float] | np.ndarray, duration_s: float) -> None:
        """Move the controller's reference to joint positions (6,) in duration_s, then hold them.

        The reference runs in a straight line from where it is now; ranges of joints are obeyed.
        """
        target = np.asarray(positions, np.float64)
        if target.shape != (6,) or not np.isfinite(target).all() or not duration_s >= 0:
            raise SimError(
                f'an arm target is 6 finite joint positions ({", ".join(JOINTS)}) and a '
                f'duration >= 0 s; got {positions} in {duration_s} s'
            )
        self._from = self.arm_reference
        self._to = np.clip(target, self._low, self._high)
        self._start_ns = self.time_ns
        # At least one step long, so that `advance` hands the new reference to the motors.
        self._arrival_ns = self._start_ns + max(round(duration_s * 1e9), STEP_NS)

    def set_gripper(self, opening: float) -> None:
        """Open or close the gripper: 0 closed, 1 open."""
        self.data.ctrl[6] = float(np.clip(opening, 0.0, 1.0)) * FINGER_TRAVEL

    # ---- sensors

    @property
    def joint_positions(self) -> np.ndarray:
        """Return the measured joint positions (6,) [rad]."""
        return self.data.qpos[self._joint_q].copy()

    @property
    def joint_velocities(self) -> np.ndarray:
        """Return the measured joint velocities (6,) [rad/s]."""
        return self.data.qvel[self._joint_v].copy()

    @property
    def arm_reference(self) -> np.ndarray:
        """Return what the arm's controller is tracking at this moment (6,) [rad]."""
        if self.time_ns >= self._arrival_ns:
            return self._to.copy()
        share = (self.time_ns - self._start_ns) / (self._arrival_ns - self._start_ns)
        return self._from + share * (self._to - self._from)

    @property
    def arm_target(self) -> np.ndarray:
        """Return where the arm's controller was last told to go (6,) [rad]."""
        return self._to.copy()

    @property
    def gripper(self) -> float:
        """Return the measured opening of the gripper."""
        return float(self.data.qpos[self._finger_q].mean() / FINGER_TRAVEL)

    @property
    def gripper_velocity(self) -> float:
        """Return how fast the gripper opens, in openings per second."""
        return float(self.data.qvel[self._finger_v].mean() / FINGER_TRAVEL)

    @property
    def gripper_reference(self) -> float:
        """Return the opening that the gripper was told to have."""
        return float(self.data.ctrl[6] / FINGER_TRAVEL)

    def render(self, camera: str, size: tuple[int, int]) -> np.ndarray:
        """Return what a camera sees now: (height, width, 3) uint8 RGB; size: height, width."""
        if camera not in CAMERAS:
            raise SimError(f"no camera '{camera}' in the scene; allowed: {', '.join(CAMERAS)}")
        if self._renderer is None:
            self._renderer = Renderer(self.model)
        return self._renderer.render(self.data, camera, size)

    # ---- truth

    @property
    def task(self) -> Task:
        """Return the task of the last reset."""
        return self._task

    def truth(self) -> np.ndarray:
        """Return the poses of the blocks (3, 7): x y z [m], quaternion x y z w as in ROS."""
        poses = np.stack([self.data.qpos[at : at + 7] for at in self._block_q])
        return np.concatenate([poses[:, :3], poses[:, 4:], poses[:, 3:4]], axis=1)

    def success(self) -> bool:
        """Say whether the task of the last reset is done."""
        at = self._block_v[self._task.index]
        speed = float(np.abs(self.data.qvel[at : at + 3]).max())
        return succeeded(self._task, self._positions(), self._start, speed, self.gripper)

    def lost(self) -> bool:
        """Say whether the task cannot be done any more: a block that it needs fell off."""
        needed = {self._task.block, self._task.goal} & set(BLOCKS)
        heights = self._positions()[[BLOCKS.index(block) for block in needed], 2]
        return bool(heights.min() < FALLEN_Z)

    def _positions(self) -> np.ndarray:
        return np.stack([self.data.qpos[at : at + 3] for at in self._block_q])

    def close(self) -> None:
        """Free the renderer, in the thread that rendered."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
