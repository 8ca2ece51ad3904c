import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from training import packed
from training.cache import Cache
from training.config import load_config
from training.errors import TrainingError
from training.model import QTransformer
from training.packed import WEIGHTS, Int8, Packed, int8_product, prepare
from training.policy import Policy
from training.signature import Signature
from training.tokens import ActionDim, ActionSpace
from training.train import train

SPACE = ActionSpace([ActionDim('x', -1, 1, 31), ActionDim('y', 0, 1, 9), ActionDim('g', 0, 1, 2)])
# How far Q may be off for weights of unit-sized networks: of its range, [0, 1].
TOLERANCE = {'float32': 1e-5, 'bfloat16': 0.03, 'int8': 0.05}


@pytest.fixture(autouse=True)
def pack_everything(monkeypatch):
    """Small networks stand for large ones."""
    monkeypatch.setattr(packed, 'PACKED_SIZE', 0)


@pytest.fixture
def small_model(small_config):
    """A network far from its quiet start, and windows, texts and actions for it."""
    torch.manual_seed(3)
    config = small_config('model.window=3', 'model.width=64', 'model.layers=3').model
    signature = Signature('', '', {'front': (16, 20)}, ('a',), SPACE)
    model = QTransformer(config, signature).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    model.bias.fill_(0.0)
    frames = torch.randn(16, 3, model.frame_length, 64)
    present = torch.arange(3) >= torch.randint(0, 3, (16, 1))
    bins = torch.stack([torch.randint(0, n, (16,)) for n in SPACE.bins], dim=1)
    return model, (frames, present, torch.randn(16, 16), bins)


@pytest.fixture
def encoder_with_statistics():
    """A network whose images' encoder normalises by statistics that are not those of noise."""
    torch.manual_seed(1)
    config = load_config(None, ['model.encoder=efficientnet_b0', 'model.weights=x']).model
    signature = Signature('', '', {'front': (64, 64)}, ('a',), SPACE)
    model = QTransformer(config, signature).eval().requires_grad_(False)
    for name, value in model.named_buffers():
        if 'running' in name:
            value.copy_(0.5 + torch.rand_like(value))
    for name, value in model.named_parameters():
        if '.norm.' in name:
            value.add_(0.3 * torch.randn_like(value))
    images = {'front': torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)}
    return model, images, torch.randn(2, 1), torch.randn(2, config.text_size)


@dataclass(frozen=True)
class Seen:
    images: dict
    state: np.ndarray


@pytest.fixture
def trained_run(cache, tmp_path, small_config):
    """A run of a few steps, and an observation of its data."""
    config = small_config('optim.lr=0.02', 'data.shift_px=0', 'model.width=32')
    opened = Cache.open(cache)
    seen = Seen({'front': np.array(opened.images['front'][0])}, np.array(opened.state[0]))
    return train([cache], tmp_path / 'run', config).run, seen


@pytest.mark.parametrize('rows', [1, 3, 8, 9, 40])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_packed_layer_does_what_the_layer_does(rows, dtype):
    torch.manual_seed(rows)
    layer = nn.Linear(64, 48)
    x = torch.randn(2, rows, 64)
    with torch.no_grad():
        expected = layer(x)
        out = Packed(layer, dtype)(x)
    assert out.dtype == x.dtype
    step = torch.finfo(dtype).eps * float(expected.abs().max())
    assert float((out - expected).abs().max()) <= 8 * step  # 64 products in another order


@given(
    rows=st.integers(1, 20), inputs=st.sampled_from([32, 64, 96]), outputs=st.integers(1, 40),
    seed=st.integers(0, 1000), size=st.sampled_from([1e-6, 1.0, 1e4]),
)  # fmt: skip
def test_an_int8_layer_is_off_by_half_a_step_of_its_scale(rows, inputs, outputs, seed, size):
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(size * torch.randn(outputs, inputs, generator=generator))
        x = torch.randn(rows, inputs, generator=generator)
        out, expected = Int8(layer)(x), layer(x)
    # Half a step for every weight, and bfloat16 for what goes in and out.
    scale = layer.weight.detach().abs().amax(1) / 127
    allowed = x.abs().sum(1, keepdim=True) * scale * (0.5 + 127 * 2**-8)
    allowed = allowed + 2**-8 * (expected - layer.bias.detach()).abs() + 1e-6
    assert bool(((out - expected).abs() <= allowed).all())


def test_an_int8_layer_of_zeros_stays_finite():
    layer = nn.Linear(32, 4)
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        assert torch.equal(Int8(layer)(torch.ones(3, 32)), layer(torch.ones(3, 32)))


