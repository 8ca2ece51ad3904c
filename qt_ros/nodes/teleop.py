"""A scripted teleoperator: resets the simulated scene, drives, and labels what it did.

Per attempt: reset the scene, start the recording, act once per tick of the contract on the first
ground truth at or after t_k, stop when the scene says success or the script is over, end the
recording. It prints one `QT` line per attempt and a summary, then exits. Commands pass the same
limiter as a policy's.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseArray
from q_transformer_ros.srv import EndEpisode, ResetScene, StartEpisode
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Bool

from qt_ros.contract import Contract
from qt_ros.errors import QtRosError
from qt_ros.nodes.attempts import Attempt, attempts, outcome_of
from qt_ros.nodes.driver import Driver
from qt_ros.nodes.ros import (
    LATCHED,
    RELIABLE,
    StopFlag,
    announce,
    declare,
    now_ns,
    refuse,
    to_ns,
)
from qt_ros.resources import resource
from qt_ros.sim.expert import ArmState, make_operator
from qt_ros.sim.scene import JOINTS
from qt_ros.sim.sensors import JOINTS_TOPIC, REFERENCE_TOPIC
from qt_ros.sim.tasks import parse

ANSWER_S = 20.0  # wall time that a node may take to appear, to answer or to say something
SPIN_S = 0.1
LOOK_S = 0.001  # the same while the state that belongs to a ground truth is on its way


class Interrupted(Exception):
    """The process was told to stop."""


class Teleop(Node):
    """Makes attempts one after the other."""

    def __init__(self, flag: StopFlag) -> None:
        super().__init__('teleop')
        self._flag = flag
        plan = declare(
            self, 'plan', 'expert:10', "Attempts by mode, 'MODE:N,...': expert, noisy, random."
        )
        instructions = declare(
            self,
            'instructions',
            ['push the red block to the left', 'push the red block to the right'],
            'Tasks that take turns.',
        )
        seed = declare(self, 'seed', 0, 'Of scene 0 and of the mistakes.', (0, 2**53))
        contract = declare(
            self,
            'contract',
            '',
            'Contract (YAML) of the robot; empty: the block arm that comes along.',
        )
        self._record = declare(self, 'record', True, 'Let the recorder record each attempt.')
        self._max_duration_s = declare(
            self, 'max_duration_s', 10.0, 'Longest attempt [s].', (0.1, 3600.0)
        )
        path = Path(contract) if contract else resource('config/robots/block_arm.yaml')
        self.contract = Contract.load(path)
        self.attempts = attempts(plan, instructions, seed)
        self._operators = {mode: make_operator(mode, seed) for mode in
                           {attempt.mode for attempt in self.attempts}}  # fmt: skip
        self.driver = Driver(self, self.contract)
        self._truth = PoseArray()
        self._success: bool | None = None
        self._behind = False  # the state that belongs to the ground truth has not come yet
        self.create_subscription(PoseArray, '/sim/ground_truth', self._on_truth, RELIABLE)
        self.create_subscription(Bool, '/sim/success', self._on_success, LATCHED)
        self._reset = self.create_client(ResetScene, '/sim/reset')
        self._start = self.create_client(StartEpisode, '/recorder/start_episode')
        self._end = self.create_client(EndEpisode, '/recorder/end_episode')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def _on_truth(self, msg: PoseArray) -> None:
        self._truth = msg

    def _on_success(self, msg: Bool) -> None:
        self._success = msg.data

    # ---- attempts

    def run(self) -> Counter[tuple[str, str]]:
        """Make every attempt; return how many there were per (mode, outcome)."""
        self._wait_for_everybody()
        announce('ready', attempts=len(self.attempts))
        outcomes: Counter[tuple[str, str]] = Counter()
        for attempt in self.attempts:
            began_s = time.monotonic()
            result = self._attempt(attempt)
            outcomes[attempt.mode, result['outcome']] += 1
            announce(
                'episode',
                index=attempt.index,
                attempts=len(self.attempts),
                mode=attempt.mode,
                instruction=attempt.instruction,
                seed=attempt.seed,
                **result,
                wall_s=round(time.monotonic() - began_s, 3),
            )
        return outcomes

    def _attempt(self, attempt: Attempt) -> dict[str, Any]:
        """Make one attempt and return what became of it."""
        request = ResetScene.Request(instruction=attempt.instruction, seed=attempt.seed)
        self._call(self._reset, request, 'the simulator')
        self._success = None if self._success is None else False
        t0_ns = self._begin(attempt)
        outcome, ended, steps = 'aborted', 'interrupted', 0
        try:
            outcome, ended, steps = self._drive(attempt, t0_ns)
        finally:
            recorded = self._finish(outcome, ended)
        return {'outcome': outcome, 'ended': ended, 'steps': steps, **recorded}

    def _begin(self, attempt: Attempt) -> int:
        """Start the recording and return the time of tick 0 (ns)."""
        if not self._record:
            return now_ns(self)
        request = StartEpisode.Request(instruction=attempt.instruction, source='teleop')
        answer = self._call(self._start, request, 'the recorder')
        return to_ns(answer.stamp)

    def _drive(self, attempt: Attempt, t0_ns: int) -> tuple[str, str, int]:
        """Act tick by tick; return the outcome, what ended the attempt, and the actions sent."""
        operator = self._operators[attempt.mode]
        ticks = max(1, round(self._max_duration_s * self.contract.rate_hz))
        for step in range(ticks):
            tick_ns = self.contract.tick_ns(t0_ns, step)
            self._wait(lambda tick_ns=tick_ns: self._done() or self._seen(tick_ns), 'the robot')
            if self._done():
                return 'success', 'success', step
            if step == 0:
                self.driver.begin()
                operator.reset(parse(attempt.instruction), self._arm_state().positions)
            if operator.finished:
                return outcome_of(attempt.mode, False), 'given up', step
            self.driver.send(operator.act(self._arm_state()), to_ns(self._truth.header.stamp))
        end_ns = self.contract.tick_ns(t0_ns, ticks)
        self._wait(lambda: self._done() or self._seen(end_ns), 'the robot')
        ended = 'success' if self._done() else 'time'
        return outcome_of(attempt.mode, self._done()), ended, ticks

    def _finish(self, outcome: str, ended: str) -> dict[str, Any]:
        """End the recording and return where it is."""
        if not self._record:
            return {}
        request = EndEpisode.Request(outcome=outcome, note=ended)
        return {'uri': self._call(self._end, request, 'the recorder', stoppable=False).uri}

    def _done(self) -> bool:
        return self._success is True

    def _seen(self, tick_ns: int) -> bool:
        """Say whether the state of the robot and of the blocks at a tick is known."""
        self._behind = False
        if to_ns(self._truth.header.stamp) < tick_ns:
            return False
        self.driver.listen()
        self._behind = self.driver.newest_ns < tick_ns
        return not self._behind

    def _arm_state(self) -> ArmState:
        """Return what the operator is shown."""
        measured = self.driver.positions(JOINTS_TOPIC)
        reference = self.driver.positions(REFERENCE_TOPIC)
        return ArmState(
            np.array([measured[joint] for joint in JOINTS]),
            np.array([reference[joint] for joint in JOINTS]),
            measured['gripper'],
            np.array([_row(pose) for pose in self._truth.poses]),
        )

    # ---- waiting

    def _wait_for_everybody(self) -> None:
        """Wait for the simulator, the recorder and the clock; say who is missing."""
        needed = {'/sim/reset': self._reset}
        if self._record:
            needed |= {'/recorder/start_episode': self._start, '/recorder/end_episode': self._end}

        def missing() -> list[str]:
            names = [name for name, client in needed.items() if not client.service_is_ready()]
            names += [] if now_ns(self) else ['/clock']
            names += [] if self._success is not None else ['/sim/success']
            names += self.driver.missing()
            return names

        deadline_s = time.monotonic() + ANSWER_S
        while names := missing():
            if time.monotonic() > deadline_s:
                raise QtRosError(
                    f'after {ANSWER_S:g} s there is no {", ".join(names)}; start sim_robot'
                    f'{" and recorder (or set record to false)" if self._record else ""}'
                )
            self._spin_once()

    def _call(self, client: Client, request: Any, who: str, stoppable: bool = True) -> Any:
        """Call a service; raises QtRosError with what it says when it does not do it."""
        future = client.call_async(request)
        self._wait(future.done, who, stoppable)
        answer = future.result()
        if not answer.success:
            raise QtRosError(f'{who} refused: {answer.message}')
        return answer

    def _wait(self, done: Callable[[], bool], who: str, stoppable: bool = True) -> None:
        """Handle messages until done; raises Interrupted, or QtRosError when nothing happens."""
        deadline_s = time.monotonic() + ANSWER_S
        while not done():
            self._spin_once(stoppable)
            if time.monotonic() > deadline_s:
                raise QtRosError(
                    f'{who} has said nothing for {ANSWER_S:g} s; is it still running?'
                )

    def _spin_once(self, stoppable: bool = True) -> None:
        if stoppable and self._flag.is_set():
            raise Interrupted
        self._executor.spin_once(timeout_sec=LOOK_S if self._behind else SPIN_S)


def _row(pose: Any) -> list[float]:
    position, rotation = pose.position, pose.orientation
    return [
        position.x, position.y, position.z, rotation.x, rotation.y, rotation.z, rotation.w
    ]  # fmt: skip


def main() -> int:
    """Make the attempts; exit status 1 when they could not all be made."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    flag = StopFlag()
    node = None
    began_s = time.monotonic()
    try:
        node = Teleop(flag)
        outcomes = node.run()
        announce(
            'summary',
            attempts=len(node.attempts),
            outcomes=[[*key, count] for key, count in sorted(outcomes.items())],
            wall_s=round(time.monotonic() - began_s, 3),
        )
        return 0
    except Interrupted:
        announce('error', message='stopped before all attempts were made')
        return 1
    except QtRosError as error:
        refuse(error)
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
