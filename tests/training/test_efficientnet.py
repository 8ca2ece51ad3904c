"""EfficientNet with FiLM: sizes as published, weights by the names of others, nothing silent."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from training import checkpoint
from training.efficientnet import SIZES, ConvNorm, EfficientNet
from training.errors import TrainingError
from training.train import train

# Parameters without head and top convolution, as torchvision's own networks count them.
PUBLISHED = {
    'efficientnet_b0': 3_595_388,
    'efficientnet_b1': 6_101_024,
    'efficientnet_b2': 7_202_562,
    'efficientnet_b3': 10_103_336,
}


def images(number=2, size=(40, 64)):
    torch.manual_seed(1)
    return torch.randint(0, 256, (number, *size, 3), dtype=torch.uint8)


def torchvision_weights(net: EfficientNet) -> dict[str, torch.Tensor]:
    """A state dict under torchvision's names, written out by hand for the parts that differ."""
    from training.efficientnet import _torchvision_name

    names = {k: net._outer_name(k, _torchvision_name) for k in net.state_dict() if 'film' not in k}
    torch.manual_seed(5)
    return {
        theirs: torch.rand(net.state_dict()[ours].shape) * 0.2 + (0.5 if 'var' in theirs else 0)
        for ours, theirs in names.items()
    }


@pytest.mark.parametrize('name', SIZES)
def test_sizes_are_the_published_ones(name):
    net = EfficientNet(name, 16, frozen=True)
    weights = sum(p.numel() for n, p in net.named_parameters() if not n.startswith('film'))
    assert weights == PUBLISHED[name]
    features = net(images(1), torch.zeros(1, 16))
    assert features.shape == (1, net.channels, *net.grid((40, 64)))


@pytest.mark.parametrize('frozen', [True, False])
def test_film_starts_as_the_identity_and_then_matters(frozen):
    torch.manual_seed(0)
    net = EfficientNet('efficientnet_b0', 16, frozen)
    pictures = images()
    one, other = torch.zeros(2, 16), torch.randn(2, 16)
    assert torch.equal(net(pictures, one), net(pictures, other))
    with torch.no_grad():
        net.film.weight.add_(0.05 * torch.randn_like(net.film.weight))
    assert not torch.allclose(net(pictures, one), net(pictures, other))


def test_the_statistics_of_loaded_weights_stay_and_the_rest_learns():
    net = EfficientNet('efficientnet_b0', 16, frozen=True)
    net.load_imagenet(torchvision_weights(net), 'made')
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    net(images(), torch.ones(2, 16)).square().mean().backward()
    optimizer.step()
    after = net.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if 'running' in name} <= still
    assert not {n for n in still if n.endswith('conv.weight') or n == 'film.weight'}


