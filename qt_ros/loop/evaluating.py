"""Measure a policy on the simulated robot, in process or over topics, and keep what it showed.

RUN/evaluations/<policy_id>.json   {policy_id, over_ros, episodes, success_rate, interval95,
                                    tasks {instruction: {episodes, success_rate, interval95}},
                                    films, dims, rate_hz, cadence when over topics}
RUN/evaluations/<policy_id>.npz    one success and one failure: frames per camera and q (T, A)
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qt_ros.contract import Contract
from qt_ros.errors import QtRosError
from qt_ros.observation import Observation
from qt_ros.progress import Task
from qt_ros.stats import wilson

if TYPE_CHECKING:
    from qt_ros.sim.rollout import EpisodeResult
    from training.policy import Decision, Policy

FOLDER = 'evaluations'


@dataclass
class Watched:
    """A policy whose current episode is kept: images and Q of the chosen bins per tick."""

    policy: Policy
    images: dict[str, list[np.ndarray]] = field(default_factory=dict)
    q: list[np.ndarray] = field(default_factory=list)

    def reset(self, instruction: str) -> None:
        """Begin an episode."""
        self.policy.reset(instruction)
        self.images, self.q = {}, []

    def act(self, observation: Observation) -> Decision:
        """Decide, and keep what was seen."""
        decision = self.policy.act(observation)
        for camera, image in observation.images.items():
            self.images.setdefault(camera, []).append(image)
        self.q.append(decision.q)
        return decision


def evaluate_in_process(
    run: Path,
    instructions: Sequence[str],
    episodes: int,
    *,
    seed: int,
    max_steps: int,
    task: Task,
) -> dict[str, Any]:
    """Drive fresh scenes with the run's newest checkpoint; return and store what came of it.

    No instructions: those that it was trained on. Raises SimError for tasks that do not exist.
    """
    from qt_ros.sim.rollout import evaluate
    from training.policy import Policy

    policy = Policy.load(run, threads=1)  # like the node; more only get in each other's way
    contract = Contract.parse(policy.contract_text, str(run))
    watched = Watched(policy)
    results: list[EpisodeResult] = []
    films: dict[str, tuple[str, dict[str, np.ndarray]]] = {}

    def on_episode(result: EpisodeResult) -> None:
        results.append(result)
        outcome = 'success' if result.success else 'failure'
        if outcome not in films and watched.q:
            film = {f'{outcome}.q': np.stack(watched.q)}
            film |= {f'{outcome}.images.{n}': np.stack(f) for n, f in watched.images.items()}
            films[outcome] = (result.instruction, film)
        done = sum(each.success for each in results)
        task.update(len(results), episodes, f'{done} successes')

    task.update(0, episodes)
    evaluate(
        watched,
        contract,
        list(instructions) or policy.instructions,
        episodes,
        seed,
        max_steps,
        on_episode,
    )
    outcomes = [(result.instruction, result.success) for result in results]
    summary = {
        'policy_id': policy.policy_id,
        'over_ros': False,
        **rates(outcomes),
        'steps_mean': round(float(np.mean([result.steps for result in results])), 2),
        'ended': {kind: sum(r.ended == kind for r in results) for kind in _kinds(results)},
    }
    kept = {name: array for _, film in films.values() for name, array in film.items()}
    extra = {
        'films': [{'outcome': o, 'instruction': words} for o, (words, _) in films.items()],
        'dims': [dim.name for dim in contract.dims],
        'rate_hz': contract.rate_hz,
    }
    store(run, {**summary, **extra}, kept)
    return summary


def rates(outcomes: Sequence[tuple[str, bool]]) -> dict[str, Any]:
    """Return success rates with intervals, overall and by instruction."""
    if not outcomes:
        raise QtRosError('nothing was evaluated; ask for at least 1 episode')
    tasks = dict.fromkeys(instruction for instruction, _ in outcomes)
    return {
        **_rate([success for _, success in outcomes]),
        'tasks': {task: _rate([won for name, won in outcomes if name == task]) for task in tasks},
    }


def store(run: Path, summary: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Keep an evaluation beside the run; the newest of a policy replaces the one before."""
    # A checkpoint folder inside a run belongs to that run.
    home = run.parent.parent if (run / 'state.json').is_file() else run
    folder = home / FOLDER
    folder.mkdir(exist_ok=True)
    name = summary['policy_id'].replace('/', '_') + ('.ros' if summary['over_ros'] else '')
    temporary = folder / f'.{name}.{os.getpid()}'
    if arrays:
        with temporary.open('wb') as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, folder / f'{name}.npz')
    temporary.write_text(json.dumps(summary, indent=2) + '\n', encoding='utf-8')
    os.replace(temporary, folder / f'{name}.json')


def _rate(successes: Sequence[bool]) -> dict[str, Any]:
    count = sum(successes)
    low, high = wilson(count, len(successes))
    return {
        'episodes': len(successes),
        'success_rate': round(count / len(successes), 4),
        'interval95': [round(low, 4), round(high, 4)],
    }


def _kinds(results: Sequence[EpisodeResult]) -> list[str]:
    return sorted({result.ended for result in results})
