"""Commands for the simulated arm: what its controllers accept, and why they refuse the rest."""

from __future__ import annotations

import math
from typing import Any

from qt_ros.errors import SimError
from qt_ros.sim.scene import JOINTS


def arm_target(msg: Any) -> tuple[list[float], float]:
    """Return the joint positions (6,) [rad] of a JointTrajectory's first point, and when to be
    there [s].

    Joints are matched by name, in any order. Raises SimError for anything but all six joints and
    finite numbers: half a command is not carried out.
    """
    names = list(msg.joint_names)
    if sorted(names) != sorted(JOINTS):
        raise SimError(f'refused: joints {", ".join(names) or "(none)"}; needed: all of '
                       f'{", ".join(JOINTS)}, once each')  # fmt: skip
    if not msg.points:
        raise SimError('refused: a trajectory without points; needed: at least one')
    point = msg.points[0]
    if len(point.positions) != len(names):
        raise SimError(
            f'refused: {len(point.positions)} positions for {len(names)} joints; '
            'needed: one position per joint'
        )
    by_name = dict(zip(names, point.positions, strict=True))
    bad = [name for name in names if not math.isfinite(by_name[name])]
    if bad:
        raise SimError(f'refused: position of {", ".join(bad)} is not a finite number')
    duration_s = point.time_from_start.sec + point.time_from_start.nanosec * 1e-9
    if duration_s < 0:
        raise SimError(f'refused: time_from_start of {duration_s:g} s; needed: 0 s or more')
    return [by_name[joint] for joint in JOINTS], duration_s


def gripper_target(msg: Any) -> float:
    """Return the opening, 0 closed to 1 open, that a Float64MultiArray asks for.

    Raises SimError for anything but one finite number.
    """
    if len(msg.data) != 1 or not math.isfinite(msg.data[0]):
        raise SimError(
            f'refused: gripper command {list(msg.data)}; needed: one finite number, 0 closed to 1 '
            'open'
        )
    return float(msg.data[0])
