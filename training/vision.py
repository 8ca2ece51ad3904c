"""Images to a few tokens: an encoder that knows the instruction, then attention over its grid.

FiLM (Perez et al., 1709.07871) scales and shifts the feature maps by the instruction. Then a few
attention maps, as in TokenLearner (Ryoo et al., 2106.11297), pool the grid: each map yields the
features at the place it looks at and that place's coordinates, which a reaching hand needs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import ModelConfig
from training.efficientnet import EfficientNet, channels_innermost


class ConvNet(nn.Module):
    """A small stack of convolutions: config.channels, kernels, strides, one entry for each."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        convs = []
        previous = 3
        for out, kernel, stride in zip(
            config.channels, config.kernels, config.strides, strict=True
        ):
            convs.append(nn.Conv2d(previous, out, kernel, stride, padding=kernel // 2))
            previous = out
        self.channels = previous
        self.strides = config.strides
        self.stem, *rest = convs
        self.convs = nn.ModuleList(rest)
        # The first convolution sees edges and colours, whatever the task: no FiLM there.
        self.sizes = [size for size in config.channels[1:] for _ in ('scale', 'shift')]
        self.film = nn.Linear(config.text_size, sum(self.sizes))
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        channels_innermost(self)

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """Return features (N, channels, rows, columns).

        images: (N, H, W, 3) uint8 RGB; text: (N, text_size).
        """
        x = images.permute(0, 3, 1, 2).to(text.dtype).div_(127.5).sub_(1.0)
        x = functional.relu(self.stem(x), inplace=True)
        films = self.film(text)[:, :, None, None].split(self.sizes, dim=1)
        for conv, scale, shift in zip(self.convs, films[::2], films[1::2], strict=True):
            y = functional.relu(torch.addcmul(shift, conv(x), 1 + scale), inplace=True)
            x = x + y if y.shape == x.shape else y
        return x

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (rows, columns) of the features of an image of (height, width) [px]."""
        height, width = size
        for stride in self.strides:
            height, width = -(-height // stride), -(-width // stride)
        return height, width


class CameraEncoder(nn.Module):
    """Encode the images of one camera into `image_tokens` tokens."""

    where: Tensor

    def __init__(self, config: ModelConfig, size: tuple[int, int]) -> None:
        super().__init__()
        if config.encoder == 'small':
            self.net: ConvNet | EfficientNet = ConvNet(config)
        else:
            film = 0 if config.freeze_encoder else config.text_size
            self.net = EfficientNet(config.encoder, film, config.frozen_norm)
        channels = self.net.channels
        # A frozen encoder never hears the instruction, so that a frame has one set of features
        # whatever is to be done; the instruction acts on them here instead.
        self.film: nn.Linear | None = None
        if config.freeze_encoder:
            self.net.requires_grad_(False)
            self.film = nn.Linear(config.text_size, 2 * channels)
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)
        if config.pool == 'queries':
            # A softmax over hundreds of cells starts almost flat; larger weights focus it early.
            scale = config.sharpness / channels**0.5
            self.attention = nn.Parameter(torch.randn(config.maps, channels) * scale)
            self.learner = None
        else:
            self.learner = nn.Sequential(
                nn.LayerNorm(channels),
                nn.Linear(channels, channels // 4),
                nn.GELU(),
                nn.Linear(channels // 4, config.maps),
            )
        self.tokens = config.image_tokens
        per_token = config.maps // config.image_tokens * (channels + 2)
        self.project = nn.Linear(per_token, config.width)
        self.slot = nn.Parameter(torch.randn(config.image_tokens, config.width) * 0.02)
        self.register_buffer('where', _coordinates(*self.net.grid(size)), persistent=False)

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """Return tokens (N, image_tokens, width).

        images: (N, H, W, 3) uint8 RGB, or what `features` made of them; text: (N, text_size).
        """
        x = self.features(images, text) if images.dtype == torch.uint8 else images.to(text.dtype)
        cells = x.flatten(1, 2)  # (N, HW, C)
        if self.film is not None:
            scale, shift = self.film(text).unsqueeze(1).chunk(2, dim=-1)
            cells = torch.addcmul(shift, cells, 1 + scale)
        if self.learner is None:
            looks = self.attention @ cells.transpose(1, 2)  # (N, M, HW)
        else:
            looks = self.learner(cells).transpose(1, 2)
        looks = looks.float().softmax(-1)
        pooled = torch.cat([looks @ cells, looks @ self.where], dim=-1)  # (N, M, C + 2)
        return self.project(pooled.reshape(len(x), self.tokens, -1)) + self.slot

    def features(self, images: Tensor, text: Tensor) -> Tensor:
        """Return the grid of features (N, rows, columns, channels) in front of the pooling.

        A frozen encoder does not look at `text`.
        """
        return self.net(images, text).permute(0, 2, 3, 1)  # no copy


def _coordinates(height: int, width: int) -> Tensor:
    """Return the (row, column) of each cell in [-1, 1], (height * width, 2)."""
    rows = torch.linspace(-1, 1, height)
    columns = torch.linspace(-1, 1, width)
    return torch.stack(torch.meshgrid(rows, columns, indexing='ij'), dim=-1).flatten(0, 1)
