"""A network's weights laid out for acting: packed for the processor, in bfloat16 or in int8.

Acting runs few rows at a time through many weights, so its time goes into reading them and, with
ordinary layers, into rearranging them at every call. Here large ones are rearranged once, and on
request kept in half or a quarter of the bytes. What flows between layers stays in float32.

A prepared network can no longer be trained.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.efficientnet import ConvNorm, FrozenNorm
from training.errors import TrainingError

WEIGHTS = ('float32', 'bfloat16', 'int8')
PACKED_SIZE = 1 << 18  # weights from which on packing pays for its dearer calls
ROWS = 16  # for how many rows at once oneDNN lays weights out; it takes any number later
INT8_ROWS = 8  # above, widening the weights first is faster
X86 = ('x86_64', 'AMD64')
_INT8_MAX = 127


def prepare(model: nn.Module, weights: str = 'float32') -> None:
    """Replace the layers of `model`, in place and on its device, by ones that only run.

    weights: of the transformer's linear layers: 'float32', 'bfloat16' (on a CPU of the large ones:
    small ones would only get slower), or 'int8' with one scale per output. All else stays in
    float32: there is little of it, or it is bound by its arithmetic. Raises TrainingError for any
    other.
    """
    if weights not in WEIGHTS:
        raise TrainingError(f'weights={weights!r}; {", ".join(WEIGHTS)}')
    _replace(model.get_submodule('blocks'), lambda layer: _layer(layer, weights))
    for part in model.modules():
        if isinstance(part, ConvNorm):
            _fold(part)


def _layer(layer: nn.Linear, weights: str) -> nn.Module:
    if weights == 'int8':
        return Int8(layer)
    if weights == 'bfloat16':
        small = layer.weight.device.type == 'cpu' and layer.weight.numel() < PACKED_SIZE
        return layer if small else Packed(layer, torch.bfloat16)
    packs = _can_pack(layer.weight, torch.float32)
    return Packed(layer, torch.float32) if packs else layer


class Packed(nn.Module):
    """A linear layer with its weights in `dtype`, as the processor wants them where it can say."""

    bias: Tensor

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        if dtype == torch.float32:  # as they were, for those who count or compare them
            self.weight, self.bias = layer.weight, layer.bias
        else:
            self.register_buffer('bias', layer.bias.detach().to(dtype), False)
        self.laid_out = layer.weight.detach().to(dtype).contiguous()
        self.is_packed = _can_pack(self.laid_out, dtype)
        if self.is_packed:
            self.laid_out = torch.ops.mkldnn._reorder_linear_weight(self.laid_out, ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs), in and out of x's own type."""
        given = x.to(self.dtype)
        if self.is_packed:
            product = torch.ops.mkldnn._linear_pointwise
            return product(given, self.laid_out, self.bias, 'none', [], '').to(x.dtype)
        return functional.linear(given, self.laid_out, self.bias).to(x.dtype)


class Int8(nn.Module):
    """A linear layer with weights in int8, symmetric, one scale per output."""

    weight: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach()
        # The scale is used in bfloat16, so the weights are divided by what it is there.
        largest = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        scale = (largest / _INT8_MAX).to(torch.bfloat16)
        whole = (weight / scale.float()).round().clamp(-_INT8_MAX, _INT8_MAX)
        self.register_buffer('weight', whole.to(torch.int8).contiguous(), False)
        self.register_buffer('scale', scale.squeeze(1).contiguous(), False)
        self.register_buffer('bias', layer.bias.detach(), False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs), in and out of x's own type."""
        rows = x.to(torch.bfloat16).flatten(0, -2)
        out = int8_product(rows, self.weight, self.scale)
        return out.to(x.dtype).unflatten(0, x.shape[:-1]) + self.bias


def int8_product(rows: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Return rows (M, K) bfloat16 times weight (N, K) int8, scaled by (N,) bfloat16: (M, N).

    On a CPU few rows go through a kernel that reads the weights as they are; many, and all where
    torch does not have it, through weights that are widened first.
    """
    if len(rows) <= INT8_ROWS and rows.device.type == 'cpu' and _has_int8():
        return torch._weight_int8pack_mm(rows, weight, scale)
    return functional.linear(rows, weight.to(rows.dtype)) * scale


@cache
def _has_int8() -> bool:
    """Whether torch has a product with int8 weights for this CPU, found out by one."""
    probe = torch.ones(32, 32)
    try:
        out = torch._weight_int8pack_mm(
            probe.to(torch.bfloat16), probe.to(torch.int8), probe[0].to(torch.bfloat16)
        )
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return bool((out == 32.0).all())


def _can_pack(weight: Tensor, dtype: torch.dtype) -> bool:
    if weight.device.type != 'cpu' or weight.numel() < PACKED_SIZE:
        return False
    # Elsewhere oneDNN stands on other libraries, with layouts of their own.
    if platform.machine() not in X86 or not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _replace(module: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> None:
    """Exchange the linear layers in `module`, at any depth."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            module.add_module(name, make(child))
        else:
            _replace(child, make)


def _fold(layer: ConvNorm) -> None:
    """Let the convolution do what the normalisation by fixed statistics does behind it."""
    norm, conv = layer.norm, layer.conv
    if not isinstance(norm, FrozenNorm):
        return
    scale, shift = norm.affine()
    conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None], requires_grad=False)
    conv.bias = nn.Parameter(shift, requires_grad=False)
    layer.add_module('norm', nn.Identity())
