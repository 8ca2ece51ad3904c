"""A compiled step is the plain one up to rounding, and always the same."""

from __future__ import annotations

import shutil

import pytest
import torch

from training.compiling import compiled
from training.data import Replay
from training.errors import TrainingError
from training.learner import Learner
from training.model import QTransformer
from training.train import train

CPU = torch.device('cpu')


@pytest.mark.timeout(900)  # compiling takes half a minute of an idle core
@pytest.mark.skipif(shutil.which('g++') is None, reason='needs a compiler')
def test_a_compiled_step_is_the_plain_one_and_always_the_same(cache, small_config):
    weights = {}
    for name in ('plain', 'compiled', 'again'):
        use = str(name != 'plain').lower()
        config = small_config(f'optim.compile={use}', 'model.layers=1')
        data = Replay(
            [cache], config.data, window=2, gamma=0.9, text_encoder='hashed', text_size=16
        )
        torch.manual_seed(0)
        learner = Learner(QTransformer(config.model, data.signature), config, CPU)
        for step in range(3):
            figures = learner.update(data.batch(step), step)
        weights[name] = torch.cat([weight.detach().flatten() for weight in learner.weights])
        assert torch.isfinite(figures['loss'])
    assert torch.equal(weights['compiled'], weights['again'])
    # Adam's first steps have the size of the rate, 3e-3, whatever that of the gradient.
    assert torch.allclose(weights['plain'], weights['compiled'], rtol=0, atol=1e-4)


def test_a_missing_compiler_is_told_before_anything_is_written(
    cache, tmp_path, small_config, monkeypatch
):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(TrainingError, match=r'no-such-compiler.*optim\.compile=false'):
        train([cache], tmp_path / 'run', small_config('optim.compile=true'))
    assert not (tmp_path / 'run').exists()
    monkeypatch.delenv('CXX')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(TrainingError, match=r'g\+\+ or clang\+\+'):
        compiled(len, CPU)
