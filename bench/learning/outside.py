"""IQL, CQL and BC of d3rlpy on the block study's episodes: a check by code that is not ours.

python -m bench.learning.outside --seeds 0 1 2        resumable by (method, seed); see --help

They are shown the TRUE state: joints, the arm's reference, the poses of all blocks and which of
the two instructions is meant. That is an easier problem than the Q-Transformer's, which has to
find the blocks in two 64 px images. Episodes, rewards, ends, scenes of the evaluation and the
discount are those of `bench.learning.block`; actions are continuous, the gripper's is rounded.

d3rlpy (Seno and Imai, 2111.03788) wants gymnasium 1.0.0, which Meta-World refuses: it gets a
virtual environment of its own, `make bench-outside` does it.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import d3rlpy
import numpy as np
import torch

from bench.learning.block import MAX_STEPS, PER_SEED, PLANS, QUICK_PLAN, SCENES
from bench.learning.cell import commit, hardware
from bench.learning.noisy_replay import Plan
from bench.learning.places import Cell, locked, read_json
from bench.learning.study import LearningError
from bench.learning.true_state import SeeingEnv, TruePolicy, make_arrays
from qt_ros.contract import Contract
from qt_ros.sim.rollout import evaluate
from qt_ros.sim.tasks import INSTRUCTIONS
from training.checkpoint import write_json

GAMMA = 0.98
STEPS = {'iql': 30_000, 'cql': 8_000, 'bc': 30_000}  # less than 15 CPU-minutes each
EVALUATION = 50  # episodes of each instruction
COLUMNS = (
    *('study', 'method', 'seed', 'task', 'successes', 'episodes', 'steps', 'train_steps'),
    *('cpu_training_s', 'cpu_judging_s', 'commit', 'date', 'hardware', 'torch', 'd3rlpy', 'note'),
)
NOTE = 'sees the true state'


def ready_arrays(folder: Path, plans: dict[str, Plan], seed: int) -> dict[str, np.ndarray]:
    """Return a seed's arrays, making them where they are not there or are of other plans."""
    file, recipe = folder / f'seed_{seed}.npz', f'{plans}'
    with locked(folder / f'seed_{seed}.lock', wait=True):
        if file.exists():
            with np.load(file, allow_pickle=False) as stored:
                if str(stored['recipe']) == recipe:
                    return {name: stored[name] for name in stored.files if name != 'recipe'}
        arrays = make_arrays(plans, seed)
        temporary = folder / f'.seed_{seed}.npz'
        with open(temporary, 'wb') as out:
            np.savez(out, recipe=np.array(recipe), **arrays)
        temporary.replace(file)
    return arrays


def make_algorithm(method: str, robot: Contract) -> Any:
    """Return a d3rlpy algorithm with d3rlpy's settings, but for two.

    IQL has those of its paper for tasks with one reward at the end (AntMaze). CQL compares 4
    actions instead of 10 from each source, which takes half of the time.
    """
    low = np.array([dim.low for dim in robot.dims], np.float32)
    high = np.array([dim.high for dim in robot.dims], np.float32)
    common = {
        'gamma': GAMMA,
        'observation_scaler': d3rlpy.preprocessing.StandardObservationScaler(),
        'action_scaler': d3rlpy.preprocessing.MinMaxActionScaler(low, high),
    }
    configs = {
        'iql': lambda: d3rlpy.algos.IQLConfig(expectile=0.9, weight_temp=10.0, **common),
        'cql': lambda: d3rlpy.algos.CQLConfig(n_action_samples=4, **common),
        'bc': lambda: d3rlpy.algos.BCConfig(batch_size=256, **common),
    }
    return configs[method]().create(device='cpu:0')


def run_cell(cell: Cell, plans: dict[str, Plan], steps: int, episodes: int) -> None:
    """Train one method on one seed and judge it; nothing happens where that was done before.

    Raises LearningError where it was done with other data or for another number of steps.
    """
    made_of = {'data': f'{plans}', 'steps': steps, 'episodes': episodes}
    with locked(cell.folder / 'lock', wait=True):
        if cell.done:
            if read_json(cell.result)['made_of'] != made_of:
                raise LearningError(f'{cell.folder} is of other data or sizes; delete it')
            return
        torch.set_num_threads(1)
        arrays = ready_arrays(cell.out / 'data', plans, cell.seed)
        d3rlpy.seed(cell.seed)
        data = d3rlpy.dataset.MDPDataset(
            *(arrays[name] for name in ('state', 'action', 'reward', 'terminated', 'truncated')),
            action_space=d3rlpy.ActionSpace.CONTINUOUS,
        )
        env = SeeingEnv()
        algorithm = make_algorithm(cell.method, env.contract)
        began = time.process_time()
        algorithm.fit(
            data,
            n_steps=steps,
            n_steps_per_epoch=max(1, steps // 10),
            logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
            experiment_name=str(cell),
            with_timestamp=False,
            show_progress=False,
        )
        trained = time.process_time()
        policy = TruePolicy(algorithm, env, tuple(plans))
        rows = list(_judge(policy, env, tuple(plans), episodes, cell.seed))
        figures = {
            'train_steps': steps,
            'cpu_training_s': round(trained - began, 1),
            'cpu_judging_s': round(time.process_time() - trained, 1),
            'commit': commit(),
            'date': datetime.now(timezone.utc).date().isoformat(),
            'hardware': hardware(),
            'torch': version('torch'),
            'd3rlpy': version('d3rlpy'),
            'note': NOTE,
        }
        rows = [{**row, **figures} for row in rows]
        write_json(cell.result, {'made_of': made_of, 'rows': rows})


def _judge(
    policy: TruePolicy, env: SeeingEnv, instructions: Sequence[str], episodes: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield a row per instruction, on the scenes that the block study evaluates on."""
    for text in instructions:
        first = SCENES + seed * PER_SEED + INSTRUCTIONS.index(text) * 10_000
        results = evaluate(policy, env.contract, [text], episodes, first, MAX_STEPS, env=env)
        good = [result.steps for result in results if result.success]
        yield {
            'task': text,
            'successes': len(good),
            'episodes': len(results),
            'steps': round(float(np.mean(good)), 1) if good else 0,
        }


def write_csv(path: Path, out: Path) -> None:
    """Write the rows of all cells below `out` that are done."""
    done = sorted((out / 'cells' / 'outside').glob('*/seed_*/result.json'))
    cells = [Cell(out, 'outside', at.parts[-3], int(at.parts[-2][5:])) for at in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
        writer.writeheader()
        for cell in cells:
            for row in read_json(cell.result)['rows']:
                writer.writerow(
                    {'study': cell.study, 'method': cell.method, 'seed': cell.seed, **row}
                )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--out', type=Path, default=Path('runs/outside'), help='(%(default)s)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--methods', nargs='+', choices=STEPS, default=list(STEPS))
    parser.add_argument('--csv', type=Path, default=Path('docs/results/outside.csv'))
    parser.add_argument('--quick', action='store_true', help='tiny sizes: to see that it works')
    args = parser.parse_args(arguments)
    plans = dict.fromkeys(PLANS, QUICK_PLAN) if args.quick else PLANS
    cells = [
        Cell(args.out, 'outside', method, seed) for seed in args.seeds for method in args.methods
    ]
    for cell in cells:
        steps, episodes = (20, 1) if args.quick else (STEPS[cell.method], EVALUATION)
        run_cell(cell, plans, steps, episodes)
        write_csv(args.csv, args.out)


if __name__ == '__main__':
    main()
