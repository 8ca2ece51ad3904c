"""The policy node: a checkpoint drives the robot of its contract, one episode at a time.

A lifecycle node. configure loads the checkpoint, checks it against the running robot and warms
up; activate arms it; the action `~/run_episode` drives. Everything here runs on one executor
thread and never blocks it: callbacks store messages, the inference thread thinks
(`control.inference`), and the command timer hands decisions through the limiter (`control.loop`).
Whatever ends an episode (its time, a cancel, a fault, deactivation, Ctrl-C), the last command out
is the contract's fallback.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from q_transformer_ros.msg import PolicyStep
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile

from qt_ros.contract import Camera, Contract
from qt_ros.errors import QtRosError
from qt_ros.nodes.control.checks import check_command_rate, contract_for
from qt_ros.nodes.control.clockwork import Clockwork
from qt_ros.nodes.control.guards import Guards, TeleopListener
from qt_ros.nodes.control.handover import Handover
from qt_ros.nodes.control.health import health
from qt_ros.nodes.control.inference import Inference
from qt_ros.nodes.control.lead import Lead
from qt_ros.nodes.control.loop import ControlLoop
from qt_ros.nodes.control.messages import CommandPublisher, diagnostics, step_message
from qt_ros.nodes.control.parameters import ParameterGuard, declare_parameters
from qt_ros.nodes.control.records import Decided, EpisodeEnd, Goal, StepRecord, Tick
from qt_ros.nodes.control.rhythm import Rhythm
from qt_ros.nodes.control.robot import RobotListener
from qt_ros.nodes.control.server import EpisodeServer
from qt_ros.nodes.ros import RELIABLE, announce, run_node
from training.errors import UserError
from training.policy import Policy

SUCCESS = TransitionCallbackReturn.SUCCESS


class PolicyNode(LifecycleNode):
    """Drives a robot with a trained policy; usable in a process of its own or inside another."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('policy', **node_options)
        declare_parameters(self)
        self._guard = ParameterGuard(self, lambda: self.loop is not None)
        self.contract: Contract | None = None
        self.loop: ControlLoop | None = None
        self.active = False
        self._listener: RobotListener | None = None
        self._commands: CommandPublisher | None = None
        self._inference: Inference | None = None
        self._clockwork: Clockwork | None = None
        self._lead: Lead | None = None
        self._teleop: TeleopListener | None = None
        self._rates: dict[str, int] = {}  # of each topic, messages in the last second
        self._rhythm = Rhythm()
        self._second_is_over = False
        self.stopping = False
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._steps = self.create_publisher(PolicyStep, '~/step', RELIABLE)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._handover = Handover(self, self._guarded)
        self.create_timer(1.0, self._on_second, clock=self._steady)
        self._people = Guards(
            self,
            lambda: self._steady.now().nanoseconds,
            lambda: self.value('enable_timeout_s'),
            self._stopped,
        )
        self._server = EpisodeServer(
            self, self._refusal, self._start, self._cancel, lambda: self.contract.rate_hz
        )

    # Lifecycle. rclpy swallows what these raise, so each reports for itself.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the checkpoint, check it against the robot, warm up; on failure nothing is kept."""
        try:
            self._configure()
        except UserError as error:
            return self._failed(str(error))
        except Exception:  # noqa: BLE001 - reported, and the node stays unconfigured
            return self._failed(traceback.format_exc())
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Arm: from now on goals are taken."""
        result = super().on_activate(state)
        self.active = True
        self._clockwork.start()
        for topic in self._commands.unheard():
            self.get_logger().warning(f'nobody listens to {topic}; is the controller running?')
        for problem in self._commands.problems():
            self.get_logger().warning(problem)
        announce('ready', policy_id=self.value('policy_id'), contract=self.contract.name)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End a running episode with the fallback, then take no more goals."""
        self._disarm('the node was deactivated')
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the checkpoint and the robot."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End a running episode with the fallback, then let go of everything."""
        self._disarm('the node was shut down')
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured."""
        self._disarm('a lifecycle transition failed')
        self._release()
        return super().on_error(state)

    def value(self, name: str) -> Any:
        """Return the value of a parameter."""
        return self.get_parameter(name).value

    def load_policy(self) -> Policy:
        """Load the policy that the parameters name."""
        path = self.value('checkpoint')
        if not path:
            raise QtRosError('parameter checkpoint is empty; give a run folder or a checkpoint')
        return Policy.load(
            Path(path),
            device=self.value('device'),
            threads=self.value('threads'),
            weights=self.value('weights'),
        )

    def stop(self, reason: str) -> None:
        """End a running episode with the fallback, for good; the process is about to end."""
        self.stopping = True
        self._disarm(reason)

    def interrupt(self) -> None:
        """Give up waiting for the robot; the process was told to stop."""
        self.stopping = True

    @property
    def busy(self) -> bool:
        """True while a goal has no result yet."""
        return self._server.busy

    def destroy_node(self) -> None:
        """End a running episode with the fallback and destroy the node."""
        self.stop('the node was destroyed')
        self._release()
        self._server.close()
        super().destroy_node()

    def _configure(self) -> None:
        policy = self.load_policy()
        contract = contract_for(policy.contract_text, self.value('contract'))
        command_rate_hz = self.value('command_rate_hz')
        check_command_rate(contract, command_rate_hz)
        self._listener = RobotListener(self, contract, self._offer)
        timeout_s = self.value('start_timeout_s')
        problems = self._listener.wait(timeout_s, lambda: self.stopping)
        if problems:
            raise QtRosError([f'{problem} (waited {timeout_s:g} s)' for problem in problems])
        self.contract = contract
        self._inference = Inference(contract, policy, self._from_prepared, self._from_decided)
        self._inference.wait()
        slot_ns = None if self.value('use_sim_time') else round(1e9 / command_rate_hz)
        # Commands that are spread over slots are reached within one.
        reached_s = 1 / (contract.rate_hz if slot_ns is None else command_rate_hz)
        self._commands = CommandPublisher(self, contract, QoSProfile(depth=10), reached_s)
        self.loop = ControlLoop(
            contract,
            self._listener.sampler,
            self,
            slot_ns,
            self._listener.gate,
            self.value('takeover_timeout_s'),
            self._listener.listen,
        )
        if prefix := self.value('teleop_prefix'):
            self._teleop = TeleopListener(self, contract, prefix, self._teleoperated)
        self._lead = Lead(contract.rate_hz, slot_ns, self._inference.thinking_s)
        ticks_hz = contract.rate_hz if self._lead.spreads else None
        self._clockwork = Clockwork(
            self, self._steady, command_rate_hz, self._advance, self._clock_jumped, ticks_hz
        )
        self._guard.set_policy_id(policy.policy_id)

    def _failed(self, problem: str) -> TransitionCallbackReturn:
        self._release()
        self.get_logger().error(f'cannot be configured: {problem}')
        announce('refused', message=problem)
        return TransitionCallbackReturn.FAILURE

    def _disarm(self, reason: str) -> None:
        """End a running episode with the fallback and stop the clockwork."""
        self.active = False
        if self.loop is not None and self.loop.goal is not None:
            self.loop.fault(reason, self._now_ns())
            self._commands.flush()
        if self._clockwork is not None:
            self._clockwork.stop()

    def _release(self) -> None:
        if self._inference is not None and not self._inference.close():
            self.get_logger().error('the policy is still deciding; its thread is left behind')
        for part in (self._clockwork, self._teleop, self._commands, self._listener):
            if part is not None:
                part.close()
        self.loop = self.contract = self._clockwork = self._teleop = None
        self._inference = self._commands = self._listener = None

    # What the action server asks for

    def _refusal(self) -> str:
        if not self.active:
            return 'the node is not active; configure and activate it first'
        return self._people.problem()

    def _start(self, goal: Goal) -> None:
        if self.loop is None or not self.active:
            raise QtRosError('the node was deactivated before the episode began')
        self._clockwork.asked()
        self._listener.count_anew()
        lead_ns = round(self._lead.value_s() * 1e9)
        self._clockwork.start(lead_ns)
        self.loop.start(goal, lead_ns)

    def _cancel(self) -> None:
        self._guarded(lambda: self.loop.cancel(self._now_ns()))

    # What the loop causes

    def prepare(self, goal: Goal) -> bool:
        """Let the policy take in the instruction."""
        return self._inference.submit(goal)

    def blocked(self) -> str:
        """Say why nothing may move: the emergency stop, or nobody enables."""
        return self._people.problem()

    def may_begin(self) -> bool:
        """Say whether this is a good moment for tick 0."""
        return self._clockwork.may_begin()

    def think(self, tick: Tick) -> bool:
        """Let the policy decide on a tick."""
        return self._inference.submit(tick)

    def send(self, targets: NDArray[np.float64], stamp_ns: int) -> NDArray[np.float64]:
        """Publish commands; return the targets as they stand in the messages."""
        return self._commands.send(targets, stamp_ns)

    def report(self, record: StepRecord) -> None:
        """Publish what became of a tick."""
        rate_hz, counted = 1e9 / self.loop.motion.slot_ns, self._listener.counted()
        step = step_message(self.contract, record, rate_hz, counted)
        self._steps.publish(step)
        self._rhythm.add(step)
        self._server.feedback(record)

    def noticed(self, began: list[str], ended: list[str]) -> None:
        """Log what began and what ended, once each."""
        if began:
            self.get_logger().warning(f'began: {", ".join(began)}')
        if ended:
            self.get_logger().info(f'over: {", ".join(ended)}')

    def took_over(self, goal: Goal, by_person: bool, now_ns: int) -> None:
        """Mark in recordings who drives."""
        if self._teleop is not None:
            self._teleop.mark(goal, by_person, self.value('policy_id'), now_ns)

    def ended(self, end: EpisodeEnd) -> None:
        """Tell everybody how the episode ended."""
        end = self._rhythm.told_with(end)
        words = f'episode {end.goal.episode_id}: {end.termination}: {end.message}'
        # Not one call: rclpy allows each place one severity only.
        if end.termination == 'fault':
            self.get_logger().error(words)
        else:
            self.get_logger().info(words)
        announce(
            'episode',
            episode_id=end.goal.episode_id,
            outcome=end.outcome,
            termination=end.termination,
            message=end.message,
            steps=end.steps,
            late=end.late,
            limited=end.limited,
            **end.timing,
        )
        self._server.ended(end)
        self._diagnose()

    # What people and the robot cause

    def _stopped(self, reason: str) -> None:
        self._guarded(lambda: self.loop.fault(reason, self._now_ns()))
        self._diagnose()

    def _teleoperated(self, columns: slice, targets: NDArray[np.float64]) -> None:
        self._guarded(lambda: self.loop.teleoperate(columns, targets, self._now_ns()))

    def _offer(self, message: Any, camera: Camera) -> None:
        if self.loop is not None and self.loop.running:
            self._inference.offer(message, camera)

    # The inference thread reports here

    def _from_prepared(self, goal: Goal, error: str) -> None:
        self._handover.leave(lambda: self.loop.on_prepared(goal, error))

    def _from_decided(self, decided: Decided) -> None:
        self._handover.leave(lambda: self._decided(decided, self._now_ns()))

    def _decided(self, decided: Decided, now_ns: int) -> None:
        self._lead.learn((now_ns - decided.tick.t_ns) / 1e9)
        self.loop.on_decided(decided, now_ns)

    # Time

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _advance(self, schedule_ns: int, now_ns: int, tick: bool, slot: bool) -> None:
        self._guarded(lambda: self.loop.on_time(schedule_ns, now_ns, tick, slot))
        self.loop.fresh.listen()
        waiting = self.loop.goal is not None and not self.loop.running
        if waiting and self._clockwork.waited_s() > self.value('start_timeout_s'):
            reasons = '; '.join(self.loop.waiting_for(now_ns))
            self._guarded(lambda: self.loop.fault(f'cannot begin: {reasons}', now_ns))
        if self._second_is_over:
            self._diagnose()

    def _clock_jumped(self, how: str, now_ns: int) -> None:
        self.loop.fresh.sampler = self._listener.forget()
        self._guarded(lambda: self.loop.fault(how, now_ns))

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run a step of the loop, if there is one; what it raises ends only the episode."""
        if self.loop is None:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001 - reported; the fallback goes out
            self.get_logger().error(traceback.format_exc())
            self.loop.fault(f'{type(error).__name__}: {error}', self._now_ns())

    def _on_second(self) -> None:
        self._rates = self._listener.lately() if self._listener else {}
        # In an episode after the next slot: what it takes must not delay one.
        self._second_is_over = self.loop is not None and self.loop.running
        if not self._second_is_over:
            self._diagnose()

    def _diagnose(self) -> None:
        """Publish the state of the loop: every second, and at once when it matters."""
        self._second_is_over = False
        now_ns = self._now_ns()
        unanswered = self._commands.problems() if self._commands else []
        blocked = self._people.problem()
        level, text, values = health(
            self.contract, self.loop, self.active, self._rates, now_ns, unanswered, blocked
        )
        if self._commands is not None:
            values |= self._commands.values() | self._rhythm.values()
        values = {'policy_id': self.value('policy_id'), **self._people.values(), **values}
        name = f'{self.get_fully_qualified_name().lstrip("/")}: control loop'
        self._diagnostics.publish(diagnostics(level, name, text, values, now_ns))


def main() -> int:
    """Run the node until Ctrl-C; exit status 1 if it was to start itself and could not."""

    def start(node: PolicyNode) -> bool:
        if not node.value('autostart'):
            return True
        return node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS

    return run_node(PolicyNode, start)


if __name__ == '__main__':
    sys.exit(main())
