"""EfficientNet b0 to b3 with the instruction inside: FiLM behind every block, as in RT-1.

Tan and Le, 1905.11946; Brohan et al., 2212.06817. The head for classes is left out. FiLM starts
as the identity, so weights learned on ImageNet do at first what they did there. Such weights come
with batch statistics, which stay frozen; a network that starts from nothing normalises by groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.errors import TrainingError

# (expansion, kernel, stride, channels in, channels out, blocks) of b0.
_STAGES = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)
# {name: (factor of the channels, factor of the blocks)}
SIZES = {
    'efficientnet_b0': (1.0, 1.0),
    'efficientnet_b1': (1.0, 1.1),
    'efficientnet_b2': (1.1, 1.2),
    'efficientnet_b3': (1.2, 1.4),
}
# (stage, -1 for the stem; block; our name within it; has an expansion) -> name of others
Rename = Callable[[int, int, str, bool], str]
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in 0 to 1


class FrozenNorm(nn.Module):
    """Batch normalisation by the statistics that came with the weights, which stay as they are."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer('running_mean', torch.zeros(channels))
        self.register_buffer('running_var', torch.ones(channels))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return what it does to a channel: scale (C,) and shift (C,)."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale


class ConvNorm(nn.Module):
    """Convolution and normalisation."""

    def __init__(
        self, fan_in: int, out: int, kernel: int, stride: int, groups: int, frozen: bool
    ) -> None:
        super().__init__()
        padding, self.depthwise = kernel // 2, groups > 1
        self.conv = nn.Conv2d(fan_in, out, kernel, stride, padding, groups=groups, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode='fan_out')
        per_group = max(n for n in (8, 4, 2, 1) if out % n == 0)
        self.norm = FrozenNorm(out, 1e-5) if frozen else nn.GroupNorm(out // per_group, out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out, H / stride, W / stride)."""
        plain = not self.depthwise or x.dtype != torch.bfloat16 or x.device.type != 'cpu'
        if plain or self.conv.weight.dtype != torch.float32:
            return self._convolved(x)
        # A CPU takes three times as long for the gradient of a depthwise one in bfloat16.
        with torch.autocast('cpu', enabled=False):
            return self._convolved(x.float()).to(x.dtype)

    def _convolved(self, x: Tensor) -> Tensor:
        if not isinstance(self.norm, FrozenNorm):
            return self.norm(self.conv(x))
        # Scaling the weights instead of the features spares two passes over all of them.
        scale, shift = self.norm.affine()
        conv = self.conv
        weight = conv.weight * scale[:, None, None, None]
        return functional.conv2d(x, weight, shift, conv.stride, conv.padding, groups=conv.groups)


class Block(nn.Module):
    """Inverted residual with squeeze-and-excitation."""

    def __init__(
        self, expansion: int, kernel: int, stride: int, fan_in: int, out: int, frozen: bool
    ) -> None:
        super().__init__()
        inner, squeezed = _eights(fan_in * expansion), max(1, fan_in // 4)
        self.expand = ConvNorm(fan_in, inner, 1, 1, 1, frozen) if expansion > 1 else None
        self.depthwise = ConvNorm(inner, inner, kernel, stride, inner, frozen)
        self.reduce = nn.Conv2d(inner, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, inner, 1)
        self.project = ConvNorm(inner, out, 1, 1, 1, frozen)
        self.residual = stride == 1 and fan_in == out
        self.out = out

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out, H / stride, W / stride)."""
        y = x if self.expand is None else functional.silu(self.expand(x))
        y = functional.silu(self.depthwise(y))
        gate = self.excite(functional.silu(self.reduce(y.mean((2, 3), keepdim=True))))
        y = self.project(y * torch.sigmoid(gate))
        return x + y if self.residual else y


class EfficientNet(nn.Module):
    """Images to a grid of features a 32nd of their size.

    name: a key of `SIZES`; text_size: of the instruction's embedding, 0 for a network that does
    not hear it; frozen: normalise by the statistics of loaded weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, text_size: int, frozen: bool) -> None:
        super().__init__()
        widen, deepen = SIZES[name]
        self.stem = ConvNorm(3, _eights(32 * widen), 3, 2, 1, frozen)
        blocks = []
        self.places: list[tuple[int, int]] = []  # (stage, number within it) of each block
        for stage, (expansion, kernel, stride, fan_in, out, repeats) in enumerate(_STAGES):
            width, wide = _eights(fan_in * widen), _eights(out * widen)
            for number in range(math.ceil(repeats * deepen)):
                first = number == 0
                blocks.append(
                    Block(
                        expansion,
                        kernel,
                        stride if first else 1,
                        width if first else wide,
                        wide,
                        frozen,
                    )
                )
                self.places.append((stage, number))
        self.blocks = nn.ModuleList(blocks)
        self.sizes = [block.out for block in blocks for _ in ('scale', 'shift')]
        self.film: nn.Linear | None = None
        if text_size:
            self.film = nn.Linear(text_size, sum(self.sizes))
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)
        self.channels = blocks[-1].out
        self.register_buffer('mean', torch.tensor(_MEAN).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer('std', torch.tensor(_STD).view(3, 1, 1) * 255, persistent=False)
        channels_innermost(self)

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """Return features (N, channels, H / 32, W / 32), rounded up.

        images: (N, H, W, 3) uint8 RGB; text: (N, text_size).
        """
        x = (images.permute(0, 3, 1, 2).to(text.dtype) - self.mean) / self.std
        x = functional.silu(self.stem(x))
        if self.film is None:
            for block in self.blocks:
                x = block(x)
            return x
        films = self.film(text)[:, :, None, None].split(self.sizes, dim=1)
        for block, scale, shift in zip(self.blocks, films[::2], films[1::2], strict=True):
            x = torch.addcmul(shift, block(x), 1 + scale)
        return x

    @staticmethod
    def grid(size: tuple[int, int]) -> tuple[int, int]:
        """Return (rows, columns) of the features of an image of (height, width) [px]."""
        return -(-size[0] // 32), -(-size[1] // 32)

    def load_imagenet(self, weights: Mapping[str, Tensor], origin: str) -> None:
        """Take the weights of this network as torchvision or timm name them.

        Raises TrainingError naming what is missing or has another shape.
        """
        known = any(key.startswith('features.') for key in weights)
        rename = _torchvision_name if known else _timm_name
        own, found, problems = self.state_dict(), {}, []
        for key in own:
            if key.startswith('film.'):
                continue
            theirs = self._outer_name(key, rename)
            if theirs not in weights:
                problems.append(f'{theirs} is missing')
            elif weights[theirs].shape != own[key].shape:
                shape = tuple(weights[theirs].shape)
                problems.append(f'{theirs} is {shape}, not {tuple(own[key].shape)}')
            else:
                found[key] = weights[theirs]
        if problems:
            raise TrainingError(
                f'{origin} does not hold this network as torchvision or timm name it:'
                f' {len(problems)} of {len(own)} entries do not fit, first {problems[0]}; it holds'
                f' {len(weights)}, such as {next(iter(weights), "none")}. Save the state_dict of'
                ' the very network that model.encoder names'
            )
        self.load_state_dict(found, strict=False)

    def _outer_name(self, key: str, rename: Rename) -> str:
        if key.startswith('stem.'):
            return rename(-1, 0, key.removeprefix('stem.'), True)
        _, number, part = key.split('.', 2)
        stage, place = self.places[int(number)]
        return rename(stage, place, part, self.blocks[int(number)].expand is not None)


def channels_innermost(net: nn.Module) -> None:
    """Lay the weights of convolutions out as CPUs (and bfloat16 on GPUs) prefer."""
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)


def _torchvision_name(stage: int, number: int, part: str, expands: bool) -> str:
    part = part.replace('conv.', '0.').replace('norm.', '1.')
    if stage < 0:
        return f'features.0.{part}'
    order = [*(['expand'] if expands else []), 'depthwise', 'squeeze', 'project']
    name, rest = part.split('.', 1)
    if name in ('reduce', 'excite'):
        rest = f'{"fc1" if name == "reduce" else "fc2"}.{rest}'
        name = 'squeeze'
    return f'features.{stage + 1}.{number}.block.{order.index(name)}.{rest}'


def _timm_name(stage: int, number: int, part: str, expands: bool) -> str:
    if stage < 0:
        return part.replace('conv.', 'conv_stem.').replace('norm.', 'bn1.')
    names = {'depthwise': ('conv_dw', 'bn1'), 'project': ('conv_pw', 'bn2')}
    if expands:
        names = {
            'expand': ('conv_pw', 'bn1'),
            'depthwise': ('conv_dw', 'bn2'),
            'project': ('conv_pwl', 'bn3'),
        }
    name, rest = part.split('.', 1)
    if name in ('reduce', 'excite'):
        inner = f'se.{"conv_reduce" if name == "reduce" else "conv_expand"}.{rest}'
    else:
        conv, norm = names[name]
        inner = rest.replace('conv.', f'{conv}.').replace('norm.', f'{norm}.')
    return f'blocks.{stage}.{number}.{inner}'


def _eights(channels: float) -> int:
    """Round to a multiple of 8, never down by more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
