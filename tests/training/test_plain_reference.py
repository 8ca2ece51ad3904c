"""The loss equals the one that `plain_reference.py` computes with loops."""

from __future__ import annotations

import numpy as np
import plain_reference
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_caches import write_cache

from training.cache import CacheAction
from training.data import Replay
from training.learner import batch_loss
from training.model import QTransformer

OUTCOMES = ('success', 'failure', 'timeout')
TASKS = ('open it', 'close it')


@st.composite
def recordings(draw):
    """Ranges of 1 to 3 dimensions, each with its own number of bins, and episodes of noise."""
    counts = draw(st.lists(st.integers(2, 5), min_size=1, max_size=3))
    ranges = [(-1.0, 1.0 + i, count) for i, count in enumerate(counts)]
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    episodes = []
    for number in range(draw(st.integers(1, 3))):
        length = draw(st.integers(1, 5))
        outcome = draw(st.sampled_from(OUTCOMES))
        # Time-outs may earn on the way; what ends early may have ended in the middle of a row.
        reward = rng.random(length) * draw(st.sampled_from([0.0, 1.0])) / length
        end = np.zeros(length, np.uint8)
        end[-1] = outcome != 'timeout'
        episodes.append(
            {
                'state': rng.normal(size=(length, 3)),
                'action': rng.uniform(-1.2, 1.5, size=(length, len(counts))),
                'outcome': outcome,
                'instruction': TASKS[number % 2],
                'reward': reward.astype(np.float32),
                'terminated': end,
            }
        )
    return ranges, episodes


@st.composite
def settings_of_a_loss(draw):
    error = draw(st.sampled_from(['squared', 'cross_entropy', 'hl_gauss']))
    return [
        f'model.window={draw(st.integers(1, 3))}',
        f'model.atoms={draw(st.integers(8, 13)) if error == "hl_gauss" else 1}',
        f'loss.error={error}',
        f'loss.target={draw(st.sampled_from(["per_dim", "n_step"]))}',
        f'loss.monte_carlo={draw(st.booleans())}',
        f'loss.gamma={draw(st.sampled_from([0.0, 0.5, 0.98, 1.0]))}',
        f'loss.conservative={draw(st.sampled_from(["mean", "per_bin", "softmax"]))}',
        f'loss.smoothing={draw(st.sampled_from([0.0, 0.1, 0.4]))}',
    ]


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(recording=recordings(), loss=settings_of_a_loss(), span=st.integers(1, 4), draw=st.data())
def test_the_loss_equals_plain_loops(tmp_path_factory, small_config, recording, loss, span, draw):
    ranges, episodes = recording
    action = tuple(CacheAction(f'a{i}', *each) for i, each in enumerate(ranges))
    cache = write_cache(
        tmp_path_factory.mktemp('cache') / 'c', episodes, action=action, cameras={}
    )
    config = small_config('model.width=8', *loss, f'data.segment={span}', f'data.batch={span}')
    data = Replay(
        [cache], config.data, window=config.model.window, gamma=config.loss.gamma,
        text_encoder='hashed', text_size=16,
    )  # fmt: skip
    torch.manual_seed(draw.draw(st.integers(0, 99)))
    networks = [QTransformer(config.model, data.signature) for _ in range(2)]
    with torch.no_grad():
        for parameter in (p for network in networks for p in network.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    number = draw.draw(st.integers(1, 3))
    chosen = [draw.draw(st.integers(0, len(episodes) - 1)) for _ in range(number)]
    first = [draw.draw(st.integers(-2, 5)) for _ in range(number)]
    words = [draw.draw(st.integers(0, len(data.instructions) - 1)) for _ in range(number)]
    batch = data.gather(
        np.array(chosen), np.array(first), np.zeros((0, number, 2), int), np.array(words)
    )
    found, figures = batch_loss(*networks, batch, config.loss)
    texts = dict(zip(data.instructions, data.embeddings, strict=True))
    segments = [
        (episode, row, span, data.instructions[word])
        for episode, row, word in zip(chosen, first, words, strict=True)
    ]
    td, low = plain_reference.losses(*networks, episodes, segments, texts, ranges, config.loss)
    assert float(figures['td']) == pytest.approx(td, rel=2e-4, abs=1e-7)
    assert float(figures['conservative']) == pytest.approx(low, rel=2e-4, abs=1e-7)
    total = td + config.loss.alpha * low
    assert found.item() == pytest.approx(total, rel=2e-4, abs=1e-7)
