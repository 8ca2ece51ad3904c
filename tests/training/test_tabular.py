"""Invariant 5: on small tables the learned Q is the one that exact iteration gives."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from made_mdp import GAMMA, chain, exact_tables, stopping, value_iteration, write_problem

from training.data import Replay
from training.learner import Learner
from training.model import QTransformer

CASES = [
    # problem, window, changes of the loss
    pytest.param(chain((3, 2)), 1, {}, id='two-dims'),
    pytest.param(chain((3, 2)), 1, {'target': 'n_step'}, id='two-dims-n-step'),
    pytest.param(chain((3, 2)), 1, {'error': 'hl_gauss'}, id='two-dims-hl-gauss'),
    pytest.param(chain((2, 3, 2)), 1, {}, id='three-dims'),
    pytest.param(
        chain((2, 3, 2)), 1, {'target': 'n_step', 'error': 'squared'}, id='three-dims-n-step'
    ),
    pytest.param(stopping((3, 2, 2), states=3), 1, {}, id='terminate-dim'),
    pytest.param(
        chain((3, 2), states=3), 2, {'monte_carlo': 'true'}, id='history-padding-monte-carlo'
    ),
]


@pytest.mark.timeout(900)  # half a minute of CPU at most, yet on a busy machine
@pytest.mark.parametrize(('problem', 'window', 'loss'), CASES)
def test_learned_q_converges_to_the_exact_one(tmp_path, small_config, problem, window, loss):
    exact = value_iteration(problem)
    cache, number = write_problem(tmp_path / 'mdp', problem, exact, history=window > 1)
    loss = {'alpha': 0, 'monte_carlo': 'false', 'error': 'cross_entropy', **loss}
    config = small_config(
        f'model.window={window}', 'model.width=48', 'model.layers=1', f'data.segment={window}',
        f'data.batch={number * window}', f'loss.gamma={GAMMA}', 'optim.lr=0.004',
        f'model.atoms={51 if loss["error"] == "hl_gauss" else 1}', 'optim.ema=0.9',
        'optim.steps=1000', 'optim.warmup_steps=20', 'model.output_bias=-1',
        *(f'loss.{name}={value}' for name, value in loss.items()),
    )  # fmt: skip
    replay = Replay(
        [cache], config.data, window=window, gamma=GAMMA, text_encoder='hashed', text_size=16
    )
    torch.manual_seed(0)
    learner = Learner(QTransformer(config.model, replay.signature), config, torch.device('cpu'))
    everything = (np.arange(number), np.zeros(number, int), np.zeros((0, number, 2), int))
    batch = replay.gather(*everything)
    for step in range(config.optim.steps):
        learner.update(batch, step)
    check(learner.target, problem, exact, config.loss.target, batch.text[:1])


def check(model, problem, exact, target, text):
    """Compare Q of every window, prefix and bin with the table."""
    frames, present, states = windows(model, problem, text)
    text = text.expand(len(frames), -1)
    with torch.no_grad():
        for action in product(*map(range, problem.counts)):
            bins = torch.tensor([action]).expand(len(frames), len(action))
            q = model.q(model.logits(frames, present, text, bins)).numpy()
            for dim, table in enumerate(exact_tables(exact, target)):
                wanted = table[(states, *action[: dim + 1])]
                assert np.abs(q[:, dim, action[dim]] - wanted).max() < 0.03
        greedy, _ = model.greedy(frames, present, text)
    if target == 'per_dim':  # n-step's early dimensions rank actions by how the data went on
        values = exact[(states, *greedy.T.numpy())]
        best = exact.reshape(problem.states, -1).max(1)
        assert np.allclose(values, best[states], atol=0.03)


def windows(model, problem, text):
    """Return frames and present of every window that can come up, and the state it ends in (N,).

    A window of one state; with history also the padded one, and those with the state before.
    """
    pairs = {(None, s) for s in range(problem.states)}
    if model.config.window > 1:
        pairs |= {(row[0], int(problem.after[row])) for row in problem.rows()
                  if not problem.ended[row]}  # fmt: skip
    befores, states = zip(*sorted(pairs, key=str), strict=True)
    rows = [(state if before is None else before, state)[-model.config.window :]
            for before, state in zip(befores, states, strict=True)]  # fmt: skip
    with torch.no_grad():
        each = model.encode_frames({}, torch.eye(problem.states), text.expand(problem.states, -1))
    present = torch.tensor([[before is not None, True] for before in befores])
    return each[torch.tensor(rows)], present[:, -model.config.window :], np.array(states)
