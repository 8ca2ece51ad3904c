"""The block world's scene: an arm of 6 joints, a gripper, 3 blocks, a bin, a plate, 2 cameras.

Primitives only, so there is nothing to download and it renders fast in software. The robot's base
is the origin; x points ahead of it, y to ITS left, z up; the table's top is z = 0. Units: m, kg,
rad. The front camera faces the robot: what the robot pushes to its left goes right in the image.

    joints   waist z | shoulder y | elbow y | forearm_roll x | wrist_angle y | wrist_rotate x
    tool     site 'tcp' between the fingertips; its x axis is the approach direction
"""

from __future__ import annotations

import mujoco
import numpy as np

JOINTS = ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate')
JOINT_RANGES = {  # [rad], the range of the joint, of its actuator and of its commands
    'waist': (-2.6, 2.6),
    'shoulder': (-1.6, 1.9),
    'elbow': (-1.6, 2.2),
    'forearm_roll': (-2.9, 2.9),
    'wrist_angle': (-1.9, 2.2),
    'wrist_rotate': (-2.9, 2.9),
}
# The tool 0.28 m ahead of the base and 0.24 m above the table, pointing straight down.
HOME = np.array([0.0, 0.0849, 0.0851, 0.0, 1.4008, 0.0])

COLORS = {  # in the order of every array of blocks
    'red': (0.88, 0.08, 0.08),
    'green': (0.08, 0.62, 0.16),
    'blue': (0.08, 0.22, 0.92),
}
CAMERAS = ('front', 'wrist')
BLOCK_HALF = 0.0225  # half the edge of a block
FINGER_TRAVEL = 0.04  # of each finger; the gripper opens twice as wide
BIN = (0.32, 0.27)  # centre (x, y)
PLATE = (0.32, -0.27)
STEP_NS = 5_000_000  # one physics step

