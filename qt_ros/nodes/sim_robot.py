"""The simulated arm on the topics of a real one.

    in    /arm_controller/joint_trajectory   JointTrajectory, the first point counts
          /gripper_controller/commands       Float64MultiArray, one opening
    out   /joint_states, /arm_controller/reference, /sim/ground_truth              50 Hz
          /front/image/compressed, /wrist/image/compressed                         20 Hz
          /sim/success on change and on reset; /clock in lockstep
    asked /sim/reset, /sim/check_success

Sensors are stamped when they are captured. In real time the stamps are the system's time; with
`lockstep` they are simulated time, which waits for the driver of an episode (see `pacing`).
Physics, rendering and callbacks share one thread: OpenGL contexts belong to the thread that made
them, and nothing here takes longer than a few milliseconds.
"""

from __future__ import annotations

import array
import sys
import time
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import Pose, PoseArray
from q_transformer_ros.msg import EpisodeEvent
from q_transformer_ros.srv import ResetScene
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from qt_ros.errors import QtRosError, SimError
from qt_ros.nodes.pacing import Lockstep, WallPace
from qt_ros.nodes.ros import (
    EVENTS,
    LATCHED,
    RELIABLE,
    StopFlag,
    announce,
    declare,
    refuse,
    take,
    to_ns,
    to_stamp,
)
from qt_ros.nodes.sim_commands import arm_target, gripper_target
from qt_ros.sim import sensors
from qt_ros.sim.scene import STEP_NS
from qt_ros.sim.world import BlockWorld

SETTLE_STEPS = 20  # after a reset, before sensors say anything: blocks come to rest
LOCKSTEP_START_NS = 1_000_000_000  # a stamp of zero would mean "no stamp"
DRIVEN_S = 0.5  # how often a simulator that waits for its driver looks up


