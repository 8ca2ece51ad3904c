"""The collector: lets the policy attempt a task again and again, and has each attempt recorded.

For each episode: reset the scene, open a recording, run the policy, watch the judge's success
topic, close the recording with the outcome. An opened episode is always closed: by its judge
(success), its time (timeout), a fault (aborted) or Ctrl-C (aborted).
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import rclpy
from q_transformer_ros.action import RunEpisode
from q_transformer_ros.srv import EndEpisode, ResetScene, StartEpisode
from rcl_interfaces.srv import GetParameters
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_msgs.msg import Bool

from qt_ros.errors import QtRosError
from qt_ros.nodes.ros import RELIABLE, StopFlag, announce, declare

SPIN_S = 0.1  # the longest that Ctrl-C waits
DISCOVERY_S = 1.0  # from seeing a subscription to every message reaching it
GRACE_S = 10.0  # answers that must come: of services, and of a policy that was told to stop
ABORTED_IN_A_ROW = 3  # then something is broken, and more attempts are no use

# name: (default, description, range)
PARAMETERS: dict[str, tuple[Any, str, tuple[float, float] | None]] = {
    'episodes': (1, 'How many attempts.', (1, 1_000_000)),
    'instructions': ([''], 'What to ask for, in turn; empty: the scene keeps its task.', None),
    'seed': (0, 'Seed of the first scene, counted up; negative: each is drawn.', None),
    'max_duration_s': (20.0, 'Time limit of an attempt [s].', (0.1, 86400.0)),
    'record': (True, 'Have each attempt recorded by the recorder.', None),
    'reset_service': ('/sim/reset', 'ResetScene service; empty: nobody resets the scene.', None),
    'success_topic': ('/sim/success', 'std_msgs/Bool of the judge; empty: there is none.', None),
    'policy': ('/policy', 'Name of the policy node.', None),
    'recorder': ('/recorder', 'Name of the recorder node.', None),
    'start_timeout_s': (60.0, 'How long to wait for the other nodes [s].', (0.1, 3600.0)),
}


class Interrupted(Exception):
    """Ctrl-C: close what is open and leave."""


@dataclass
class Attempt:
    """What is said about an episode."""

    index: int
    instruction: str
    seed: int
    outcome: str = 'aborted'
    steps: int = 0
    seconds: float = 0.0
    bag: str = ''  # folder of the recording
    termination: str = ''
    message: str = ''


class Collector(Node):
    """Client of the scene, the recorder and the policy; does one thing after the other."""

    def __init__(self, stopped: StopFlag) -> None:
        super().__init__('collector')
        for name, (default, description, limits) in PARAMETERS.items():
            declare(self, name, default, description, limits)
        self._stopped = stopped
        self.policy_id = ''
        self._success = False
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        policy, recorder = self._value('policy'), self._value('recorder')
        self._run = ActionClient(self, RunEpisode, f'{policy}/run_episode')
        self._policy_parameters = self.create_client(GetParameters, f'{policy}/get_parameters')
        self._start = self.create_client(StartEpisode, f'{recorder}/start_episode')
        self._end = self.create_client(EndEpisode, f'{recorder}/end_episode')
        self._reset = None
        if self._value('reset_service'):
            self._reset = self.create_client(ResetScene, self._value('reset_service'))
        if self._value('success_topic'):
            topic = self._value('success_topic')
            self.create_subscription(Bool, topic, self._on_success, RELIABLE)

    def collect(self) -> int:
        """Run every episode; return the exit status: 0 all, 3 some aborted, 1 none or broken."""
        count = self._value('episodes')
        outcomes: Counter[str] = Counter()
        try:
            self._connect()
            aborted_in_a_row = 0
            for index in range(count):
                attempt = self._new_attempt(index)
                try:
                    self._carry_out(attempt)
                finally:
                    outcomes[attempt.outcome] += 1
                    announce('episode', **asdict(attempt))
                aborted_in_a_row = aborted_in_a_row + 1 if attempt.outcome == 'aborted' else 0
                if aborted_in_a_row == ABORTED_IN_A_ROW:
                    raise QtRosError(
                        f'{ABORTED_IN_A_ROW} episodes in a row were aborted, the last because: '
                        f'{attempt.message}'
                    )
        except Interrupted:
            self.get_logger().info('stopped')
        except QtRosError as error:
            self.get_logger().error(str(error))
            announce('error', message=str(error))
        finished = sum(outcomes.values()) - outcomes['aborted']
        announce('summary', asked=count, outcomes=dict(outcomes), policy_id=self.policy_id)
        if finished == count:
            return 0
        return 3 if finished else 1

    def _connect(self) -> None:
        """Wait for the other nodes; say which of them are missing."""
        needed = {self._run: 'the action of the policy node'}
        if self._value('record'):
            needed |= {self._start: 'the recorder', self._end: 'the recorder'}
        if self._reset is not None:
            needed[self._reset] = 'the scene'
        deadline_s = time.monotonic() + self._value('start_timeout_s')
        missing = dict(needed)
        while missing:
            missing = {k: v for k, v in missing.items() if not _ready(k)}
            if missing and time.monotonic() > deadline_s:
                names = ', '.join(sorted(set(missing.values())))
                raise QtRosError(f'not there: {names}; start it, or check its name')
            self._spin()
        self.policy_id = self._loaded_policy(deadline_s)
        if self._value('record'):
            self._await_recorder(deadline_s)

    def _await_recorder(self, deadline_s: float) -> None:
        """Wait until the recorder hears the policy: what is sent before that is not recorded."""
        topic = f'{self._value("policy")}/step'
        while self.count_subscribers(topic) == 0:
            if time.monotonic() > deadline_s:
                raise QtRosError(f'nobody records {topic}; is the recorder of this robot running?')
            self._spin()
        settled_s = time.monotonic() + DISCOVERY_S
        while time.monotonic() < settled_s:
            self._spin()

    def _loaded_policy(self, deadline_s: float) -> str:
        """Wait until the policy node has loaded its checkpoint; return which one.

        While it loads it answers nothing, so one question may stay open for long.
        """
        request = GetParameters.Request(names=['policy_id'])
        while True:
            left_s = max(deadline_s - time.monotonic(), SPIN_S)
            answer = self._until(
                self._policy_parameters.call_async(request), left_s, who='the policy node'
            )
            if answer.values and answer.values[0].string_value:
                return answer.values[0].string_value
            if time.monotonic() > deadline_s:
                raise QtRosError('the policy node has loaded no checkpoint; configure it')
            self._spin()

    def _new_attempt(self, index: int) -> Attempt:
        instructions = list(self._value('instructions')) or ['']
        seed = self._value('seed')
        return Attempt(
            index, instructions[index % len(instructions)], seed + index if seed >= 0 else seed
        )

    def _carry_out(self, attempt: Attempt) -> None:
        if self._reset is not None:
            self._success = False
            request = ResetScene.Request(instruction=attempt.instruction, seed=attempt.seed)
            answer = self._call(self._reset, request)
            if not answer.success:
                raise QtRosError(f'the scene could not be reset: {answer.message}')
            attempt.seed = answer.seed
        start_s = time.monotonic()
        if not self._value('record'):
            self._drive(attempt, '')
            attempt.seconds = round(time.monotonic() - start_s, 3)
            return
        request = StartEpisode.Request(
            instruction=attempt.instruction, source='policy', policy_id=self.policy_id
        )
        answer = self._call(self._start, request)
        if not answer.success:
            raise QtRosError(f'the recording could not be started: {answer.message}')
        try:
            self._drive(attempt, answer.episode_id)
        finally:
            attempt.seconds = round(time.monotonic() - start_s, 3)
            request = EndEpisode.Request(outcome=attempt.outcome, note=attempt.message)
            answer = self._call(self._end, request, interruptible=False)
            attempt.bag = answer.uri
            if not answer.success:
                self.get_logger().error(f'the recording could not be ended: {answer.message}')

    def _drive(self, attempt: Attempt, episode_id: str) -> None:
        """Let the policy try until the judge, the time or a fault ends it; fill in the attempt."""
        goal = RunEpisode.Goal(
            instruction=attempt.instruction,
            max_duration_s=self._value('max_duration_s'),
            episode_id=episode_id,
        )
        self._success = False
        # Not interruptible: a goal whose acceptance nobody waits for would drive unattended.
        handle = self._until(self._run.send_goal_async(goal), interruptible=False)
        if not handle.accepted:
            attempt.message = 'the policy refused the goal; its log says why'
            return
        future = handle.get_result_async()
        try:
            while not future.done() and not self._success:
                self._spin()
        except Interrupted:
            attempt.message = 'interrupted'
            raise
        finally:
            self._cancel(handle, future)
        result = future.result().result
        attempt.steps = result.steps
        attempt.termination = 'success' if self._success else result.termination
        attempt.message = result.message
        attempt.outcome = self._judge(result.termination)

    def _cancel(self, handle: Any, future: Future) -> None:
        """Cancel a goal unless it has ended; ask again while the policy is only about to begin."""
        deadline_s = time.monotonic() + GRACE_S
        while not future.done():
            if time.monotonic() > deadline_s:
                raise QtRosError(f'the policy did not stop within {GRACE_S:g} s of a cancel')
            answer = self._until(handle.cancel_goal_async(), interruptible=False)
            if answer.goals_canceling:
                self._until(future, interruptible=False)
            else:
                self._spin(interruptible=False)

    def _judge(self, termination: str) -> str:
        if termination == 'fault':
            return 'aborted'
        if self._success:
            return 'success'
        if termination == 'time_limit':
            return 'timeout'
        return 'failure' if self._value('success_topic') else 'unknown'

    def _on_success(self, message: Bool) -> None:
        self._success = message.data

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _call(self, client: Any, request: Any, interruptible: bool = True) -> Any:
        if not client.wait_for_service(GRACE_S):
            raise QtRosError(f'{client.srv_name} is gone')
        return self._until(client.call_async(request), GRACE_S, interruptible, client.srv_name)

    def _until(
        self,
        future: Future,
        timeout_s: float = GRACE_S,
        interruptible: bool = True,
        who: str = 'the policy node',
    ) -> Any:
        """Spin until the answer is there and return it."""
        deadline_s = time.monotonic() + timeout_s
        while not future.done():
            if time.monotonic() > deadline_s:
                raise QtRosError(f'{who} did not answer within {timeout_s:g} s')
            self._spin(interruptible)
        return future.result()

    def _spin(self, interruptible: bool = True) -> None:
        if self._stopped.is_set() and interruptible:
            raise Interrupted
        self._executor.spin_once(timeout_sec=SPIN_S)


def _ready(client: Any) -> bool:
    ready: Callable[[], bool] = getattr(client, 'server_is_ready', None) or client.service_is_ready
    return ready()


def main() -> int:
    """Collect the episodes that the parameters ask for, then exit."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Collector(StopFlag())
    try:
        return node.collect()
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
