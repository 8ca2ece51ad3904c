"""PyPI's `q-transformer` 0.5.0 with the same inputs, outputs and number of weights as ours.

It is no dependency of this project. To compare with it, give it an environment of its own that
sees this project's packages:

    python -m venv /tmp/rival && . ./env.sh
    python -c "import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])" \\
        > /tmp/rival/lib/python3.11/site-packages/ours.pth     # the folder of your python version
    /tmp/rival/bin/pip install --no-deps -r bench/rival.txt
    /tmp/rival/bin/python bench/inference.py

Its text encoder would be downloaded; the width of its embeddings is all that matters here, so a
random embedding stands for the instruction, as a stored one does with ours.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from importlib import util
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

VERSION = '0.5.0'
TEXT_NAME = 'google/t5-v1_1-base'  # what it asks for by default
WIDTH = 40  # 34.0 million weights; our preset base has 34.5


@dataclass(frozen=True)
class Size:
    """What both networks take and give."""

    image_px: int = 128
    frames: int = 6
    dims: int = 8
    bins: int = 256
    text: int = 384


def available() -> bool:
    """Whether the package can be imported."""
    return util.find_spec('q_transformer') is not None


def build(size: Size, width: int = WIDTH) -> nn.Module:
    """Return the network of its README, 182.6 million weights, made narrower and for our images.

    width: of the first stage of its image encoder; an eighth of its transformer's.
    """
    # Another of its text encoders, imported whether used or not, which drags in torchvision.
    sys.modules.setdefault('open_clip', ModuleType('open_clip'))
    from classifier_free_guidance_pytorch import t5
    from q_transformer import MaxViT, QRoboticTransformer
    from transformers import T5Config

    # Its own table of loaded text encoders, so that it downloads none.
    config = T5Config(d_model=size.text)
    loaded = {'config': config, 'model': SimpleNamespace(config=config), 'tokenizer': None}
    t5.T5_CONFIGS[TEXT_NAME] = loaded
    vit = MaxViT(
        num_classes=1000,
        dim=width,
        dim_conv_stem=width,
        dim_head=width,
        depth=(2, 2, 5, 2),
        window_size=size.image_px // 32,
        mbconv_expansion_rate=4,
        mbconv_shrinkage_rate=0.25,
        dropout=0.1,
    )
    return QRoboticTransformer(
        vit=vit,
        num_actions=size.dims,
        action_bins=size.bins,
        depth=1,
        heads=8,
        dim_head=64,
        cond_drop_prob=0.2,
        dueling=True,
    )


class Actor:
    """One greedy action of its network from a window of frames."""

    def __init__(self, size: Size, model: nn.Module | None = None) -> None:
        self.model: Any = (model or build(size)).eval()
        self.video = torch.rand(1, 3, size.frames, size.image_px, size.image_px)
        self.text = torch.randn(1, size.text)

    @torch.inference_mode()
    def act(self) -> Tensor:
        """Return bins (1, A); it keeps nothing from one step to the next, so all frames count."""
        return self.encode_and_decode()

    @torch.no_grad()
    def encode_and_decode(self) -> Tensor:
        """Do as `act` does, where operations can be counted."""
        return self.model.get_optimal_actions(self.video, text_embeds=self.text)


class Trainer:
    """Its training step on batches of random transitions: two windows of frames for each."""

    def __init__(self, size: Size, batch: int, model: nn.Module | None = None) -> None:
        model = model or build(size)  # first: it prepares what the package imports
        from q_transformer import QLearner

        self.size, self.batch = size, batch
        self._folder = tempfile.TemporaryDirectory()
        self.learner: Any = QLearner(
            model,
            dataset=_Nothing(),
            batch_size=batch,
            num_train_steps=1,
            learning_rate=3e-4,
            checkpoint_folder=self._folder.name,
        )
        self.learner.model.train()

    def draw(self) -> tuple[Tensor, ...]:
        """Return a random batch: text, frames, bins, next frames, next text, reward, done."""
        size, number = self.size, self.batch
        frames = (number, 3, size.frames, size.image_px, size.image_px)
        text = torch.randn(number, size.text)
        return (
            text.unsqueeze(1),
            torch.rand(frames),
            torch.randint(0, size.bins, (number, size.dims)),
            torch.rand(frames),
            text,
            torch.randint(0, 2, (number,)).float(),
            torch.zeros(number, dtype=torch.bool),
        )

    def update(self, batch: tuple[Tensor, ...]) -> None:
        """Do what its training loop does with a batch."""
        learner = self.learner
        learner.optimizer.zero_grad()
        loss, _ = learner.learn(*batch, min_reward=learner.min_reward)
        learner.accelerator.backward(loss)
        learner.accelerator.clip_grad_norm_(learner.model.parameters(), learner.max_grad_norm)
        learner.optimizer.step()
        learner.ema_model.update()

    def close(self) -> None:
        """Remove the folder that it wants for checkpoints."""
        self._folder.cleanup()


class _Nothing(Dataset):
    """The dataset that its constructor asks for; batches are handed over directly."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> Tensor:
        return torch.zeros(1)