class SimRobot(Node):
    """A block world behind ROS topics; `run_until` does everything."""

    def __init__(self) -> None:
        super().__init__('sim_robot')
        height = declare(self, 'image_height', 64, 'Height of both cameras [px].', (8, 480))
        width = declare(self, 'image_width', 64, 'Width of both cameras [px].', (8, 640))
        self._size = (height, width)
        seed = declare(self, 'seed', 0, 'Of the scene at start; negative: draw one.', (-1, 2**53))
        instruction = declare(
            self, 'instruction', 'push the red block to the left', 'Task of the scene at start.'
        )
        lockstep = declare(
            self,
            'lockstep',
            False,
            'Publish /clock and wait for the driver of an episode, as fast as it goes; '
            'every other node needs use_sim_time.',
        )
        rate_hz = declare(
            self,
            'rate_hz',
            10.0,
            'Commands per second that lockstep waits for [Hz].',
            (0.1, 200.0),
        )
        self.world = BlockWorld()
        self._make_topics(lockstep)
        self._success = False
        start_ns = LOCKSTEP_START_NS if lockstep else time.time_ns()
        self._offset_ns = start_ns - self.world.time_ns
        self._pace: Lockstep | WallPace
        if lockstep:
            period_ns = round(1e9 / rate_hz)
            self._pace = Lockstep(
                time.monotonic_ns, self.now_ns, period_ns, STEP_NS, self._captured_at
            )
        else:
            self._pace = WallPace(time.monotonic_ns, self.now_ns)
        self._reset(instruction, seed)

    @property
    def now_ns(self) -> int:
        """Return the time of the simulation (ns)."""
        return self._offset_ns + self.world.time_ns

    def _make_topics(self, lockstep: bool) -> None:
        publisher = self.create_publisher
        self._joints = publisher(JointState, sensors.JOINTS_TOPIC, RELIABLE)
        self._reference = publisher(JointState, sensors.REFERENCE_TOPIC, RELIABLE)
        self._truth = publisher(PoseArray, '/sim/ground_truth', RELIABLE)
        self._success_topic = publisher(Bool, '/sim/success', LATCHED)
        self._images = {
            camera: publisher(CompressedImage, topic, RELIABLE)
            for topic, camera in sensors.CAMERA_TOPICS.items()
        }
        self._clock_topic = publisher(Clock, '/clock', RELIABLE) if lockstep else None
        subscribe = self.create_subscription
        self._commands = (
            subscribe(JointTrajectory, sensors.ARM_TOPIC, self._on_arm, RELIABLE),
            subscribe(Float64MultiArray, sensors.GRIPPER_TOPIC, self._on_gripper, RELIABLE),
        )
        if lockstep:
            subscribe(EpisodeEvent, '/episode/events', self._on_event, EVENTS.depth)
        self.create_service(ResetScene, '/sim/reset', self._on_reset)
        self.create_service(Trigger, '/sim/check_success', self._on_check)

    # ---- time

    def run_until(self, flag: StopFlag) -> None:
        """Simulate, publish and answer until told to stop."""
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        while not flag.is_set():
            moved = self._advance()
            if moved and self._driven:
                self._take_commands()  # the rest is answered when time stands still
                continue
            executor.spin_once(timeout_sec=0.0 if moved else self._wait_s())
            if isinstance(self._pace, Lockstep) and self._pace.abandoned():
                self.get_logger().warning(
                    'no command for 5 s: nobody seems to drive; time follows the wall clock again'
                )
                self._pace.end(self.now_ns)
        executor.shutdown()

    def _advance(self) -> bool:
        """Run the physics as far as it may, or to the next capture; say whether time moved."""
        until_ns = self._pace.until_ns(self.now_ns)
        due_ns = min(self._next_state_ns, self._next_camera_ns)
        steps = (min(until_ns, due_ns) - self.now_ns) // STEP_NS
        if steps <= 0:
            return False
        self.world.advance(steps)
        if self.now_ns >= due_ns:
            self._publish_sensors()
        elif self._driven:
            self._publish_clock()  # time stands still from here on
        return True

    @property
    def _driven(self) -> bool:
        """True in lockstep while somebody drives."""
        return isinstance(self._pace, Lockstep) and self._pace.driven

    def _wait_s(self) -> float:
        """Return how long callbacks may be waited for while time stands still [s]."""
        if self._driven:
            return DRIVEN_S
        due_ns = min(self._next_state_ns, self._next_camera_ns)
        return max(due_ns - self._pace.until_ns(self.now_ns), 0) / 1e9

    def _captured_at(self, time_ns: int) -> bool:
        """Say whether sensors are captured at a time to come (ns)."""
        state = (time_ns - self._next_state_ns) % sensors.STATE_PERIOD_NS
        camera = (time_ns - self._next_camera_ns) % sensors.CAMERA_PERIOD_NS
        return state == 0 or camera == 0

    # ---- out

    def _publish_sensors(self) -> None:
        """Capture the sensors that are due now and publish them.

        In lockstep the clock moves one step between the two, as if a sensor took that long:
        whatever is decided on a sensor is then published after its stamp, by the clock too.
        """
        messages = self._capture()
        if isinstance(self._pace, Lockstep):
            self.world.advance(1)
            self._publish_clock()
        for publisher, message in messages:
            publisher.publish(message)
        success = self.world.success()
        if success != self._success:
            self._publish_success(success)

    def _capture(self) -> list[tuple[Publisher, Any]]:
        """Return what is due now, and by whom to publish it.

        In real time the stamps are the wall clock's: a simulation that lost time to a busy
        machine must not make its sensors look old for ever after.
        """
        now_ns = self.now_ns
        stamp_ns = now_ns if isinstance(self._pace, Lockstep) else time.time_ns()
        messages: list[tuple[Publisher, Any]] = []
        if now_ns >= self._next_camera_ns:
            self._next_camera_ns += sensors.CAMERA_PERIOD_NS
            messages += self._captured_images(stamp_ns)
        if now_ns >= self._next_state_ns:
            self._next_state_ns += sensors.STATE_PERIOD_NS
            messages += self._captured_state(stamp_ns)
        return messages

    def _captured_images(self, stamp_ns: int) -> list[tuple[Publisher, Any]]:
        messages = []
        for camera, publisher in self._images.items():
            image = sensors.image(self.world, camera, self._size)
            msg = CompressedImage(format=image.format, data=array.array('B', image.data))
            msg.header.stamp = to_stamp(stamp_ns)
            msg.header.frame_id = f'{camera}_camera'
            messages.append((publisher, msg))
        return messages

    def _captured_state(self, stamp_ns: int) -> list[tuple[Publisher, Any]]:
        """Return the joint states and, last, the truth about the blocks."""
        messages: list[tuple[Publisher, Any]] = []
        for publisher, state in (
            (self._joints, sensors.joint_states(self.world)),
            (self._reference, sensors.controller_reference(self.world)),
        ):
            msg = JointState(name=state.name, position=state.position, velocity=state.velocity)
            messages.append((publisher, msg))
        truth = PoseArray(poses=[_pose(row) for row in self.world.truth().tolist()])
        truth.header.frame_id = 'world'
        messages.append((self._truth, truth))
        for _, msg in messages:
            msg.header.stamp = to_stamp(stamp_ns)
        return messages

    def _publish_success(self, success: bool) -> None:
        self._success = success
        self._success_topic.publish(Bool(data=success))

    def _publish_clock(self) -> None:
        if self._clock_topic is not None:
            self._clock_topic.publish(Clock(clock=to_stamp(self.now_ns)))

    # ---- in

    def _take_commands(self) -> None:
        """Carry out the commands that have come, without the cost of waiting for more."""
        for subscription in self._commands:
            while (taken := take(subscription)) is not None:
                subscription.callback(taken[0])

    def _on_arm(self, msg: JointTrajectory) -> None:
        try:
            positions, duration_s = arm_target(msg)
        except SimError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)
            return
        self._catch_up()
        self.world.set_arm_target(positions, duration_s)
        if isinstance(self._pace, Lockstep):
            self._pace.arm_command(self._checked_stamp(to_ns(msg.header.stamp)))

    def _on_gripper(self, msg: Float64MultiArray) -> None:
        try:
            opening = gripper_target(msg)
        except SimError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)
            return
        self._catch_up()
        self.world.set_gripper(opening)
        if isinstance(self._pace, Lockstep):
            self._pace.gripper_command()

    def _catch_up(self) -> None:
        """In real time, bring the physics to the moment at which a command arrives."""
        if isinstance(self._pace, WallPace):
            self._advance()

    def _checked_stamp(self, stamp_ns: int) -> int:
        """Return a command's stamp, or the time where it has none or one that cannot be."""
        if stamp_ns == 0:
            return self.now_ns
        if stamp_ns > self.now_ns + sensors.CAMERA_PERIOD_NS:
            self.get_logger().warning(
                'commands are stamped in the future: does their sender lack use_sim_time?',
                throttle_duration_sec=5.0,
            )
            return self.now_ns
        return stamp_ns

    def _on_event(self, msg: EpisodeEvent) -> None:
        if not isinstance(self._pace, Lockstep):
            return
        if msg.kind == EpisodeEvent.START:
            self._pace.begin(self._checked_stamp(to_ns(msg.header.stamp)))
        elif msg.kind == EpisodeEvent.STOP:
            self._pace.end(self.now_ns)

    def _on_reset(self, request: Any, response: Any) -> Any:
        try:
            instruction = request.instruction or self.world.task.instruction
            response.seed = self._reset(instruction, request.seed)
            response.success = True
            response.message = instruction
        except SimError as error:
            response.message = str(error)
        return response

    def _on_check(self, request: Any, response: Any) -> Any:
        del request
        response.success = self.world.success()
        response.message = self.world.task.instruction
        return response

    def _reset(self, instruction: str, seed: int) -> int:
        """Put the scene into a fresh state and publish a full set of sensors of it.

        The time in which the blocks settle does not count for the sensors' clock. The cameras go
        on at a random phase, as free-running ones do: images are of any age where an episode
        begins, in lockstep too.
        """
        used = self.world.reset(instruction, seed)
        self.world.advance(SETTLE_STEPS)
        self._offset_ns -= SETTLE_STEPS * STEP_NS
        self.world.advance(1)  # no two captures carry the same stamp
        self._next_state_ns = self._next_camera_ns = self.now_ns
        if isinstance(self._pace, Lockstep):
            self._pace.end(self.now_ns)
        self._publish_success(False)
        captured_ns = self.now_ns
        self._publish_sensors()
        # Whole pairs of steps: states and images are captured at once or at least a pair apart.
        pairs = sensors.CAMERA_PERIOD_NS // (2 * STEP_NS)
        phase = int(np.random.default_rng(used).integers(1, pairs, endpoint=True))
        self._next_camera_ns = captured_ns + phase * 2 * STEP_NS
        return used

    def destroy_node(self) -> None:
        """Free the renderer and destroy the node."""
        self.world.close()
        super().destroy_node()


def _pose(row: list[float]) -> Pose:
    """Return a pose of x y z [m], quaternion x y z w."""
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = row[:3]
    rotation = pose.orientation
    rotation.x, rotation.y, rotation.z, rotation.w = row[3:]
    return pose


def main() -> int:
    """Run the simulated robot until Ctrl-C."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    flag = StopFlag()
    node = None
    try:
        node = SimRobot()
        announce('ready', instruction=node.world.task.instruction)
        node.run_until(flag)
        return 0
    except QtRosError as error:
        refuse(error)
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
