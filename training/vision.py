"""Images to a few tokens: a small convolutional encoder that knows the instruction.

FiLM (Perez et al., 1709.07871) scales and shifts the feature maps by the instruction. Then a few
attention maps, as in TokenLearner (Ryoo et al., 2106.11297), pool the grid: each map yields the
features at the place it looks at and that place's coordinates, which a reaching hand needs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import ModelConfig


class CameraEncoder(nn.Module):
    """Encode the images of one camera.

    config.channels, config.kernels, config.strides: one entry per convolution.
    """

    grid: Tensor

    def __init__(self, config: ModelConfig, size: tuple[int, int]) -> None:
        super().__init__()
        convs = []
        previous, (height, width) = 3, size
        for out, kernel, stride in zip(
            config.channels, config.kernels, config.strides, strict=True
        ):
            convs.append(nn.Conv2d(previous, out, kernel, stride, padding=kernel // 2))
            previous = out
            height, width = -(-height // stride), -(-width // stride)
        self.stem, *rest = convs
        self.convs = nn.ModuleList(rest)
        # The first convolution sees edges and colours, whatever the task: no FiLM there.
        self.film_sizes = [size for size in config.channels[1:] for _ in ('scale', 'shift')]
        self.film = nn.Linear(config.text_size, sum(self.film_sizes))
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        # A softmax over hundreds of cells starts almost flat; larger weights focus it early.
        scale = config.sharpness / previous**0.5
        self.attention = nn.Parameter(torch.randn(config.maps, previous) * scale)
        self.tokens = config.image_tokens
        per_token = config.maps // config.image_tokens * (previous + 2)
        self.project = nn.Linear(per_token, config.width)
        self.slot = nn.Parameter(torch.randn(config.image_tokens, config.width) * 0.02)
        self.register_buffer('grid', _coordinates(height, width), persistent=False)
        for conv in convs:
            # Channels innermost in memory, which convolutions on a CPU prefer.
            conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """Return tokens (N, image_tokens, width).

        images: (N, H, W, 3) uint8 RGB; text: (N, text_size).
        """
        x = images.permute(0, 3, 1, 2).to(text.dtype).div_(127.5).sub_(1.0)
        x = functional.relu(self.stem(x))
        films = self.film(text)[:, :, None, None].split(self.film_sizes, dim=1)
        for conv, scale, shift in zip(self.convs, films[::2], films[1::2], strict=True):
            y = functional.relu(torch.addcmul(shift, conv(x), 1 + scale))
            x = x + y if y.shape == x.shape else y
        cells = x.permute(0, 2, 3, 1).flatten(1, 2)  # (N, HW, C), no copy
        attention = (self.attention @ cells.transpose(1, 2)).softmax(-1)  # (N, M, HW)
        pooled = torch.cat([attention @ cells, attention @ self.grid], dim=-1)  # (N, M, C + 2)
        return self.project(pooled.reshape(len(x), self.tokens, -1)) + self.slot


def _coordinates(height: int, width: int) -> Tensor:
    """Return the (row, column) of each cell in [-1, 1], (height * width, 2)."""
    rows = torch.linspace(-1, 1, height)
    columns = torch.linspace(-1, 1, width)
    return torch.stack(torch.meshgrid(rows, columns, indexing='ij'), dim=-1).flatten(0, 1)
