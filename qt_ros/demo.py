"""The whole loop on the simulated robot: what `make demo` runs.

1. A scripted teleoperator demonstrates two tasks, and makes clumsy attempts most of which fail.
2. The converter makes a dataset of both. A random operator's attempts are counted beside it.
3. A small Q-Transformer learns from pixels, joint positions and the instruction.
4. It drives the arm over topics in real time; its attempts are recorded, judged and appended.
5. It is trained further on everything and drives again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qt_ros.contract import Contract
from qt_ros.loop import Attempt, Loop, Settings, record, success_rate
from qt_ros.loop.attempts import bags_of
from qt_ros.presets import preset_path
from qt_ros.progress import Tasks
from qt_ros.report import build_report
from qt_ros.resources import resource

CONTRACT = 'config/robots/block_arm.yaml'


@dataclass(frozen=True)
class DemoPlan:
    """How much of everything; the sizes fit 2 cores and a quarter of an hour."""

    demonstrations: int = 400  # expert attempts, both tasks taking turns
    noisy: int = 150  # clumsy attempts; one in three succeeds by luck
    random: int = 20  # attempts of knowing nothing; all that they tell is a rate near 0
    drive_episodes: int = 24  # attempts that measure a round; 24 give a 95% interval of +-15%
    train_steps: int = 2200  # of round 1, in batches of 64: about 14 passes over the data
    more_steps: int = 1000  # of round 2, which starts from round 1
    more_lr: float = 4e-4  # of round 2: a network that works already needs smaller steps
    max_duration_s: float = 7.0  # of an attempt; an expert needs 2 to 4 s
    preset: str = 'tiny'
    instructions: tuple[str, ...] = (  # both start alike: only the words say which is asked for
        'push the red block to the left',
        'push the red block to the right',
    )
    # First scene of each kind of attempt: no scene is ever seen twice.
    expert_seed: int = 0
    noisy_seed: int = 1_000_000
    random_seed: int = 2_000_000
    drive_seed: int = 9_000_000


def run_demo(root: Path, plan: DemoPlan, tasks: Tasks) -> dict[str, Any]:
    """Run the loop into the folder `root` and return what its summary.json says.

    What `root` held before is moved aside, never deleted. Raises QtRosError when a stage fails.
    """
    move_aside(root)
    contract_path = resource(CONTRACT)
    loop = Loop(
        root=root,
        contract=Contract.load(contract_path),
        dataset=root / 'dataset',
        settings=Settings(
            instructions=plan.instructions,
            drive_episodes=plan.drive_episodes,
            max_duration_s=plan.max_duration_s,
            preset=preset_path(plan.preset),
            further=(f'optim.lr={plan.more_lr}',),
            drive_seed=plan.drive_seed,
        ),
        tasks=tasks,
    )

    def teleoperate(name: str, mode: str, episodes: int, seed: int, title: str) -> list[Attempt]:
        if not episodes:
            return []
        with loop.stage(f'record_{name}'), tasks(title, episodes) as task:
            return record(
                contract_path,
                f'{mode}:{episodes}',
                plan.instructions,
                loop.bags(name),
                loop.logs(name),
                seed=seed,
                max_duration_s=plan.max_duration_s,
                task=task,
            )

    expert = teleoperate(
        'demonstrations', 'expert', plan.demonstrations, plan.expert_seed, 'Demonstrations'
    )
    noisy = teleoperate('noisy', 'noisy', plan.noisy, plan.noisy_seed, 'Clumsy attempts')
    chance = teleoperate('random', 'random', plan.random, plan.random_seed, 'Random attempts')
    loop.convert('demonstrations', bags_of([*expert, *noisy]))
    loop.round(1, plan.train_steps)
    loop.round(2, plan.more_steps)
    summary = loop.summary(random_success_rate=rate(chance), expert_success_rate=rate(expert))
    build_report(root)
    return summary


def rate(attempts: list[Attempt]) -> float | None:
    """Return the share of attempts that succeeded; None if there were none."""
    successes, counted = success_rate(attempts)
    return round(successes / counted, 4) if counted else None


def move_aside(root: Path) -> Path | None:
    """Rename a folder that holds something to NAME.<time of its last change>; return the name."""
    if not root.exists() or not any(root.iterdir()):
        return None
    stamp = time.strftime('%Y%m%d-%H%M%S', time.localtime(root.stat().st_mtime))
    aside = root.with_name(f'{root.name}.{stamp}')
    number = 1
    while aside.exists():
        number += 1
        aside = root.with_name(f'{root.name}.{stamp}.{number}')
    root.rename(aside)
    return aside
