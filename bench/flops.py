"""How many operations a computation needs, and how fast this machine could do them.

Operations are those of matrix products, convolutions and attention, a multiply and an add counting
as two; the rest is not counted, as is usual. The floor of a computation is the time that its
operations take at the rate of a large matrix product measured in the same run, or the time that
reading its weights takes at the rate of reading memory, whichever is longer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

REPEATS = 7
_PRODUCT = 1536  # rows of the square matrices whose product measures the peak
_READ_BYTES = 256 << 20  # about the weights of the largest preset


def count_flops(work: Callable[[], Any]) -> int:
    """Return the operations of one call; its result is dropped.

    Not for use inside of torch.inference_mode, which hides operations from the counter.
    """
    with FlopCounterMode(display=False, custom_mapping=_not_counted()) as counter:
        work()
    return counter.get_total_flops()


@dataclass(frozen=True)
class Machine:
    """What the machine, or one core of it, reaches: the two bounds of any computation."""

    flops_per_s: float  # of a large matrix product
    bytes_per_s: float  # reading memory in order

    def floor_s(self, flops: float, weight_bytes: float = 0.0) -> float:
        """Return the shortest time [s] for so many operations on so many bytes of weights."""
        return max(flops / self.flops_per_s, weight_bytes / self.bytes_per_s)


def measure(device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Machine:
    """Measure the machine with torch's present number of threads: the best of a few tries."""
    device = device or torch.device('cpu')
    one = torch.randn(_PRODUCT, _PRODUCT, device=device).to(dtype)
    other, out = torch.randn_like(one), torch.empty_like(one)
    product_s = min(seconds(lambda: torch.mm(one, other, out=out), device))
    memory = torch.ones(_READ_BYTES // 4, device=device)
    read_s = min(seconds(lambda: memory.sum(), device))
    return Machine(2 * _PRODUCT**3 / product_s, _READ_BYTES / read_s)


def seconds(
    work: Callable[[], Any], device: torch.device, number: int = REPEATS, warm: int = 1
) -> list[float]:
    """Return what each of `number` calls takes [s], after `warm` that do not count.

    On a CPU that is the CPU time of this process, which other processes disturb little; on a GPU
    the time until its result is there.
    """
    clock = time.process_time if device.type == 'cpu' else time.perf_counter
    times = []
    for _ in range(warm + number):
        began = clock()
        work()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        times.append(clock() - began)
    return times[warm:]


def _not_counted() -> dict[Any, Callable[..., int]]:
    """Return the operations of kernels for the CPU that torch does not count."""
    aten = torch.ops.aten

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(grad, query, key, value)

    def linear(x: Any, weight: Any, *_: Any, **__: Any) -> int:
        return 2 * math.prod(x) * weight[0]

    def convolution(grad: Any, _x: Any, weight: Any, *rest: Any, **__: Any) -> int:
        # As many for either gradient as forward; torch counts those of a depthwise one as if every
        # channel looked at all others.
        outputs, per_output = math.prod(grad), math.prod(weight[1:])
        return 2 * outputs * per_output * sum(rest[-1][:2])

    found: dict[Any, Callable[..., int]] = {
        aten.convolution_backward: convolution,
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    if torch.backends.mkldnn.is_available():
        found[torch.ops.mkldnn._linear_pointwise] = linear
    return found
