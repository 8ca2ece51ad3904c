"""Train on a cache of the simulated robot, evaluate in process, print what it cost and brought.

    python bench/calibrate.py --cache /tmp/cache --preset config/training/tiny.yaml alpha=4

CPU time is that of this process; one thread, so that runs on a busy machine can be compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from qt_ros.contract import Contract
from qt_ros.sim.env import BlockArmEnv
from qt_ros.sim.rollout import evaluate
from training.checkpoint import find, read_state
from training.config import load_config
from training.policy import Policy
from training.train import train

SCENES = 9_000_000  # first seed of the evaluation; demonstrations stay far below


class Timed:
    """A policy that keeps the CPU time of each decision."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.seconds = policy, []

    def reset(self, instruction: str) -> None:
        """Begin an episode."""
        self.policy.reset(instruction)

    def act(self, observation):
        """Decide, on the clock."""
        began = time.process_time()
        decision = self.policy.act(observation)
        self.seconds.append(time.process_time() - began)
        return decision


def measure(run: Path, episodes: int, scenes: int) -> dict[str, object]:
    """Return success by instruction and the milliseconds per decision."""
    policy = Policy.load(run)
    policy.warm_up()
    timed, contract = Timed(policy), Contract.parse(policy.contract_text)
    results = evaluate(
        timed, contract, policy.instructions, episodes, scenes, env=BlockArmEnv(contract)
    )
    by_task = {
        task: sum(r.success for r in results if r.instruction == task)
        for task in policy.instructions
    }
    return {
        'success': sum(by_task.values()),
        'episodes': episodes,
        'by_task': list(by_task.values()),
        'steps': round(float(np.mean([r.steps for r in results if r.success] or [0])), 1),
        'ms_per_act': round(1e3 * float(np.median(timed.seconds)), 2),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cache', type=Path, required=True, nargs='+')
    parser.add_argument('--preset', type=Path, default=Path('config/training/tiny.yaml'))
    parser.add_argument('--out', type=Path, help='run folder; default: a temporary one')
    parser.add_argument('--episodes', type=int, default=60)
    parser.add_argument('--scenes', type=int, default=SCENES, help='first seed of the evaluation')
    parser.add_argument('--resume', action='store_true', help='go on with the run in --out')
    parser.add_argument('--each', action='store_true', help='evaluate every checkpoint')
    parser.add_argument('overrides', nargs='*', help='key=value')
    args = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    config = load_config(args.preset, [*args.overrides, 'optim.threads=1', 'optim.keep=0'])
    with tempfile.TemporaryDirectory() as temporary:
        run = args.out or Path(temporary) / 'run'
        began = time.process_time()
        done = read_state(find(run))['step'] if args.resume else 0
        result = train(args.cache, run, config, resume=args.resume)
        minutes = (time.process_time() - began) / 60
        newest = find(run)
        checkpoints = sorted(newest.parent.iterdir()) if args.each else [newest]
        weights = sum(p.numel() for p in Policy.load(run).model.parameters())
        row = {
            'overrides': ' '.join(args.overrides),
            'weights': weights,
            # A run that a signal cut short is not a measurement of its preset.
            'stopped': result.stopped,
            'steps_here': result.steps - done,
            'cpu_min_here': round(minutes, 2),
            'transitions_per_cpu_s': round(
                (result.steps - done) * config.data.batch / minutes / 60
            ),
            **{k: round(result.metrics[k], 3) for k in ('q_success', 'q_failure', 'gap')},
        }
        for folder in checkpoints:
            figures = {'checkpoint': folder.name, **measure(folder, args.episodes, args.scenes)}
            print(json.dumps({**row, **figures}), flush=True)


if __name__ == '__main__':
    main()