_XML = """
<mujoco model="block_world">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{step_s}" integrator="implicitfast" cone="elliptic" impratio="10"
          iterations="30"/>
  <visual>
    <global offwidth="640" offheight="480"/>
    <quality shadowsize="0" offsamples="0"/>
    <headlight ambient="0.38 0.38 0.38" diffuse="0.30 0.30 0.30" specular="0 0 0"/>
    <map znear="0.005" zfar="10"/>
  </visual>
  <default>
    <default class="arm">
      <geom contype="2" conaffinity="1" rgba="0.75 0.75 0.78 1" mass="0.3"/>
      <joint damping="1.0" armature="0.05"/>
      <position kp="250" dampratio="1" forcerange="-60 60"/>
    </default>
    <default class="wrist">
      <geom contype="2" conaffinity="1" rgba="0.30 0.30 0.33 1" mass="0.1"/>
      <joint damping="0.3" armature="0.02"/>
      <position kp="120" dampratio="1" forcerange="-25 25"/>
    </default>
    <default class="finger">
      <geom type="box" size="0.05 0.006 0.012" contype="2" conaffinity="1" mass="0.02"
            condim="4" friction="1.5 0.05 0.0005" solref="0.01 1" rgba="0.1 0.1 0.1 1"/>
      <joint type="slide" range="0 {travel}" damping="8" armature="0.1"/>
    </default>
    <default class="block">
      <geom type="box" size="{half} {half} {half}" mass="0.05" condim="4"
            friction="1.2 0.02 0.0005" solref="0.01 1"/>
    </default>
    <default class="wall">
      <geom type="box" rgba="0.45 0.33 0.22 1"/>
    </default>
  </default>
  <worldbody>
    <light pos="0.2 -0.5 1.5" dir="0.1 0.3 -1" type="directional" diffuse="0.42 0.42 0.42"
           castshadow="false"/>
    <geom name="floor" type="plane" size="2 2 0.1" pos="0 0 -0.4" rgba="0.50 0.53 0.57 1"/>
    <geom name="table" type="box" size="0.4 0.45 0.02" pos="0.3 0 -0.02"
          rgba="0.70 0.62 0.50 1" friction="0.8 0.005 0.0001"/>
    <body name="bin" pos="{bin} 0" childclass="wall">
      <geom size="0.06 0.06 0.003" pos="0 0 0.003" rgba="0.36 0.26 0.17 1"/>
      <geom size="0.06 0.004 0.02" pos="0 0.06 0.02"/>
      <geom size="0.06 0.004 0.02" pos="0 -0.06 0.02"/>
      <geom size="0.004 0.06 0.02" pos="0.06 0 0.02"/>
      <geom size="0.004 0.06 0.02" pos="-0.06 0 0.02"/>
    </body>
    <geom name="plate" type="cylinder" size="0.06 0.001" pos="{plate} 0.001"
          rgba="0.97 0.97 0.97 1" contype="0" conaffinity="0"/>
    <camera name="front" pos="0.80 0 0.60" xyaxes="0 1 0 -0.74 0 0.67" fovy="47"/>
    <body name="base" childclass="arm">
      <geom type="cylinder" size="0.06 0.04" pos="0 0 0.04" rgba="0.30 0.30 0.33 1"/>
      <body name="turret" pos="0 0 0.08" gravcomp="1">
        <joint name="waist" axis="0 0 1" range="{waist}"/>
        <geom type="capsule" fromto="0 0 0 0 0 0.10" size="0.04"/>
        <body name="upper_arm" pos="0 0 0.10" gravcomp="1">
          <joint name="shoulder" axis="0 1 0" range="{shoulder}"/>
          <geom type="capsule" fromto="0 0 0 0 0 0.28" size="0.03" rgba="0.92 0.62 0.15 1"/>
          <body name="elbow_link" pos="0 0 0.28" gravcomp="1">
            <joint name="elbow" axis="0 1 0" range="{elbow}"/>
            <geom type="capsule" fromto="0 0 0 0.14 0 0" size="0.026"/>
            <body name="forearm" pos="0.14 0 0" childclass="wrist" gravcomp="1">
              <joint name="forearm_roll" axis="1 0 0" range="{forearm_roll}"/>
              <geom type="capsule" fromto="0 0 0 0.12 0 0" size="0.024"
                    rgba="0.92 0.62 0.15 1"/>
              <body name="wrist_link" pos="0.12 0 0" gravcomp="1">
                <joint name="wrist_angle" axis="0 1 0" range="{wrist_angle}"/>
                <geom type="capsule" fromto="0 0 0 0.05 0 0" size="0.022"/>
                <body name="hand" pos="0.06 0 0" gravcomp="1">
                  <joint name="wrist_rotate" axis="1 0 0" range="{wrist_rotate}"/>
                  <geom type="box" size="0.015 0.055 0.02" pos="0.015 0 0"/>
                  <camera name="wrist" pos="-0.02 0 0.085" xyaxes="0 -1 0 0.42 0 0.91"
                          fovy="70"/>
                  <site name="tcp" pos="0.115 0 0" size="0.005" rgba="0 0 0 0"/>
                  <body name="finger_left" pos="0.03 0 0" childclass="finger" gravcomp="1">
                    <joint name="finger_left" axis="0 1 0"/>
                    <geom pos="0.05 0.006 0"/>
                  </body>
                  <body name="finger_right" pos="0.03 0 0" childclass="finger" gravcomp="1">
                    <joint name="finger_right" axis="0 -1 0"/>
                    <geom pos="0.05 -0.006 0"/>
                  </body>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <tendon>
    <fixed name="opening">
      <joint joint="finger_left" coef="0.5"/>
      <joint joint="finger_right" coef="0.5"/>
    </fixed>
  </tendon>
  <equality>
    <joint name="mirrored_fingers" joint1="finger_left" joint2="finger_right"
           solimp="0.95 0.99 0.001" solref="0.005 1"/>
  </equality>
  <actuator>
    <position class="arm" name="waist" joint="waist" ctrlrange="{waist}"/>
    <position class="arm" name="shoulder" joint="shoulder" ctrlrange="{shoulder}"/>
    <position class="arm" name="elbow" joint="elbow" ctrlrange="{elbow}"/>
    <position class="wrist" name="forearm_roll" joint="forearm_roll"
              ctrlrange="{forearm_roll}"/>
    <position class="wrist" name="wrist_angle" joint="wrist_angle" ctrlrange="{wrist_angle}"/>
    <position class="wrist" name="wrist_rotate" joint="wrist_rotate"
              ctrlrange="{wrist_rotate}"/>
    <position name="gripper" tendon="opening" kp="1500" kv="60" ctrlrange="0 {travel}"
              forcerange="-30 30"/>
  </actuator>
</mujoco>
"""


def _text(*numbers: float) -> str:
    return ' '.join(f'{number:g}' for number in numbers)


def _spec() -> mujoco.MjSpec:
    """Return the arm, the table and what stands on it, without the blocks."""
    ranges = {joint: _text(*limits) for joint, limits in JOINT_RANGES.items()}
    return mujoco.MjSpec.from_string(
        _XML.format(
            step_s=STEP_NS / 1e9,
            travel=FINGER_TRAVEL,
            half=BLOCK_HALF,
            bin=_text(*BIN),
            plate=_text(*PLATE),
            **ranges,
        )
    )


def scene_model() -> mujoco.MjModel:
    """Compile the whole scene."""
    spec = _spec()
    for index, (color, rgb) in enumerate(COLORS.items()):
        block = spec.worldbody.add_body(name=color, pos=(0.3, 0.1 * (index - 1), BLOCK_HALF))
        block.add_freejoint(name=color)
        block.add_geom(spec.find_default('block'), name=color, rgba=(*rgb, 1.0))
    return spec.compile()


def arm_model() -> mujoco.MjModel:
    """Compile the six joints of the arm alone: what inverse kinematics is solved on."""
    spec = _spec()
    for part in ('mirrored_fingers', 'opening', 'gripper'):
        for group in (spec.equalities, spec.actuators, spec.tendons):
            for element in [item for item in group if item.name == part]:
                spec.delete(element)
    for finger in ('finger_left', 'finger_right'):
        spec.delete(spec.body(finger))
    return spec.compile()