@pytest.mark.parametrize('rows', [1, 5, 8])
def test_the_int8_kernel_and_its_replacement_agree(rows, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(rows, 64).bfloat16()
    weight = torch.randint(-127, 128, (48, 64), dtype=torch.int8)
    scale = (torch.rand(48) / 127).bfloat16()
    by_kernel = int8_product(x, weight, scale).float()
    monkeypatch.setattr(packed, '_has_int8', lambda: False)
    widened = int8_product(x, weight, scale).float()
    assert float((by_kernel - widened).abs().max()) <= 2**-6 * float(widened.abs().max())


@pytest.mark.parametrize('weights', WEIGHTS)
def test_a_prepared_policy_decides_nearly_as_before(small_model, weights):
    model, inputs = small_model
    other = copy.deepcopy(model)
    prepare(other, weights)
    kinds = {'float32': Packed, 'bfloat16': Packed, 'int8': Int8}
    assert isinstance(other.blocks[0].query, kinds[weights])
    frames, present, text, bins = inputs
    with torch.no_grad():
        before = model.q(model.logits(frames, present, text, bins))
        after = other.q(other.logits(frames, present, text, bins))
    assert before.std() > 0.05  # else anything would agree
    assert float((after - before).abs().max()) < TOLERANCE[weights]
    # The chain with guesses and caches is that of the same weights without.
    chosen, _ = other.greedy(frames, present, text, bins)
    chain = torch.zeros_like(bins)
    with torch.no_grad():
        for dim in range(model.dims):
            q = other.q(other.logits(frames, present, text, chain))
            gap = q[:, dim].topk(2).values.diff().abs().squeeze(-1)
            chain[:, dim] = q[:, dim].argmax(-1)
            same = chosen[:, dim] == chain[:, dim]
            # bfloat16 rounds otherwise where more rows go through at once: near ties may turn.
            assert bool((same | (gap < TOLERANCE[weights])).all())
            chain[:, dim] = chosen[:, dim]


def test_fewer_bytes(small_model):
    model, _ = small_model
    sizes = {}
    for weights in WEIGHTS:
        other = copy.deepcopy(model)
        prepare(other, weights)
        tensors = [*other.blocks.parameters(), *other.blocks.buffers()]
        sizes[weights] = sum(each.numel() * each.element_size() for each in tensors)
        if weights == 'bfloat16':  # packed tensors belong to oneDNN and are counted apart
            layers = [part for part in other.modules() if isinstance(part, Packed)]
            assert all(part.laid_out.dtype == torch.bfloat16 for part in layers)
    assert sizes['int8'] < 0.4 * sizes['float32']


def test_small_layers_stay_as_they_are_on_a_cpu(small_model, monkeypatch):
    monkeypatch.setattr(packed, 'PACKED_SIZE', 64 * 64 + 1)  # the other layers are larger
    for weights in ('float32', 'bfloat16'):
        other = copy.deepcopy(small_model[0])
        prepare(other, weights)
        assert isinstance(other.blocks[0].query, nn.Linear)
        assert isinstance(other.blocks[0].key_value, Packed)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_without_onednn_the_layers_still_run(dtype, monkeypatch):
    monkeypatch.setattr(packed, '_can_pack', lambda weight, dtype: False)
    layer, x = nn.Linear(64, 48), torch.randn(3, 64)
    with torch.no_grad():
        out = Packed(layer, dtype)(x)
        expected = functional.linear(x.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype))
    assert torch.equal(out, expected.float())


def test_unknown_weights_are_refused(small_model):
    with pytest.raises(TrainingError, match='float32, bfloat16, int8'):
        prepare(small_model[0], 'int4')


def test_statistics_are_folded_into_the_convolutions(encoder_with_statistics):
    model, images, state, text = encoder_with_statistics
    other = copy.deepcopy(model)
    prepare(other)
    assert not [name for name, _ in other.named_buffers() if 'running' in name]
    with torch.no_grad():
        before = model.encode_frames(images, state, text)
        after = other.encode_frames(images, state, text)
    assert torch.allclose(after, before, atol=1e-4 * float(before.abs().max()))


@pytest.mark.parametrize('weights', WEIGHTS)
def test_a_policy_is_loaded_with_the_weights_asked_for(trained_run, weights):
    run, observation = trained_run
    plain, policy = Policy.load(run), Policy.load(run, weights=weights)
    for each in (plain, policy):
        each.reset('go left')
    one, other = plain.act(observation), policy.act(observation)
    assert np.abs(one.q - other.q).max() < TOLERANCE[weights]
    with pytest.raises(TrainingError, match='int4'):
        Policy.load(run, weights='int4')
