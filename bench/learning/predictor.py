"""Q as a predictor of success: told before an episode, and by its last frame.

The paper uses Q as an affordance: is this worth trying? Episodes that no training has seen are
judged by Q of the greedy action at their first and at their last observation. Asked about with
their own instruction, they succeeded or failed; asked about with another one, they cannot have
done it. The threshold is the one with the best F1 on validation episodes, another set again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench.learning import multitask
from bench.learning.rivals import HALF, QUICK, SHARED
from bench.learning.statistics import precision_recall_f1
from bench.learning.study import Method, Row, Study
from qt_ros.resources import resource
from training.cache import Cache, CacheEpisode
from training.policy import Policy

COLUMNS = (
    *('task', 'moment', 'precision', 'recall', 'f1', 'f1_always_yes'),
    *('threshold', 'episodes', 'positives'),
)
STEPS = 6000
OWN, OTHER = 'own instruction', 'own and other instructions'
METHODS = (
    Method('as_is', 'without relabelling', HALF),
    Method('relabelled', 'a quarter relabelled', (*HALF, 'data.relabel_fraction=0.25')),
)

NOTES = """
Data as in the study of five kinds of tasks, 6000 steps of training. Precision, recall and F1 of
"Q of the greedy action is above the threshold" against whether the episode succeeded, on test
episodes; the threshold has the best F1 on validation episodes. *f1_always_yes* is what claiming
success every time would give.
*Own instruction*: half of the episodes succeeded; at the first observation nothing tells a clumsy
operator from an expert, so no predictor can do well there. *Own and other instructions*: every
episode is asked about once more, with another task's instruction, which it cannot have done.

Read so far (one seed): at the last observation Q tells what succeeded from what failed, and to a
lesser degree which task it was that succeeded. Relabelling, whose episodes say just that another
task was not done, does not improve on it: the two differ by less than a dozen of the episodes.
"""


def study(quick: bool = False) -> Study:
    """Return the study; its data are those of `multitask`."""
    steps = 12 if quick else STEPS
    language = multitask.LANGUAGE
    return Study(
        name='predictor',
        title='Q as a predictor of success',
        preset=resource('config/training/tiny.yaml'),
        overrides=(*SHARED, *language, *(QUICK if quick else ()), f'optim.steps={steps}'),
        methods=METHODS,
        make_data=partial(multitask.make_data, quick),
        evaluate=judge,
        columns=COLUMNS,
        data='multitask',
        recipe=multitask.recipe(quick),
        notes=NOTES,
    )


@dataclass(frozen=True)
class Asked:
    """Q of episodes at a moment, and what came of them."""

    q: np.ndarray  # (N,)
    success: np.ndarray  # (N,) bool
    own: np.ndarray  # (N,) bool, asked about with their own instruction


@dataclass(frozen=True)
class _Frame:
    images: dict[str, np.ndarray]
    state: np.ndarray


def judge(run: Path, data: Path, seed: int) -> list[Row]:
    """Return precision, recall and F1 by moment and by what was asked."""
    policy = Policy.load(run, threads=1)
    rows: list[Row] = []
    for moment in ('start', 'end'):
        validation = ask(policy, Cache.open(data / 'validation'), moment, seed)
        test = ask(policy, Cache.open(data / 'test'), moment, seed)
        for task in (OWN, OTHER):
            known, new = _part(validation, task), _part(test, task)
            threshold = best_threshold(known.q, known.success)
            rows.append({'task': task, 'moment': moment, **_figures(new, threshold)})
    return rows


def ask(policy: Policy, cache: Cache, moment: str, seed: int) -> Asked:
    """Ask about every episode twice: with its own and with another trained instruction."""
    rng = np.random.default_rng([seed, 3])
    texts = cache.meta.instructions
    q, success, own = [], [], []
    for episode in cache.episodes:
        other = (episode.instruction + rng.integers(1, len(texts))) % len(texts)
        for number in (episode.instruction, int(other)):
            q.append(_q(policy, cache, episode, texts[number], moment))
            own.append(number == episode.instruction)
            success.append(own[-1] and episode.outcome == 'success')
    return Asked(np.array(q), np.array(success), np.array(own))


def _q(policy: Policy, cache: Cache, episode: CacheEpisode, text: str, moment: str) -> float:
    """Return Q of the greedy action at an episode's first or last observation."""
    last = episode.start if moment == 'start' else episode.stop - 1
    first = max(episode.start, last + 1 - policy.model.config.window)
    policy.reset(text)
    for row in range(first, last + 1):
        images = {name: np.asarray(frames[row]) for name, frames in cache.images.items()}
        decision = policy.act(_Frame(images, np.asarray(cache.state[row])))
    return float(decision.q[-1])


def best_threshold(q: np.ndarray, success: np.ndarray) -> float:
    """Return the threshold with the best F1 for `q >= threshold`; the highest of equals."""
    candidates = np.unique(q)
    return float(max(candidates, key=lambda at: (_scores(q, success, at)[2], at)))


def _part(asked: Asked, task: str) -> Asked:
    keep = asked.own if task == OWN else np.ones_like(asked.own)
    return Asked(asked.q[keep], asked.success[keep], asked.own[keep])


def _scores(q: np.ndarray, success: np.ndarray, threshold: float) -> Sequence[float]:
    claimed = q >= threshold
    hits = int((claimed & success).sum())
    return precision_recall_f1(
        hits, int((claimed & ~success).sum()), int((~claimed & success).sum())
    )


def _figures(asked: Asked, threshold: float) -> dict[str, str | int | float]:
    precision, recall, f1 = _scores(asked.q, asked.success, threshold)
    share = float(asked.success.mean())
    return {
        'precision': precision,
        'recall': recall,
        'f1': f1,
        'f1_always_yes': 2 * share / (1 + share),
        'threshold': threshold,
        'episodes': len(asked.q),
        'positives': int(asked.success.sum()),
    }
