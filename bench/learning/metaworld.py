"""Meta-World MT10 from pixels with a sentence per task: a benchmark that others know.

One network learns all ten tasks from a quarter demonstrations and three quarters failures. Sized
for a CPU: making the data of a seed takes about 10 CPU-minutes, a cell about 30.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from bench.learning.metaworld_data import Plan, write_cache
from bench.learning.metaworld_env import INSTRUCTIONS, MAX_STEPS, REPEAT, MetaWorld
from bench.learning.rivals import CORE, QUICK, SHARED
from bench.learning.study import Row, Study
from qt_ros.resources import resource
from training.policy import Policy

TASKS = tuple(INSTRUCTIONS)
QUICK_TASKS = ('reach-v3', 'drawer-close-v3')
PLAN, QUICK_PLAN = Plan(), Plan(demonstrations=1, failures=1)
STEPS = 10000
EVALUATION = 20  # episodes of each task
METHODS = ('q_transformer', 'bc_all', 'bc_successes', 'bc_balanced')
PER_SEED, PER_TASK = 1_000_000, 50_000  # starts
STARTS = 900_000_000  # first start of evaluations; those of the data stay below

SHARE = PLAN.demonstrations / (PLAN.demonstrations + PLAN.failures)

NOTES = f"""
The ten tasks of MT10 (`metaworld`, version 3 environments), learnt by one network from two 64 px
cameras (`corner2` moved closer, `gripperPOV`), the hand's position and the gripper's opening. No
position of an object or a goal is ever shown. Starts and goals are drawn for every episode, those
of the evaluation from other seeds than the data's. Data of each task: {PLAN.demonstrations}
demonstrations of the scripted expert, whose hand slips now and then, and {PLAN.failures} failed
replays of them, blind and with noise that drifts (standard deviation {PLAN.noise} of the largest
action, correlation {PLAN.correlation} from one action to the next): {SHARE:.0%} of the episodes
succeed. Each action is held for {REPEAT} steps of 80 Hz. An episode ends with the first success,
or after {MAX_STEPS} actions: {MAX_STEPS * REPEAT} steps, where Meta-World's own limit is 500. Half
of each batch are successes for the Q-Transformer, and for one of the clones.
The noise is milder than in the block study, and drifts about what the expert did: in the mean of
all episodes the expert is still there, and cloning them all loses little by it, as in the block
study's pilots with little noise.
Sized for two cores. Published figures are for more data and larger networks, on starts of their
own: compare the rows here with each other.
"""


def study(quick: bool = False) -> Study:
    """Return the study."""
    plan, tasks, steps, number = (
        (QUICK_PLAN, QUICK_TASKS, 12, 1) if quick else (PLAN, TASKS, STEPS, EVALUATION)
    )
    return Study(
        name='metaworld',
        title='Meta-World MT10 from pixels',
        preset=resource('config/training/tiny.yaml'),
        overrides=(*SHARED, *(QUICK if quick else ()), f'optim.steps={steps}'),
        methods=tuple(method for method in CORE if method.name in METHODS),
        make_data=partial(make_data, plan, tasks),
        evaluate=partial(judge, tasks, number),
        recipe=f'{plan} of each of {list(tasks)}',
        notes=NOTES,
    )


def make_data(plan: Plan, tasks: tuple[str, ...], seed: int, folder: Path) -> None:
    """Write the training cache of a seed."""
    write_cache(folder / 'train', plan, tasks, (1 + seed) * PER_SEED, PER_TASK, seed)


def judge(tasks: tuple[str, ...], number: int, run: Path, data: Path, seed: int) -> list[Row]:
    """Let a run's policy try every task from starts that no training has seen."""
    del data
    policy, env = Policy.load(run, threads=1), MetaWorld()
    rows: list[Row] = []
    for row, task in enumerate(tasks):
        first = STARTS + seed * PER_SEED + row * PER_TASK
        steps = [drive(policy, env, task, first + i) for i in range(number)]
        good = [taken for taken in steps if taken is not None]
        rows.append(
            {
                'task': task.removesuffix('-v3'),
                'successes': len(good),
                'episodes': number,
                'steps': round(float(np.mean(good)), 1) if good else 0,
            }
        )
    env.close()
    return rows


def drive(policy: Policy, env: MetaWorld, task: str, start: int) -> int | None:
    """Let a policy drive one episode; return how many decisions it took, None if it failed."""
    policy.reset(INSTRUCTIONS[task])
    observation = env.reset(task, start)
    while not env.over:
        observation = env.step(policy.act(observation).action)
    return env.step_count if env.success else None
