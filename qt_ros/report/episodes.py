"""The parts of a report that show episodes of a dataset: outcomes, film strips, Q-values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from qt_ros.cadence import StepRow
from qt_ros.dataset import Dataset, EpisodeMeta
from qt_ros.report.figures import outcome_bars, q_along_episode
from qt_ros.report.film import film_strip
from qt_ros.report.page import Section

NOT_SUCCESS = ('failure', 'timeout', 'aborted', 'unknown')


def outcomes_section(episodes: Sequence[EpisodeMeta]) -> Section:
    """Show how the episodes of each group ended."""
    groups: dict[str, Counter[str]] = {}
    for episode in episodes:
        groups.setdefault(group_of(episode), Counter())[episode.outcome] += 1
    section = Section(
        'Episodes', 'How the episodes of each stage ended; failures are kept and used.'
    )
    section.figure(outcome_bars(groups), 'outcomes by stage')
    tasks: dict[str, Counter[str]] = {}
    for episode in episodes:
        tasks.setdefault(episode.instruction, Counter())[episode.outcome] += 1
    outcomes = list(dict.fromkeys(o for counts in tasks.values() for o in sorted(counts)))
    rows = [(name, *(counts[o] for o in outcomes)) for name, counts in tasks.items()]
    return section.table(('instruction', *outcomes), rows)


def group_of(episode: EpisodeMeta) -> str:
    """Return the name under which episodes are counted together: folder and driver."""
    folder = Path(episode.bag_uri).parent.name
    driver = 'policy' if episode.source == 'policy' else episode.source
    return f'{folder.replace("_", " ")} ({driver})' if folder else driver


def pick(episodes: Iterable[EpisodeMeta], outcomes: Sequence[str]) -> EpisodeMeta | None:
    """Return the newest episode with one of the outcomes, the first named outcome preferred."""
    found = list(episodes)
    for outcome in outcomes:
        for episode in reversed(found):
            if episode.outcome == outcome:
                return episode
    return None


def film_section(
    section: Section,
    dataset: Dataset,
    episode: EpisodeMeta | None,
    steps: Sequence[StepRow] = (),
) -> None:
    """Add the film strip of an episode, and Q along it where its steps are known."""
    if episode is None:
        return
    contract = dataset.contract
    frames = {
        camera.name: dataset.frames(episode.index, camera.name) for camera in contract.cameras
    }
    who = f'policy {episode.policy_id}' if episode.policy_id else episode.source
    section.heading(f'{episode.outcome}: {episode.instruction}')
    section.figure(
        film_strip(frames, contract.rate_hz, episode.outcome),
        f'film strip of a {episode.outcome}',
        f'episode {episode.index}, {episode.length} steps, {who}',
    )
    steps = [step for step in steps if step.episode_id == episode.episode_id and step.q]
    if steps:
        section.figure(
            q_along_episode(
                np.array([step.step for step in steps]) / contract.rate_hz,
                np.array([step.q for step in steps]),
                steps[0].dims,
            ),
            'Q of the chosen bins over time',
            'Q of the chosen bin of each action dimension along this episode.',
        )
