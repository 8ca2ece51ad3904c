"""Block world, the protocol of the paper's simulation: about 8% successes among noisy replays.

Two tasks, learnt together by one network that is told which: pick up the red block, and put it in
the bin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from bench.learning.block_data import write_cache
from bench.learning.noisy_replay import Plan, noisy_replays
from bench.learning.rivals import CORE, EXTRAS, QUICK, SHARED
from bench.learning.study import Row, Study
from qt_ros.contract import Contract
from qt_ros.episode import Episode
from qt_ros.resources import resource
from qt_ros.sim.env import BlockArmEnv
from qt_ros.sim.rollout import evaluate
from training.policy import Policy

# The longer a task, the less noise it takes to fail: a few replays of each still succeed.
PLANS = {
    'pick up the red block': Plan(episodes=1875, demonstrations=120, noise=0.30),
    'put the red block in the bin': Plan(episodes=1875, demonstrations=120, noise=0.16),
}
QUICK_PLAN = Plan(episodes=4, demonstrations=1, share=0.25, noise=0.5)
STEPS = 3900
EVALUATION = 50  # episodes of each instruction
MAX_STEPS = 60  # of an evaluated episode; the expert takes 16 to pick, 30 for the bin
SCENES = 900_000_000  # first scene of evaluations; those of the data stay below
PER_SEED = 1_000_000  # scenes

NOTES = ''


def study(quick: bool = False) -> Study:
    """Return the study."""
    steps, episodes = (12, 1) if quick else (STEPS, EVALUATION)
    plans = dict.fromkeys(PLANS, QUICK_PLAN) if quick else PLANS
    return Study(
        name='block',
        title='Block world, noisy replays',
        preset=resource('config/training/tiny.yaml'),
        overrides=(*SHARED, *(QUICK if quick else ()), f'optim.steps={steps}'),
        methods=(*CORE, *EXTRAS),
        make_data=partial(make_data, plans),
        evaluate=partial(judge, tuple(plans), episodes),
        recipe=f'{plans}',
        notes=NOTES,
    )


def contract() -> Contract:
    """Return the contract of the simulated arm."""
    return Contract.load(resource('config/robots/block_arm.yaml'))


def make_data(plans: Mapping[str, Plan], seed: int, folder: Path) -> None:
    """Write the training cache of a seed."""
    robot = contract()

    def episodes() -> Iterator[Episode]:
        for row, (instruction, plan) in enumerate(plans.items()):
            scene = (1 + seed) * PER_SEED + row * PER_SEED // len(plans)
            yield from noisy_replays(robot, instruction, plan, scene, seed * 100 + row)

    write_cache(folder / 'train', robot, episodes())


def judge(
    instructions: Sequence[str], episodes: int, run: Path, data: Path, seed: int
) -> list[Row]:
    """Let a run's policy try every instruction on scenes that no training has seen."""
    del data
    return drive(Policy.load(run, threads=1), instructions, episodes, seed)


def drive(
    policy: Policy,
    instructions: Sequence[str],
    episodes: int,
    seed: int,
    name: Callable[[str], str] = str,
) -> list[Row]:
    """Return a row of SUCCESS_COLUMNS per instruction, `episodes` scenes each.

    name: gives the row's task from the instruction.
    """
    robot = Contract.parse(policy.contract_text)
    env = BlockArmEnv(robot)
    rows: list[Row] = []
    for number, instruction in enumerate(instructions):
        scene = SCENES + seed * PER_SEED + number * PER_SEED // len(instructions)
        results = evaluate(policy, robot, (instruction,), episodes, scene, MAX_STEPS, env=env)
        good = [result.steps for result in results if result.success]
        rows.append(
            {
                'task': name(instruction),
                'successes': len(good),
                'episodes': len(results),
                'steps': round(float(np.mean(good)), 1) if good else 0,
            }
        )
    return rows
