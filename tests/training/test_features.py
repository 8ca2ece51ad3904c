"""A frozen encoder: it stays as it is, and its features may come from disk."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from made_caches import random_episodes, write_cache
from safetensors.torch import load_file, save_file

from training import checkpoint
from training.cache import Cache
from training.data import Replay
from training.efficientnet import ConvNorm, EfficientNet, _torchvision_name
from training.errors import TrainingError
from training.features import frame_features
from training.learner import Learner
from training.model import QTransformer
from training.policy import Policy
from training.train import load_image_weights, train
from training.vision import CameraEncoder


@dataclasses.dataclass
class Observation:
    images: dict
    state: np.ndarray


CAMERAS = {'front': (40, 64), 'wrist': (33, 32)}
OUTCOMES = ['success', 'failure', 'success']


def made_weights(seed=0):
    """Weights of a b0 by torchvision's names, with statistics of what really passes through."""
    torch.manual_seed(seed)
    net = EfficientNet('efficientnet_b0', 0, frozen=True)

    def calibrate(layer, inputs):
        features = layer.conv(inputs[0])
        layer.norm.running_mean.copy_(features.mean((0, 2, 3)))
        layer.norm.running_var.copy_(features.var((0, 2, 3)))

    for part in net.modules():
        if isinstance(part, ConvNorm):
            part.register_forward_pre_hook(calibrate)
    with torch.no_grad():
        net(torch.randint(0, 256, (8, 64, 64, 3), dtype=torch.uint8), torch.zeros(1))
    return {
        net._outer_name(key, _torchvision_name): value.contiguous()
        for key, value in net.state_dict().items()
    }


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / 'b0.safetensors'
    save_file(made_weights(), path)
    return path


@pytest.fixture
def frames(tmp_path):
    episodes = random_episodes([4, 3, 5], OUTCOMES, cameras=CAMERAS)
    return write_cache(tmp_path / 'frames', episodes, cameras=CAMERAS)


@pytest.fixture
def frozen(weights, small_config):
    def make(*overrides):
        return small_config(
            'model.encoder=efficientnet_b0', f'model.weights={weights}',
            'model.freeze_encoder=true', 'data.shift_px=0', 'optim.steps=3', *overrides,
        )  # fmt: skip

    return make


def encoder_of(config, size=CAMERAS['front'], seed=0):
    encoder = CameraEncoder(config.model, size)
    encoder.net.load_imagenet(made_weights(seed), 'made')
    return encoder


def alike(one, two):
    """Whether features are the same but for rounding, which depends on the size of a batch."""
    return np.allclose(one, two, rtol=2e-3, atol=2e-3)


def test_a_frozen_encoder_stays_and_what_follows_learns(frames, tmp_path, frozen, weights):
    result = train([frames], tmp_path / 'run', frozen('data.shift_px=2', 'data.color_jitter=0.2'))
    folder = checkpoint.find(result.run)
    model, target = (load_file(folder / f'{name}.safetensors') for name in ('model', 'target'))
    given = load_file(weights)
    stem = 'cameras.0.net.stem.conv.weight'
    assert torch.equal(model[stem], given['features.0.0.weight'])
    inner = [name for name in model if '.net.' in name]
    assert all(torch.equal(model[name], target[name]) for name in inner)
    moments = load_file(folder / 'optimizer.safetensors')
    assert not [name for name in moments if '.net.' in name]
    assert model['cameras.0.film.weight'].abs().max() > 0  # the instruction acts on the features
    assert 'exp_avg/cameras.1.film.weight' in moments


def test_stored_features_make_the_gradient_that_frames_make(frames, frozen, weights):
    """Features are rounded to float16, by at most 5e-4 of each."""
    gradients = []
    for stored in (False, True):
        config = frozen(f'data.cache_features={str(stored).lower()}')
        data = Replay(
            [frames], config.data, window=2, gamma=0.9, text_encoder='hashed', text_size=16
        )
        torch.manual_seed(0)
        model = QTransformer(config.model, data.signature)
        load_image_weights(model, weights)
        learner = Learner(model, config, torch.device('cpu'))
        if stored:
            made = {n: frame_features(c, n, e) for c in data.caches for n, e in zip(
                model.camera_names, model.encoders, strict=True)}  # fmt: skip
            data.show([made])
            assert data.batch(1).images['front'].dtype == torch.float16
        learner._gradient(data.batch(1))
        gradients.append(
            torch.cat([p.grad.flatten() for p in learner.weights if p.grad is not None])
        )
    one, two = gradients
    assert torch.norm(one - two) < 2e-3 * torch.norm(one)
    assert not torch.equal(one, two)


def test_a_policy_sees_frames_whatever_it_was_trained_from(frames, tmp_path, frozen):
    runs = [
        train([frames], tmp_path / f'{stored}', frozen(f'data.cache_features={stored}'))
        for stored in ('true', 'false')
    ]
    assert runs[0].metrics['loss'] == pytest.approx(runs[1].metrics['loss'], rel=1e-2)
    cache = Cache.open(frames)
    look = Observation({name: cache.images[name][3] for name in CAMERAS}, cache.state[3])
    values = []
    for run in runs:
        policy = Policy.load(run.run)
        policy.reset('go left')
        values.append(np.concatenate(policy.act(look).q_values))
    assert np.allclose(*values, atol=2e-3)


