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

from qt_ros.nodes.control.records import EpisodeEnd, Goal, StepRecord

ANSWER_S = 0.3  # a result leaves some spins after its goal has ended


@dataclass
class _Run:
    """The goal that is being carried out."""

    goal: Goal
    handle: Any
    end: Future


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
        """`refusal` says why no goal can be taken now, or ''."""
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

    @property
    def busy(self) -> bool:
        """True from the acceptance of a goal until its client had time to fetch the result."""
        return self._reserved or time.monotonic() < self._answer_by_s

    def ended(self, end: EpisodeEnd) -> None:
        """Hand the end of the episode to its client."""
        if self._run is not None and self._run.goal is end.goal:
            self._run.end.set_result(end)

    def feedback(self, record: StepRecord) -> None:
        """Tell the client about a tick."""
        if self._run is None or record.decided is None:
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
        problem = 'an episode is already running' if self._reserved else self._refusal()
        if not problem and not (
            math.isfinite(request.max_duration_s) and request.max_duration_s > 0
        ):
            problem = (
                f'max_duration_s is {request.max_duration_s:g}; give a number of seconds above 0'
            )
        if problem:
            self._logger.error(f'refused to run {request.instruction!r}: {problem}')
            return GoalResponse.REJECT
        self._reserved = True
        return GoalResponse.ACCEPT

    def _on_cancel(self, _: Any) -> CancelResponse:
        if self._run is None or self._run.end.done():
            return CancelResponse.REJECT
        self._cancel()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> RunEpisode.Result:
        request = handle.request
        goal = Goal(
            instruction=request.instruction,
            max_steps=max(1, math.ceil(request.max_duration_s * self._rate_hz() - 1e-3)),
            dry_run=request.dry_run,
            episode_id=request.episode_id or f'policy_{uuid.uuid4().hex[:12]}',
        )
        self._run = _Run(goal, handle, Future())
        try:
            self._start(goal)
            end = await self._run.end
            return self._finish(handle, end)
        finally:
            self._run = None
            self._reserved = False
            self._answer_by_s = time.monotonic() + ANSWER_S

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
