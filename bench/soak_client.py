"""What `soak.py` asks of the nodes and hears from them, episode by episode."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from q_transformer_ros.action import RunEpisode
from q_transformer_ros.msg import PolicyStep
from q_transformer_ros.srv import ResetScene
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from qt_ros.cadence import StepRow, fate_of, row_of
from qt_ros.contract import Contract
from qt_ros.nodes.ros import RELIABLE, message_class

ANSWER_S = 30.0
QUIET_S = 2.5  # after the last episode: /diagnostics comes once a second


@dataclass(frozen=True)
class Episode:
    """How one episode went."""

    number: int
    termination: str
    message: str
    fates: Counter[str] = field(default_factory=Counter)
    without_row: int = 0  # ticks that no PolicyStep speaks of
    missed_watchdogs: int = 0
    periods_ms: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # of commands
    ages_ms: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # of commands

    def row(self) -> dict[str, Any]:
        """Return a line of a table."""
        return {
            'episode': self.number,
            'termination': self.termination,
            **{fate: self.fates[fate] for fate in ('sent', 'late', 'busy', 'stale', 'refused')},
            'without_row': self.without_row,
            'commands': len(self.periods_ms) + 1,
            'period_std_ms': round(float(self.periods_ms.std()), 3)
            if self.periods_ms.size
            else '',
            'period_max_ms': round(float(self.periods_ms.max()), 3)
            if self.periods_ms.size
            else '',
            'missed_watchdogs': self.missed_watchdogs,
        }


def judged(
    number: int,
    result: Any,
    rows: list[StepRow],
    arrivals_ns: list[int],
    ticks: int,
    watchdog_s: float,
) -> Episode:
    """Work out how an episode went.

    rows: of its PolicySteps. arrivals_ns: of its commands, the fallback last. ticks: that its time
    allows. A gap longer than the watchdog allows is missed unless the fallback ended it: then it
    is the last one.
    """
    steps = {row.step for row in rows}
    # Whatever ended it early, the ticks up to the last one that is known of should have a row.
    expected = ticks if result.termination == 'time_limit' else max(steps, default=-1) + 1
    periods_ms = np.diff(np.asarray(arrivals_ns, np.int64)) / 1e6
    inside = periods_ms[:-1] if result.termination == 'fault' else periods_ms
    ages = [row.command_age_s for row in rows if row.command_age_s is not None]
    return Episode(
        number=number,
        termination=result.termination,
        message=result.message,
        fates=Counter(fate_of(row) for row in rows),
        without_row=expected - len(steps & set(range(expected))),
        missed_watchdogs=int((inside > 1e3 * watchdog_s + 50.0).sum()),
        periods_ms=periods_ms[:-1],  # the fallback comes when it must, not at a slot
        ages_ms=1e3 * np.asarray(ages, dtype=float),
    )


class SoakClient:
    """Resets the scene, asks for episodes and keeps what is heard of the one that runs."""

    def __init__(self, contract: Contract, meanwhile: Callable[[], None]) -> None:
        """meanwhile: called many times a second while waiting."""
        self._contract = contract
        self._meanwhile = meanwhile
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('soak')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._steps: list[PolicyStep] = []
        self._arrivals_ns: list[int] = []
        self._counted: dict[str, int] = {}
        subscribe = self._node.create_subscription
        subscribe(PolicyStep, '/policy/step', self._steps.append, RELIABLE)
        action = contract.action[0]
        subscribe(
            message_class(action.type),
            action.topic,
            lambda data: self._arrivals_ns.append(time.monotonic_ns()),
            RELIABLE,
            raw=True,
        )
        subscribe(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._reset = self._node.create_client(ResetScene, '/sim/reset')
        self._run = ActionClient(self._node, RunEpisode, '/policy/run_episode')

    def __enter__(self) -> SoakClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown()

    def episode(self, instruction: str, number: int, duration_s: float) -> Episode:
        """Reset the scene, run one episode and say how it went."""
        self._until(self._reset.service_is_ready, ANSWER_S, 'the simulator')
        request = ResetScene.Request(instruction=instruction, seed=number)
        self._answer(self._reset.call_async(request), ANSWER_S, 'the reset of the scene')
        self._steps.clear()
        self._arrivals_ns.clear()
        self._until(self._run.server_is_ready, ANSWER_S, 'the policy')
        name = f'soak_{number}'
        goal = RunEpisode.Goal(instruction=instruction, max_duration_s=duration_s, episode_id=name)
        handle = self._answer(self._run.send_goal_async(goal), ANSWER_S, 'an answer to the goal')
        if not handle.accepted:
            return Episode(number, 'fault', 'the policy refused the episode')
        answer = self._answer(
            handle.get_result_async(), duration_s + 60.0, f'the end of episode {number}'
        )
        self._spin(0.3)  # what was published last
        rows = [row_of(step) for step in self._steps if step.episode_id == name]
        ticks = max(1, int(np.ceil(duration_s * self._contract.rate_hz - 1e-3)))
        watchdog_s = self._contract.safety.watchdog_s
        return judged(number, answer.result, rows, [*self._arrivals_ns], ticks, watchdog_s)

    def counted(self) -> dict[str, int]:
        """Return what the node itself counted over all episodes, from /diagnostics."""
        self._counted = {}
        self._spin(QUIET_S)
        return self._counted

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if 'control loop' in status.name:
                self._counted = {
                    pair.key: int(pair.value) for pair in status.values if pair.value.isdigit()
                }

    def _answer(self, future: Any, timeout_s: float, what: str) -> Any:
        self._until(future.done, timeout_s, what)
        return future.result()

    def _spin(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        self._until(lambda: time.monotonic() > end_s, seconds + 5.0, 'time to pass')

    def _until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                sys.exit(f'{what} did not come within {timeout_s:g} s')
            self._executor.spin_once(timeout_sec=0.1)
            self._meanwhile()
