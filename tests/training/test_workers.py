"""A batch in parts, one after the other or in several processes, is the batch as a whole."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_caches import random_episodes, write_cache
from safetensors.torch import load_file

from training import checkpoint
from training.data import Replay
from training.learner import Learner, batch_loss
from training.metrics import read_metrics
from training.model import QTransformer
from training.train import train

SCRIPT = """
import json
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from training.config import TrainConfig
from training.train import train
config = TrainConfig.from_json(json.loads(sys.argv[3]))
result = train([Path(sys.argv[1])], Path(sys.argv[2]), config)
print(result.steps)
"""


@pytest.fixture
def uneven(tmp_path) -> Path:
    """Episodes whose segments hang over their ends: shares of a batch hold unlike many rows."""
    outcomes = ['success', 'failure', 'timeout', 'success', 'failure']
    return write_cache(tmp_path / 'uneven', random_episodes([7, 2, 6, 1, 10], outcomes))


def gradients(cache, config):
    replay = Replay([cache], config.data, window=2, gamma=0.9, text_encoder='hashed', text_size=16)
    torch.manual_seed(0)
    learner = Learner(QTransformer(config.model, replay.signature), config, torch.device('cpu'))
    figures = learner._gradient(replay.batch(3))
    flat = torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None])
    return flat, {name: float(value) for name, value in figures.items()}


LOSSES = ('target=per_dim', 'target=n_step', 'objective=cloning', 'conservative=softmax')


@pytest.mark.parametrize('override', [f'loss.{each}' for each in LOSSES])
@pytest.mark.parametrize('parts', [2, 3])
def test_gradients_of_parts_add_up_to_the_whole(uneven, small_config, override, parts):
    options = (override, 'data.batch=24')
    whole, figures = gradients(uneven, small_config(*options))
    split, again = gradients(uneven, small_config(*options, f'optim.accumulate={parts}'))
    assert torch.allclose(whole, split, rtol=1e-4, atol=1e-7)
    assert whole.abs().max() > 1e-4
    for name in ('loss', 'td', 'conservative'):
        assert again[name] == pytest.approx(figures[name], rel=1e-5)


def test_shares_of_processes_are_the_batch(uneven, small_config):
    config = small_config('data.batch=24', 'data.relabel_fraction=0.4')
    replay = Replay(
        [uneven], config.data, window=2, gamma=0.9, text_encoder='hashed', text_size=16
    )
    whole = replay.batch(5)
    # A batch's memory is used again by the next one.
    wanted = {name: value.clone() for name, value in vars(whole).items() if name != 'images'}
    images = whole.images['front'].clone()
    for rank in range(4):
        share = replay.batch(5, rank, 4)
        assert torch.equal(share.images['front'], images[rank::4])
        for name, value in wanted.items():
            assert torch.equal(getattr(share, name), value[rank::4]), name


def run_together(cache: Path, out: Path, config, number: int) -> None:
    """Train in `number` processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        'WORLD_SIZE': str(number),
        'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': str(port),
        'OMP_NUM_THREADS': '1',
    }
    command = [sys.executable, '-c', SCRIPT, str(cache), str(out), json.dumps(config.to_json())]
    processes = [
        subprocess.Popen(command, env={**environment, 'RANK': str(rank), 'LOCAL_RANK': str(rank)})
        for rank in range(number)
    ]
    assert [process.wait(120) for process in processes] == [0] * number


def test_two_processes_make_the_run_of_one(uneven, tmp_path, small_config):
    """Sums of float32 in another order: weights agree to 2e-5 after 12 steps of Adam."""
    config = small_config(
        'data.batch=16', 'optim.lr=0.0003', 'data.color_jitter=0.2', 'optim.ahead=2'
    )
    run_together(uneven, tmp_path / 'two', config, 2)
    train([uneven], tmp_path / 'one', config)
    runs = (tmp_path / 'one', tmp_path / 'two')
    one, two = (load_file(checkpoint.find(run) / 'model.safetensors') for run in runs)
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=0, atol=2e-5), name
    rows = [read_metrics(run) for run in runs]  # one of the two writes, of the whole batch
    assert [row['step'] for row in rows[1]] == [4, 8, 12]
    for alone, together in zip(*rows, strict=True):
        for name in ('loss', 'td', 'conservative', 'grad_norm'):
            assert together[name] == pytest.approx(alone[name], rel=1e-3)


def test_half_precision_stays_close_and_keeps_float_weights(uneven, small_config):
    exact, _ = gradients(uneven, small_config('data.batch=24'))
    half, _ = gradients(uneven, small_config('data.batch=24', 'optim.bf16=true'))
    assert half.dtype == torch.float32
    similarity = torch.nn.functional.cosine_similarity(exact, half, dim=0)
    assert 0.99 < float(similarity) < 1 - 1e-9  # close, yet not the same: it really took place


@pytest.mark.parametrize('options', [[], ['loss.error=hl_gauss', 'model.atoms=11']])
def test_losses_and_targets_stay_whole_in_half_precision(uneven, small_config, options):
    """What the network puts out may be rounded; what is computed from that is not."""
    config = small_config('data.batch=24', *options)
    replay = Replay(
        [uneven], config.data, window=2, gamma=0.9, text_encoder='hashed', text_size=16
    )
    torch.manual_seed(0)
    model = QTransformer(config.model, replay.signature)
    batch = replay.batch(0)
    rounded = {}
    logits = model.logits

    def rounding(*args):
        key = tuple(args[0].shape)
        rounded.setdefault(key, logits(*args).detach().to(torch.bfloat16))
        return rounded[key]

    model.logits = rounding
    with torch.autocast('cpu', torch.bfloat16):
        half, figures = batch_loss(model, model, batch, config.loss)
    whole, again = batch_loss(model, model, batch, config.loss)
    assert half.dtype == torch.float32
    assert float(half) == float(whole)
    for name, value in figures.items():
        assert float(value) == pytest.approx(float(again[name]), nan_ok=True), name


def test_relabelled_segments_earn_nothing(uneven, small_config):
    config = small_config('data.batch=400', 'data.relabel_fraction=0.5')
    replay = Replay(
        [uneven], config.data, window=2, gamma=0.9, text_encoder='hashed', text_size=16, seed=1
    )
    batch = replay.batch(0)
    plain = Replay(
        [uneven], small_config('data.batch=400').data, window=2, gamma=0.9,
        text_encoder='hashed', text_size=16, seed=1,
    ).batch(0)  # fmt: skip
    other = (batch.text != plain.text).any(1)
    assert 0.35 < float(other.float().mean()) < 0.65
    assert not batch.success[other].any()
    assert not batch.reward[other].any()
    assert not batch.returns[other].any()
    assert torch.equal(batch.reward[~other], plain.reward[~other])
    assert torch.equal(batch.returns[~other], plain.returns[~other])
    assert torch.equal(batch.bins, plain.bins)  # what was done stays what was done
    known = {tuple(row) for row in replay.embeddings.tolist()}
    assert {tuple(row) for row in batch.text[other].tolist()} <= known
    assert np.isin(batch.terminated, [False, True]).all()
