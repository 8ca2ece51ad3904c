import pytest
import torch
from torch import nn
from torch.nn import functional

from bench.flops import Machine, count_flops, measure, seconds
from training import packed
from training.packed import Packed


def test_operations_of_layers_are_counted_by_hand(monkeypatch):
    layer = nn.Linear(30, 20)
    assert count_flops(lambda: layer(torch.randn(7, 30))) == 2 * 7 * 30 * 20
    conv = nn.Conv2d(4, 8, 3, 2, 1, groups=2)
    assert count_flops(lambda: conv(torch.randn(2, 4, 6, 6))) == 2 * 2 * 3 * 3 * 8 * 2 * 9
    monkeypatch.setattr(packed, 'PACKED_SIZE', 0)
    with torch.no_grad():
        laid_out = Packed(layer, torch.float32)
        assert count_flops(lambda: laid_out(torch.randn(1, 7, 30))) == 2 * 7 * 30 * 20


@pytest.mark.parametrize('masked', [False, True])
def test_attention_is_counted_forwards_and_backwards(masked):
    query, key, value = (torch.randn(2, 3, length, 16, requires_grad=True) for length in (5, 9, 9))
    mask = torch.zeros(5, 9) if masked else None

    def forward():
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    once = 2 * 2 * 3 * 5 * 9 * (16 + 16)
    assert count_flops(forward) == once
    assert count_flops(lambda: forward().sum().backward()) == 3.5 * once


def test_the_floor_is_the_larger_of_two_bounds():
    machine = Machine(flops_per_s=100.0, bytes_per_s=10.0)
    assert machine.floor_s(50) == 0.5
    assert machine.floor_s(50, 20) == 2.0


def test_the_machine_is_measured_and_calls_are_counted():
    machine = measure()
    assert machine.flops_per_s > 1e8
    assert machine.bytes_per_s > 1e7
    calls = []
    assert len(seconds(lambda: calls.append(1), torch.device('cpu'), 3, warm=2)) == 3
    assert len(calls) == 5


@pytest.mark.parametrize('groups', [1, 4])
def test_the_gradients_of_a_convolution_count_twice_what_it_does(groups):
    conv, x = nn.Conv2d(4, 8, 3, groups=groups), torch.randn(2, 4, 9, 9, requires_grad=True)
    forward = 2 * (2 * 8 * 7 * 7) * (4 // groups * 9)
    assert count_flops(lambda: conv(x)) == forward
    assert count_flops(lambda: conv(x).sum().backward()) == 3 * forward
    # Nobody asks for the gradient of a picture.
    assert count_flops(lambda: conv(x.detach()).sum().backward()) == 2 * forward
