"""The one thread that thinks: it decodes images and runs the policy, off the executor.

The executor hands over one job at a time and is never blocked: while a job runs, the next is
turned down. torch releases the GIL, so timers and subscriptions go on meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from qt_ros.contract import Contract
from qt_ros.nodes.control.records import Decided, Goal, Tick
from qt_ros.observation import Observation, build_observation


class Decides(Protocol):
    """The part of `training.policy.Policy` that the live loop needs."""

    def reset(self, instruction: str) -> None:
        """Begin an episode."""

    def act(self, observation: Observation) -> Any:
        """Return `.action`, `.bins`, `.q` (A,) and `.q_values`, A arrays."""


class Inference:
    """Runs `prepare` and `think` jobs in a thread and reports each through a callback there."""

    def __init__(
        self,
        contract: Contract,
        policy: Decides,
        on_prepared: Callable[[Goal, str], None],
        on_decided: Callable[[Decided], None],
    ) -> None:
        self._contract = contract
        self._policy = policy
        self._on_prepared = on_prepared
        self._on_decided = on_decided
        self._wake = threading.Condition()
        self._job: Goal | Tick | None = None
        self._busy = False
        self._closing = False
        # A daemon: a policy that hangs must not keep the process, and the robot, from stopping.
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)
        self._thread.start()

    def submit(self, job: Goal | Tick) -> bool:
        """Start on a goal's instruction or on a tick; False while the last job still runs."""
        with self._wake:
            if self._busy or self._closing:
                return False
            self._busy, self._job = True, job
            self._wake.notify()
            return True

    def close(self, timeout_s: float = 2.0) -> bool:
        """Let the thread end; False if its job still ran after `timeout_s`."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._job is not None or self._closing)
                job, self._job = self._job, None
                if self._closing or job is None:
                    return
            outcome = self._prepare(job) if isinstance(job, Goal) else self._decide(job)
            with self._wake:
                self._busy = False  # before the report: its receiver may submit the next job
            if isinstance(outcome, Decided):
                self._on_decided(outcome)
            else:
                self._on_prepared(*outcome)

    def _prepare(self, goal: Goal) -> tuple[Goal, str]:
        try:
            self._policy.reset(goal.instruction)
        except Exception as error:  # noqa: BLE001 - the thread reports it and lives on
            return goal, f'the policy cannot take the instruction {goal.instruction!r}: {error}'
        return goal, ''

    def _decide(self, tick: Tick) -> Decided:
        start_s = time.perf_counter()
        observation = None
        try:
            observation = build_observation(self._contract, tick.t_ns, tick.samples)
            invalid = [name for name, valid in observation.valid.items() if not valid]
            if invalid:
                words = f'{", ".join(invalid)}: a number that is not finite'
                seconds = time.perf_counter() - start_s
                return Decided(tick, seconds, unusable=words, observation=observation)
            decision = self._policy.act(observation)
        except Exception as error:  # noqa: BLE001 - the thread reports it and lives on
            words = f'deciding failed at tick {tick.step}: {type(error).__name__}: {error}'
            return Decided(tick, time.perf_counter() - start_s, words, observation=observation)
        return Decided(
            tick=tick,
            inference_s=time.perf_counter() - start_s,
            observation=observation,
            action=np.asarray(decision.action, dtype=np.float64),
            bins=np.asarray(decision.bins),
            q=np.asarray(decision.q),
            q_values=tuple(np.asarray(values) for values in decision.q_values),
        )