@pytest.mark.parametrize('groups', [1, 8])
def test_normalising_the_weights_is_normalising_the_features(groups):
    torch.manual_seed(0)
    layer = ConvNorm(8, 16, 3, 2, groups, frozen=True)
    with torch.no_grad():
        for value in (*layer.norm.parameters(), *layer.norm.buffers()):
            value.uniform_(0.5, 2)
    x = torch.randn(2, 8, 9, 9)
    norm = layer.norm
    wanted = functional.batch_norm(
        layer.conv(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
    )
    assert torch.allclose(layer(x), wanted, rtol=1e-4, atol=1e-5)
    ours, theirs = (
        torch.autograd.grad(y.square().sum(), list(layer.parameters())) for y in (layer(x), wanted)
    )
    for one, two in zip(ours, theirs, strict=True):
        assert torch.allclose(one, two, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('frozen', [True, False])
def test_half_precision_keeps_depthwise_convolutions_whole_on_a_cpu(frozen):
    torch.manual_seed(0)
    layer = ConvNorm(8, 8, 3, 1, 8, frozen)
    x = torch.randn(2, 8, 9, 9, dtype=torch.bfloat16)
    with torch.autocast('cpu', torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, layer(x.float()).to(torch.bfloat16))


def test_names_of_torchvision_and_timm():
    """The places where the two differ, and where a block without expansion does."""
    from training.efficientnet import _timm_name, _torchvision_name

    net = EfficientNet('efficientnet_b0', 16, frozen=True)
    pairs = {
        'stem.conv.weight': ('features.0.0.weight', 'conv_stem.weight'),
        'stem.norm.running_var': ('features.0.1.running_var', 'bn1.running_var'),
        'blocks.0.depthwise.conv.weight': (
            'features.1.0.block.0.0.weight', 'blocks.0.0.conv_dw.weight'),
        'blocks.0.reduce.bias': (
            'features.1.0.block.1.fc1.bias', 'blocks.0.0.se.conv_reduce.bias'),
        'blocks.0.project.norm.bias': ('features.1.0.block.2.1.bias', 'blocks.0.0.bn2.bias'),
        'blocks.2.expand.conv.weight': (
            'features.2.1.block.0.0.weight', 'blocks.1.1.conv_pw.weight'),
        'blocks.2.excite.weight': (
            'features.2.1.block.2.fc2.weight', 'blocks.1.1.se.conv_expand.weight'),
        'blocks.15.project.norm.weight': (
            'features.7.0.block.3.1.weight', 'blocks.6.0.bn3.weight'),
    }  # fmt: skip
    for ours, (torchvision, timm) in pairs.items():
        assert ours in net.state_dict()
        assert net._outer_name(ours, _torchvision_name) == torchvision
        assert net._outer_name(ours, _timm_name) == timm


def test_both_namings_give_the_same_network():
    from training.efficientnet import _timm_name, _torchvision_name

    net = EfficientNet('efficientnet_b0', 16, frozen=True)
    weights, loaded = torchvision_weights(net), []
    for rename in (_torchvision_name, _timm_name):
        named = {
            net._outer_name(key, rename): weights[net._outer_name(key, _torchvision_name)]
            for key in net.state_dict()
            if 'film' not in key
        }
        other = EfficientNet('efficientnet_b0', 16, frozen=True)
        other.load_imagenet({**named, 'classifier.weight': torch.zeros(2)}, 'made')
        loaded.append(other.state_dict())
    assert all(
        torch.equal(loaded[0][key], loaded[1][key]) for key in loaded[0] if 'film' not in key
    )


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        ('partial', 'features.7.0.block.3.1.weight is missing'),
        ('shape', r'features.0.0.weight is \(3,\), not \(32, 3, 3, 3\)'),
        ('prefix', 'such as backbone.features'),
        ('empty', 'such as none'),
    ],
)
def test_weights_that_do_not_fit_are_described_and_nothing_is_loaded(damage, words):
    net = EfficientNet('efficientnet_b0', 16, frozen=True)
    weights = torchvision_weights(net)
    if damage == 'partial':
        del weights['features.7.0.block.3.1.weight']
    elif damage == 'shape':
        weights['features.0.0.weight'] = torch.zeros(3)
    elif damage == 'prefix':
        weights = {f'backbone.{key}': value for key, value in weights.items()}
    else:
        weights = {}
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(TrainingError, match=words):
        net.load_imagenet(weights, 'made')
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_a_run_starts_from_a_file_of_weights(cache, tmp_path, small_config):
    net = EfficientNet('efficientnet_b0', 16, frozen=True)
    weights = torchvision_weights(net)
    save_file({**weights, 'classifier.1.weight': torch.zeros(3)}, tmp_path / 'b0.safetensors')
    overrides = [
        'model.encoder=efficientnet_b0', f'model.weights={tmp_path / "b0.safetensors"}',
        'model.pool=token_learner', 'optim.steps=1', 'optim.lr=1e-9', 'optim.weight_decay=0',
    ]  # fmt: skip
    result = train([cache], tmp_path / 'run', small_config(*overrides))
    (tmp_path / 'b0.safetensors').unlink()  # the policy needs it no more
    from training.policy import Policy

    Policy.load(result.run)
    kept = load_file(checkpoint.find(result.run) / 'target.safetensors')
    assert torch.allclose(
        kept['cameras.0.net.stem.conv.weight'], weights['features.0.0.weight'], atol=1e-6
    )


def test_files_that_do_not_fit_are_refused(cache, tmp_path, small_config):
    wrong = EfficientNet('efficientnet_b2', 16, frozen=True)
    save_file(torchvision_weights(wrong), tmp_path / 'b2.safetensors')
    (tmp_path / 'b0.pth').write_bytes(b'\x80\x04not a safetensors file')
    for name, words in (('b2.safetensors', 'is .* not'), ('b0.pth', 'safetensors'), ('no', 'no')):
        config = small_config(
            'model.encoder=efficientnet_b0', f'model.weights={tmp_path / name}', 'optim.steps=1'
        )
        with pytest.raises(TrainingError, match=words):
            train([cache], tmp_path / 'run', config)
    assert not (tmp_path / 'run').exists()
