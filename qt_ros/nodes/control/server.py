"""The `RunEpisode` action: one goal at a time, each driven by the control loop to its end."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from q_transformer_ros.action import RunEpisode
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future
from std_srvs.srv import Trigger

from qt_ros.errors import QtRosError
from qt_ros.nodes.control.records import EpisodeEnd, Goal, StepRecord

ANSWER_S = 0.3  # a result leaves some spins after its goal has ended


@dataclass
class _Run:
    """The goal that is being carried out."""

    goal: Goal
    handle: Any  # of its client; None: it was started by a service, and nobody waits
    end: Future | None


class EpisodeServer:
    """Accepts a goal when the policy is free, waits for the loop, answers with how it ended.

    Callbacks run on the node's single thread: `execute` awaits a future that `ended` sets.
    """

    def __init__(
        self,
        node: LifecycleNode,
        refusal: Callable[[], str],
        start: Callable[[Goal], None],
        cancel: Callable[[], None],
        rate_hz: Callable[[], float],
    ) -> None:
        """`refusal` says why no goal can be taken now, or ''.

        `~/start` and `~/stop` are for clients that cannot call actions.
        """
        self._node = node
        self._logger = node.get_logger()
        self._refusal, self._start, self._cancel = refusal, start, cancel
        self._rate_hz = rate_hz
        self._reserved = False
        self._answer_by_s = 0.0
        self._run: _Run | None = None
        self._server = ActionServer(
            node,
            RunEpisode,
            '~/run_episode',
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )
        node.create_service(Trigger, '~/start', self._on_start)
        node.create_service(Trigger, '~/stop', self._on_stop)

    @property
    def busy(self) -> bool:
        """True from the acceptance of a goal until its client had time to fetch the result."""
        return self._reserved or time.monotonic() < self._answer_by_s

    def ended(self, end: EpisodeEnd) -> None:
        """Hand the end of the episode to its client."""
        if self._run is None or self._run.goal is not end.goal:
            return
        if self._run.end is not None:
            self._run.end.set_result(end)
        else:
            self._run, self._reserved = None, False

    def feedback(self, record: StepRecord) -> None:
        """Tell the client about a tick."""
        if self._run is None or self._run.handle is None or record.decided is None:
            return
        self._run.handle.publish_feedback(
            RunEpisode.Feedback(
                step=record.tick.step,
                q=record.decided.q.tolist(),
                observation_age_s=record.age_ns / 1e9,
                inference_s=record.decided.inference_s,
            )
        )

    def close(self) -> None:
        """Withdraw the action."""
        self._server.destroy()

    def _on_goal(self, request: RunEpisode.Goal) -> GoalResponse:
        problem = self._problem(request.instruction, request.max_duration_s)
        self._reserved = self._reserved or not problem
        return GoalResponse.REJECT if problem else GoalResponse.ACCEPT

    def _problem(self, instruction: str, duration_s: float) -> str:
        """Say why a goal cannot be taken, or ''."""
        problem = 'an episode is already running' if self._reserved else self._refusal()
        if not problem and not (math.isfinite(duration_s) and duration_s > 0):
            problem = f'max_duration_s is {duration_s:g}; give a number of seconds above 0'
        if problem:
            self._logger.error(f'refused to run {instruction!r}: {problem}')
        return problem

    def _on_start(self, request: Any, response: Any) -> Any:
        """Start an episode with the instruction and the duration of the parameters."""
        del request
        names = ('instruction', 'max_duration_s')
        instruction, duration_s = (self._node.get_parameter(name).value for name in names)
        problem = self._problem(instruction, duration_s)
        if not problem:
            goal = self._goal(instruction, duration_s, False, '')
            try:
                self._start(goal)
            except QtRosError as error:
                problem = str(error)
            else:
                self._reserved, self._run = True, _Run(goal, None, None)
                response.message = goal.episode_id
        response.success = not problem
        response.message = problem or response.message
        return response

    def _on_stop(self, request: Any, response: Any) -> Any:
        """End the running episode, whoever started it."""
        del request
        response.success = self._run is not None
        response.message = self._run.goal.episode_id if self._run else 'no episode is running'
        if self._run is not None:
            self._cancel()
        return response

    def _on_cancel(self, _: Any) -> CancelResponse:
        if self._run is None or self._run.end is None or self._run.end.done():
            return CancelResponse.REJECT
        self._cancel()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> RunEpisode.Result:
        request = handle.request
        goal = self._goal(
            request.instruction, request.max_duration_s, request.dry_run, request.episode_id
        )
        end_of_run = Future()
        self._run = _Run(goal, handle, end_of_run)
        try:
            self._start(goal)
            end = await end_of_run
            return self._finish(handle, end)
        finally:
            self._run = None
            self._reserved = False
            self._answer_by_s = time.monotonic() + ANSWER_S

    def _goal(self, instruction: str, duration_s: float, dry_run: bool, episode_id: str) -> Goal:
        return Goal(
            instruction=instruction,
            max_steps=max(1, math.ceil(duration_s * self._rate_hz() - 1e-3)),
            dry_run=dry_run or self._node.get_parameter('dry_run').value,
            episode_id=episode_id or f'policy_{uuid.uuid4().hex[:12]}',
        )

    def _finish(self, handle: Any, end: EpisodeEnd) -> RunEpisode.Result:
        if end.termination == 'fault':
            handle.abort()
        elif handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.succeed()
        return RunEpisode.Result(
            outcome=end.outcome,
            steps=end.steps,
            termination=end.termination,
            message=end.message,
            late=end.late,
            limited=end.limited,
        )
