"""Rounds of the loop: train on everything, drive, add what was driven to the dataset.

    round 1   train on demonstrations and failures -> run 1 -> drive -> bags -> dataset
    round 2   train run 1 further on all of it     -> run 2 -> drive -> bags -> dataset
    ...

Driving measures the policy and gathers the next round's data in one. `demo` and `loop` share this.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qt_ros.cadence import CADENCE_KEYS, cadence, read_steps
from qt_ros.contract import Contract
from qt_ros.dataset import Dataset
from qt_ros.errors import QtRosError
from qt_ros.loop.attempts import Attempt, bags_of, success_rate
from qt_ros.loop.driving import drive
from qt_ros.loop.learning import learn
from qt_ros.progress import Tasks
from qt_ros.stats import wilson
from training.cache import TRAINABLE


@dataclass(frozen=True)
class Settings:
    """What every round of a loop has in common."""

    instructions: tuple[str, ...]
    drive_episodes: int
    max_duration_s: float  # of an attempt
    preset: Path | None  # of the first training; None: the settings of the run to start from
    overrides: tuple[str, ...] = ()  # key=value, on top of it
    further: tuple[str, ...] = ()  # the same, where training goes on from an earlier run
    drive_seed: int = 9_000_000  # first scene; far from those of demonstrations
    workers: int = 2  # that convert


@dataclass(frozen=True)
class Round:
    """What went into a policy and how it did."""

    round: int
    demonstrations: int  # successful episodes of the teleoperator that it was trained on
    failures: int  # the teleoperator's other episodes
    autonomous: int  # a policy's own episodes
    transitions: int  # rows of all of them
    train_seconds: float
    success_rate: float
    episodes: int  # driven to measure it
    interval95: tuple[float, float]


@dataclass
class Loop:
    """A folder with everything that a loop makes:

    bags/NAME/  dataset/  round_N/ (training runs)  logs/NAME/  summary.json  report.html
    """

    root: Path
    contract: Contract
    dataset: Path
    settings: Settings
    tasks: Tasks
    run: Path | None = None  # newest trained policy
    rounds: list[Round] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # of each stage
    driven: list[Attempt] = field(default_factory=list)  # in the newest round

    def bags(self, name: str) -> Path:
        """Return the folder of a stage's recordings."""
        return self.root / 'bags' / name

    def logs(self, name: str) -> Path:
        """Return the folder of a stage's logs."""
        return self.root / 'logs' / name

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take the time of a stage."""
        begin_s = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - begin_s, 2)

    def convert(self, name: str, bags: Sequence[Path]) -> dict[str, Any]:
        """Append recordings to the dataset; raises QtRosError if nothing could be used."""
        from qt_ros.bags.converter import FAILED, convert

        with self.stage(f'convert_{name}'), self.tasks(f'Converting {name}', None) as task:
            result = convert(
                bags,
                self.contract,
                self.dataset,
                workers=self.settings.workers,
                progress=lambda at: task.update(at['done'], at['total'], f'{at["rows"]} rows'),
            )
        if result.status == FAILED:
            raise QtRosError([f'{name}: nothing could be converted', *problems(result.report)])
        return result.report

    def round(self, number: int, steps: int | None) -> Round:
        """Train (not in round 0, which measures the given run), drive, and keep what was driven.

        steps: of training; None: as the settings say.
        """
        counts = count_episodes(self.dataset)
        train_seconds = self._train(number, steps) if number else 0.0
        self._drive(number)
        successes, episodes = success_rate(self.driven)
        low, high = wilson(successes, episodes)
        self.convert(f'round_{number}', bags_of(self.driven))
        result = Round(
            round=number,
            **counts,
            train_seconds=round(train_seconds, 1),
            success_rate=round(successes / episodes, 4),
            episodes=episodes,
            interval95=(round(low, 4), round(high, 4)),
        )
        self.rounds.append(result)
        return result

    def _train(self, number: int, steps: int | None) -> float:
        from training.config import load_config

        overrides = [*self.settings.overrides]
        if self.run is not None:
            overrides += self.settings.further
        if steps is not None:
            overrides.append(f'optim.steps={steps}')
        preset = self.run / 'config.json' if self.run is not None else self.settings.preset
        config = load_config(preset, overrides)
        out = self.root / f'round_{number}'
        with self.stage(f'train_{number}'):
            result = learn(
                [self.dataset],
                out,
                config,
                self.tasks,
                title=f'Training, round {number}',
                init_from=self.run,
            )
        if result.stopped:
            raise KeyboardInterrupt
        self.run = out
        return result.seconds

    def _drive(self, number: int) -> None:
        name, settings = f'round_{number}', self.settings
        assert self.run is not None  # round 0 comes with one, later rounds have trained one
        title = f'Driving in real time, round {number}'
        with self.stage(f'drive_{number}'), self.tasks(title, settings.drive_episodes) as task:
            self.driven = drive(
                self.run,
                settings.instructions,
                settings.drive_episodes,
                self.bags(name),
                self.logs(name),
                seed=settings.drive_seed + number * settings.drive_episodes,  # fresh scenes
                max_duration_s=settings.max_duration_s,
                task=task,
            )

    def summary(self, **more: Any) -> dict[str, Any]:
        """Write summary.json and return it; its keys are fixed, `more` goes first."""
        steps = read_steps(bags_of(self.driven))
        content = {
            **more,
            'over_ros': True,
            'seconds': {**self.seconds, 'total': round(sum(self.seconds.values()), 2)},
            'rounds': [asdict(each) for each in self.rounds],
            'cadence': cadence(steps) if steps else dict.fromkeys(CADENCE_KEYS),
        }
        path = self.root / 'summary.json'
        temporary = path.with_name(f'.summary.{os.getpid()}')
        temporary.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
        os.replace(temporary, path)
        return content


def count_episodes(dataset: Path) -> dict[str, int]:
    """Count the episodes of a dataset that training uses, and their rows."""
    used = [episode for episode in Dataset(dataset).episodes if episode.outcome in TRAINABLE]
    own = [episode for episode in used if episode.source == 'policy']
    demonstrations = [e for e in used if e.source != 'policy' and e.outcome == 'success']
    return {
        'demonstrations': len(demonstrations),
        'failures': len(used) - len(own) - len(demonstrations),
        'autonomous': len(own),
        'transitions': sum(episode.length for episode in used),
    }


def problems(report: dict[str, Any]) -> list[str]:
    """Return what a conversion report complains about, each with its bag."""
    found = [f'{bag["bag"]}: {text}' for bag in report['per_bag'] for text in bag['problems']]
    return [*report['labels']['problems'], *found]
