"""Inverse kinematics of the arm: one differential step per control tick, by mink."""

from __future__ import annotations

from collections.abc import Sequence

import mink
import numpy as np

from qt_ros.sim.scene import JOINTS, arm_model

# Added to the diagonal of the problem: keeps the arm calm near singular poses.
DAMPING = 1e-4
ORIENTATION_COST = 0.3  # per rad, against 1 per m: 3 mm weigh as much as 10 mrad


class ArmKinematics:
    """Forward and inverse kinematics of the six joints, on a model of the arm alone."""

    def __init__(self, step_limits: Sequence[float]) -> None:
        """step_limits (6,): the most that each joint may turn in one step [rad]."""
        model = arm_model()
        self._configuration = mink.Configuration(model)
        self._tool = mink.FrameTask(
            'tcp', 'site', position_cost=1.0, orientation_cost=ORIENTATION_COST
        )
        speeds = dict(zip(JOINTS, step_limits, strict=True))
        self._limits = [mink.ConfigurationLimit(model), mink.VelocityLimit(model, speeds)]
        self._step_limits = np.asarray(step_limits, np.float64)
        self._low, self._high = model.jnt_range.T

    def tool(self, joints: np.ndarray) -> tuple[np.ndarray, float]:
        """Return where the tool is: position (3,) [m], and its yaw about the vertical [rad].

        At yaw 0 the fingers close along y.
        """
        self._configuration.update(joints)
        pose = self._configuration.get_transform_frame_to_world('tcp', 'site')
        closing = pose.rotation().as_matrix()[:, 1]
        return pose.translation(), float(np.arctan2(-closing[0], closing[1]))

    def step(self, joints: np.ndarray, position: np.ndarray, yaw: float) -> np.ndarray:
        """Return joints (6,) [rad] one step nearer to a tool that points down at a position (3,).

        The step obeys the ranges of the joints and the step limits.
        """
        cos, sin = np.cos(yaw), np.sin(yaw)
        approach, closing = np.array([0.0, 0.0, -1.0]), np.array([-sin, cos, 0.0])
        matrix = np.stack([approach, closing, np.cross(approach, closing)], axis=1)
        self._tool.set_target(
            mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(matrix), position)
        )
        joints = np.clip(joints, self._low, self._high)
        self._configuration.update(joints)
        turn = mink.solve_ik(
            self._configuration, [self._tool], dt=1.0, solver='daqp', damping=DAMPING,
            limits=self._limits,
        )  # fmt: skip
        # The solver keeps its constraints to a tolerance only; the contract's ranges are exact.
        turn = np.clip(turn, -self._step_limits, self._step_limits)
        return np.clip(joints + turn, self._low, self._high)