def test_resume_with_stored_features_is_exact_without_the_file_of_weights(
    frames, tmp_path, frozen, weights
):
    config = frozen('data.cache_features=true', 'optim.steps=6')
    train([frames], tmp_path / 'whole', config)
    part = tmp_path / 'part'

    def crash(row):
        raise KeyboardInterrupt

    few = frozen('data.cache_features=true', 'optim.steps=6', 'save_every=4', 'log_every=5')
    with pytest.raises(KeyboardInterrupt):
        train([frames], part, few, progress=crash)
    weights.unlink()
    train([frames], part, resume=True)
    for name in ('model', 'target', 'optimizer'):
        one, two = (
            load_file(checkpoint.find(run) / f'{name}.safetensors')
            for run in (tmp_path / 'whole', part)
        )
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name


def counted(monkeypatch):
    """Count the frames that an encoder really looks at."""
    seen = []
    features = CameraEncoder.features

    def counting(self, images, text):
        seen.append(len(images))
        return features(self, images, text)

    monkeypatch.setattr(CameraEncoder, 'features', counting)
    return seen


def test_features_are_those_of_the_frames_and_made_once(frames, frozen, monkeypatch):
    encoder = encoder_of(frozen())
    cache = Cache.open(frames)
    seen = counted(monkeypatch)
    found = frame_features(cache, 'front', encoder)
    assert (found.shape, found.dtype) == ((12, 2, 2, 320), np.float16)
    assert sum(seen) == 12
    images = torch.from_numpy(np.array(cache.images['front']))
    with torch.no_grad():
        wanted = encoder.net(images, torch.zeros(1, 1)).permute(0, 2, 3, 1)
    assert np.allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-4)
    again = frame_features(Cache.open(frames), 'front', encoder)
    assert sum(seen) == 12
    assert np.array_equal(found, again)
    with pytest.raises(ValueError, match='read-only'):
        again[0] = 0


def test_appended_episodes_are_added_and_changed_ones_made_again(
    frames, tmp_path, frozen, monkeypatch
):
    encoder = encoder_of(frozen())
    seen = counted(monkeypatch)
    first = np.array(frame_features(Cache.open(frames), 'front', encoder))
    episodes = random_episodes([4, 3, 5], OUTCOMES, cameras=CAMERAS)
    write_cache(frames, random_episodes([6], ['failure'], 5, CAMERAS), cameras=CAMERAS)
    longer = frame_features(Cache.open(frames), 'front', encoder)
    assert sum(seen) == 12 + 6
    assert np.array_equal(longer[:12], first)
    assert np.abs(longer[12:].astype(np.float32)).max() > 0
    # Another picture in the second of three episodes: from there on.
    episodes[1]['images']['front'][2] ^= 255
    for file in ('meta.json', *(p.name for p in frames.glob('*.u8'))):
        (frames / file).unlink()
    write_cache(frames, episodes, cameras=CAMERAS)
    changed = frame_features(Cache.open(frames), 'front', encoder)
    assert sum(seen) == 12 + 6 + 3 + 5
    assert alike(changed[:6], first[:6])
    assert not alike(changed[6], first[6])
    assert alike(changed[7:], first[7:])


def test_other_weights_have_files_of_their_own_and_damage_is_made_good(
    frames, frozen, monkeypatch
):
    seen = counted(monkeypatch)
    one, other = (encoder_of(frozen(), seed=seed) for seed in (0, 1))
    cache = Cache.open(frames)
    before = np.array(frame_features(cache, 'front', one))
    assert not np.array_equal(before, frame_features(cache, 'front', other))
    files = sorted((frames / 'features').iterdir())
    assert len(files) == 4
    for damage in ('record', 'short', 'gone'):
        number = sum(seen)
        if damage == 'record':
            [f.write_text('{"version": 1') for f in files if f.suffix == '.json']
        elif damage == 'short':
            [f.write_bytes(f.read_bytes()[:-9]) for f in files if f.suffix == '.f16']
        else:
            [f.unlink() for f in files]
        assert alike(before, frame_features(cache, 'front', one)), damage
        assert sum(seen) > number


def test_features_beyond_float16_and_a_full_disk_are_told(frames, frozen, monkeypatch):
    cache, encoder = Cache.open(frames), encoder_of(frozen())
    with torch.no_grad():
        encoder.net.blocks[-1].project.norm.bias.fill_(1e6)
    with pytest.raises(TrainingError, match='float16'):
        frame_features(cache, 'front', encoder)
    usage = dataclasses.make_dataclass('Usage', ['free'])(10)
    monkeypatch.setattr('training.features.shutil.disk_usage', lambda _: usage)
    with pytest.raises(TrainingError, match='make room'):
        frame_features(cache, 'wrist', encoder)


@pytest.mark.parametrize(
    ('overrides', 'words'),
    [
        (['model.weights=""'], 'needs model.weights'),
        (['model.freeze_encoder=false', 'data.cache_features=true'], 'freeze_encoder=true'),
        (['data.shift_px=1', 'data.cache_features=true'], 'shift_px=0'),
        (['data.color_jitter=0.1', 'data.cache_features=true'], 'color_jitter=0'),
        (['data.color_jitter=1.0'], r'color_jitter=1\.0; between 0'),
        (['data.color_jitter=-0.1'], r'color_jitter=-0\.1; between 0'),
        (['optim.ahead=-1'], 'ahead=-1; between 0'),
    ],
)
def test_options_that_contradict_each_other_are_told(frozen, overrides, words):
    with pytest.raises(TrainingError, match=words):
        frozen(*overrides)
