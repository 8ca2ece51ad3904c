"""The simulated robot in process: the contract, ticks, decoders and limits of the live system.

    t_k        observation o_k: the newest samples with stamps <= t_k
    + latency  the command decided on it reaches the controllers
    t_k+1      observation o_k+1

Sensors run at their own rates with a phase drawn per episode, so observations are as old as on the
live robot: images up to 50 ms, joint states up to 20 ms. Images pass the same JPEG.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qt_ros.commands import initial_targets
from qt_ros.contract import Contract
from qt_ros.errors import SimError
from qt_ros.observation import Observation, ObservationSampler, build_observation
from qt_ros.safety import Limited, Limiter
from qt_ros.sim import sensors
from qt_ros.sim.expert import ArmState
from qt_ros.sim.scene import JOINTS, STEP_NS
from qt_ros.sim.world import BlockWorld

LATENCY_S = 0.03
SETTLE_NS = 100_000_000  # between the reset and tick 0: blocks come to rest, sensors start
KEEP_NS = 1_000_000_000


def check_contract(contract: Contract) -> None:
    """Raise SimError with everything in a contract that the simulated robot does not have."""
    state_topics = (sensors.JOINTS_TOPIC, sensors.REFERENCE_TOPIC)
    asked = {
        'camera topic': [camera.topic for camera in contract.cameras],
        'state topic': [stream.topic for stream in contract.state],
        'command topic': [action.topic or 'next_state' for action in contract.action],
        'arm joint': [
            dim.field
            for action in contract.action
            if action.topic == sensors.ARM_TOPIC
            for dim in action.dims
        ],
    }
    known = {
        'camera topic': tuple(sensors.CAMERA_TOPICS),
        'state topic': state_topics,
        'command topic': (sensors.ARM_TOPIC, sensors.GRIPPER_TOPIC),
        'arm joint': JOINTS,
    }
    problems = [
        f"the simulated robot has no {what} '{name}'; allowed: {', '.join(known[what])}"
        for what, names in asked.items()
        for name in names
        if name not in known[what]
    ]
    if problems:
        raise SimError(problems)


class BlockArmEnv:
    """Steps the block world tick by tick, as a policy on the live robot would see it."""

    def __init__(
        self, contract: Contract, latency_s: float = LATENCY_S, world: BlockWorld | None = None
    ) -> None:
        """latency_s: from a tick to the moment its command arrives, less than a period [s]."""
        check_contract(contract)
        self._latency_ns = round(latency_s * 1e9)
        if not 0 <= self._latency_ns < contract.period_ns:
            raise SimError(
                f'latency of {latency_s} s; allowed: 0 to less than the period of '
                f'{contract.period_ns / 1e9} s'
            )
        self.contract = contract
        self.world = world if world is not None else BlockWorld()
        self.seed = 0
        self._limiter = Limiter(contract)
        self._joint_rows, self._gripper_row = _command_rows(contract)

    def reset(self, instruction: str, seed: int | None = None) -> Observation:
        """Start an episode; return o_0. `self.seed` holds the seed that was used."""
        world = self.world
        self.seed = world.reset(instruction, seed)
        phases = np.random.default_rng(self.seed).integers(0, 10**9, 2) // STEP_NS * STEP_NS
        self._camera_phase_ns = int(phases[0])
        self._state_phase_ns = int(phases[1])
        self._sampler = ObservationSampler(self.contract, KEEP_NS)
        self.t0_ns = world.time_ns + SETTLE_NS
        self.step_count = 0
        observation = self._observe(self.t0_ns)
        self.targets = initial_targets(self.contract, observation)
        self._limiter.reset(self.targets)
        return observation

    def step(self, targets: np.ndarray) -> Observation:
        """Send absolute targets (A,) for the current tick, in the order of the contract's action
        dimensions, and return the next observation. `self.targets` holds what was sent, `limited`
        why it differs.
        """
        limited = self._limiter.limit(targets, self.contract.period_ns / 1e9)
        self.limited: Limited = limited
        self.targets = limited.targets
        arrives_ns = self.contract.tick_ns(self.t0_ns, self.step_count) + self._latency_ns
        self.step_count += 1
        next_ns = self.contract.tick_ns(self.t0_ns, self.step_count)
        return self._observe(next_ns, (arrives_ns, self._command))

    @property
    def tick_ns(self) -> int:
        """Return the time of the current tick (ns)."""
        return self.contract.tick_ns(self.t0_ns, self.step_count)

    def arm_state(self) -> ArmState:
        """Return what an operator is shown at the current tick."""
        world = self.world
        return ArmState(world.joint_positions, world.arm_reference, world.gripper, world.truth())

    def full_targets(self, command: np.ndarray) -> np.ndarray:
        """Return an operator's command (7,) as targets (A,) in the contract's order."""
        targets = np.empty(len(self.contract.action_dims))
        for joint, row in self._joint_rows.items():
            targets[row] = command[joint]
        if self._gripper_row is not None:
            targets[self._gripper_row] = command[6]
        return targets

    def _command(self) -> None:
        """Hand the targets to the controllers; joints that the contract lacks stay as they are."""
        arm = self.world.arm_target
        for joint, row in self._joint_rows.items():
            arm[joint] = self.targets[row]
        self.world.set_arm_target(arm, self.contract.period_ns / 1e9)
        if self._gripper_row is not None:
            self.world.set_gripper(self.targets[self._gripper_row])

    def _observe(
        self, tick_ns: int, command: tuple[int, Callable[[], None]] | None = None
    ) -> Observation:
        """Run the world up to a tick and return the observation of that tick.

        Only the newest capture before the tick is taken: the others could not be seen.
        """
        cameras = _newest(tick_ns, self._camera_phase_ns, sensors.CAMERA_PERIOD_NS)
        states = _newest(tick_ns, self._state_phase_ns, sensors.STATE_PERIOD_NS)
        events = [(cameras, self._capture_cameras), (states, self._capture_states)]
        events += [command] if command is not None else []
        for at_ns, happens in sorted(events, key=lambda event: event[0]):
            if at_ns >= self.world.time_ns:  # else it was taken for an earlier tick
                self._run_to(at_ns)
                happens()
        self._run_to(tick_ns)
        samples = self._sampler.sample(tick_ns)
        if samples is None:
            missing = ', '.join(self._sampler.missing(tick_ns))
            raise SimError(f'no sample of {missing} yet at tick {self.step_count}')
        return build_observation(self.contract, tick_ns, samples)

    def _run_to(self, time_ns: int) -> None:
        self.world.advance(max(0, (time_ns - self.world.time_ns) // STEP_NS))

    def _capture_cameras(self) -> None:
        for camera in self.contract.cameras:
            name = sensors.CAMERA_TOPICS[camera.topic]
            message = sensors.image(self.world, name, camera.size)
            self._sampler.add(camera.topic, self.world.time_ns, message)

    def _capture_states(self) -> None:
        messages = {
            sensors.JOINTS_TOPIC: sensors.joint_states,
            sensors.REFERENCE_TOPIC: sensors.controller_reference,
        }
        for topic in {stream.topic for stream in self.contract.state}:
            self._sampler.add(topic, self.world.time_ns, messages[topic](self.world))


def _newest(time_ns: int, phase_ns: int, period_ns: int) -> int:
    """Return the newest time phase + n * period that is not after a time (ns)."""
    return time_ns - (time_ns - phase_ns) % period_ns


def _command_rows(contract: Contract) -> tuple[dict[int, int], int | None]:
    """Return {joint: row of its dimension} and the row of the gripper's, None without one."""
    joints: dict[int, int] = {}
    gripper = None
    row = 0
    for action in contract.action:
        for dim in action.dims:
            if action.topic == sensors.ARM_TOPIC:
                joints[JOINTS.index(dim.field)] = row
            else:
                gripper = row
            row += 1
    return joints, gripper
