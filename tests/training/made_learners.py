"""Learners on a cache, and what runs have saved."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from training import checkpoint
from training.config import TrainConfig
from training.data import Replay
from training.learner import Learner
from training.model import QTransformer


def make(cache: Path, config: TrainConfig) -> tuple[Replay, Learner]:
    """Return the replay and a learner whose networks differ from each other and from the start."""
    data = Replay(
        [cache],
        config.data,
        window=config.model.window,
        gamma=config.loss.gamma,
        text_encoder=config.model.text_encoder,
        text_size=config.model.text_size,
    )
    torch.manual_seed(0)
    model = QTransformer(config.model, data.signature)
    noise(model)
    learner = Learner(model, config, torch.device('cpu'))
    noise(learner.target)
    return data, learner


@torch.no_grad()
def noise(model: torch.nn.Module) -> None:
    """Move every weight a little."""
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a run's latest checkpoint."""
    folder = checkpoint.find(run)
    return {
        f'{name}/{key}': tensor
        for name in ('model', 'target', 'optimizer')
        for key, tensor in load_file(folder / f'{name}.safetensors').items()
    }


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    """Say whether all tensors of two runs are equal, bit for bit."""
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
