"""Demonstrations and failed attempts in process: many times faster than recording them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from qt_ros.commands import action_from_targets
from qt_ros.contract import Contract
from qt_ros.episode import Episode, Frames
from qt_ros.observation import Observation
from qt_ros.sim.env import BlockArmEnv
from qt_ros.sim.expert import Expert, Operator
from qt_ros.sim.rollout import MAX_STEPS
from qt_ros.sim.tasks import parse


def collect_episodes(
    contract: Contract,
    instructions: Sequence[str],
    episodes: int,
    noise: float,
    seed: int,
    max_steps: int = MAX_STEPS,
) -> Iterator[Episode]:
    """Yield the expert's attempts, the instructions taking turns; scene i has seed `seed + i`.

    Rows obey the rules of the converter: o_k at t_k; a_k is the target sent in (t_k, t_k+1] minus
    the one before it, at k = 0 minus the measured position. An attempt is a failure when the
    operator gives up or loses a block, a timeout after max_steps.
    """
    env = BlockArmEnv(contract)
    expert = Expert(noise=noise, seed=seed)
    for index in range(episodes):
        instruction = instructions[index % len(instructions)]
        yield attempt(env, expert, instruction, seed + index, max_steps)


def attempt(
    env: BlockArmEnv, operator: Operator, instruction: str, seed: int, max_steps: int = MAX_STEPS
) -> Episode:
    """Record one attempt of an operator on the scene of a seed."""
    observation = env.reset(instruction, seed)
    operator.reset(parse(instruction), env.world.joint_positions)
    observations: list[Observation] = []
    actions: list[np.ndarray] = []
    outcome = 'timeout'
    while env.step_count < max_steps:
        observations.append(observation)
        previous = env.targets
        observation = env.step(env.full_targets(operator.act(env.arm_state())))
        actions.append(action_from_targets(env.contract, env.targets, previous))
        if env.world.success():
            outcome = 'success'
        elif operator.finished or env.world.lost():
            outcome = 'failure'
        else:
            continue
        break
    return _episode(env, instruction, outcome, observations, np.array(actions, np.float32))


def _episode(
    env: BlockArmEnv,
    instruction: str,
    outcome: str,
    observations: list[Observation],
    action: NDArray[np.float32],
) -> Episode:
    contract = env.contract
    if contract.terminate_bins is not None:
        done = np.zeros((len(action), 1), np.float32)
        done[-1] = outcome == 'success'
        action = np.concatenate([action, done], axis=1)
    return Episode(
        episode_id=f'{env.seed}-{env.t0_ns}',
        instruction=instruction,
        outcome=outcome,
        source='teleop',
        policy_id='',
        bag_uri='',
        contract_hash=contract.hash,
        start_stamp_ns=env.t0_ns,
        state=np.stack([item.state for item in observations]),
        action=action,
        requested=action.copy(),
        intervention=np.zeros(len(action), np.bool_),
        stamps_ns={
            stream: np.array([item.stamps_ns[stream] for item in observations], np.int64)
            for stream in contract.streams
        },
        valid={
            stream: np.array([item.valid[stream] for item in observations], np.bool_)
            for stream in contract.streams
        },
        images={camera.name: _frames(observations, camera.name) for camera in contract.cameras},
    )


def _frames(observations: list[Observation], camera: str) -> Frames:
    def frames() -> Iterator[NDArray[np.uint8]]:
        return (item.images[camera] for item in observations)

    return frames
