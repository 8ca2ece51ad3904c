"""On small tables the learned Q is the one that exact iteration gives."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from made_caches import write_cache

from training.cache import CacheAction
from training.data import Replay
from training.learner import Learner
from training.model import QTransformer

GAMMA = 0.8
STATES = 4


def mdp(counts):
    """A deterministic chain: the right bins lead on, others nowhere, back, or to an end.

    Returns next state, reward and end, each (STATES, *counts).
    """
    after = np.zeros((STATES, *counts), int)
    reward = np.zeros((STATES, *counts))
    ended = np.zeros((STATES, *counts), bool)
    for s, *action in product(range(STATES), *map(range, counts)):
        at = (s, *action)
        good = all(action[i] == (s + 1 + i) % n for i, n in enumerate(counts))
        after[at] = min(s + 1, STATES - 1) if good else (s if action[-1] else 0)
        ended[at] = (good and s == STATES - 1) or sum(action) == sum(counts) - len(counts)
        reward[at] = float(good and s == STATES - 1)
    first = (1, *(0 for _ in counts))
    reward[first], ended[first] = 0.3, True  # a tempting way out
    return after, reward, ended


def value_iteration(after, reward, ended):
    """Return the exact Q* (STATES, *counts)."""
    q = np.zeros(reward.shape)
    for _ in range(500):
        best = q.reshape(STATES, -1).max(1)
        q = reward + GAMMA * np.where(ended, 0, best[after])
    return q


def exact_tables(q, target):
    """Return Q of every prefix, one (STATES, *counts[:i]) per dimension i.

    Per dimension it is the best that the later ones can make of it. n-step skips these maxima:
    what is left is the mean over the actions of the data, which here holds each of them once.
    """
    over = np.max if target == 'per_dim' else np.mean
    later = range(q.ndim - 1, 1, -1)
    tables = [q]
    for axis in later:
        tables.append(over(tables[-1], axis=axis))
    return tables[::-1]


def write_mdp(path, counts, after, reward, ended, best):
    """Write each transition as an episode of its own; the next row does the best there is."""
    eye = np.eye(STATES)
    episodes = []
    for s, *action in product(range(STATES), *map(range, counts)):
        at = (s, *action)
        over = ended[at]
        rows = [action] if over else [action, best[after[at]]]
        gain, end = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.uint8)
        gain[0], end[0] = reward[at], over
        episodes.append(
            {
                'state': eye[[s]] if over else eye[[s, after[at]]],
                'action': np.array(rows, float),
                'outcome': 'failure' if over else 'timeout',  # the second row is cut off
                'reward': gain,
                'terminated': end,
            }
        )
    action = tuple(CacheAction(f'a{i}', 0.0, n - 1.0, n) for i, n in enumerate(counts))
    return write_cache(path, episodes, action=action, cameras={}, size=STATES), len(episodes)


@pytest.mark.parametrize(
    ('counts', 'target', 'error'),
    [
        ((3, 2), 'per_dim', 'cross_entropy'),
        ((3, 2), 'n_step', 'cross_entropy'),
        ((2, 3, 2), 'per_dim', 'cross_entropy'),
        ((2, 3, 2), 'n_step', 'squared'),
        ((3, 2), 'per_dim', 'hl_gauss'),
    ],
)
def test_learned_q_converges_to_the_exact_one(tmp_path, small_config, counts, target, error):
    after, reward, ended = mdp(counts)
    exact = value_iteration(after, reward, ended)
    best = np.stack(np.unravel_index(exact.reshape(STATES, -1).argmax(1), counts), axis=1)
    cache, number = write_mdp(tmp_path / 'mdp', counts, after, reward, ended, best)
    batch_size = number
    config = small_config(
        'model.window=1', 'model.width=48', 'model.layers=1', 'data.segment=1',
        f'data.batch={batch_size}', 'loss.alpha=0', 'loss.monte_carlo=false',
        f'loss.gamma={GAMMA}', f'loss.error={error}', f'loss.target={target}',
        f'model.atoms={51 if error == "hl_gauss" else 1}', 'optim.lr=0.004', 'optim.ema=0.9',
        'optim.steps=1000', 'optim.warmup_steps=20', 'model.output_bias=-1',
    )  # fmt: skip
    replay = Replay(
        [cache],
        config.data,
        window=1,
        gamma=GAMMA,
        text_encoder=config.model.text_encoder,
        text_size=config.model.text_size,
    )
    torch.manual_seed(0)
    learner = Learner(QTransformer(config.model, replay.signature), config, torch.device('cpu'))
    everything = (np.arange(number), np.zeros(number, int), np.zeros((0, number, 2), int))
    batch = replay.gather(*everything)
    for step in range(config.optim.steps):
        learner.update(batch, step)
    model = learner.target
    with torch.no_grad():
        text = batch.text[:STATES]
        frames = model.encode_frames({}, torch.eye(STATES), text).unsqueeze(1)
        present = torch.ones(STATES, 1, dtype=torch.bool)
        for action in product(*map(range, counts)):
            bins = torch.tensor([action]).expand(STATES, len(counts))
            q = model.q(model.logits(frames, present, text, bins)).numpy()
            for dim, table in enumerate(exact_tables(exact, target)):
                wanted = table[(slice(None), *action[: dim + 1])]
                assert np.abs(q[:, dim, action[dim]] - wanted).max() < 0.03
        greedy, _ = model.greedy(frames, present, text)
    if target == 'per_dim':  # n-step's early dimensions rank actions by how the data went on
        values = exact[(np.arange(STATES), *greedy.T.numpy())]
        assert np.allclose(values, exact.reshape(STATES, -1).max(1), atol=0.03)
