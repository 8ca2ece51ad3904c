"""Images that are encoded as they arrive give the decisions of those that are encoded in time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.untrained import make_run
from qt_ros.contract import Contract
from qt_ros.presets import preset_path
from qt_ros.resources import resource
from training.config import load_config
from training.errors import TrainingError
from training.policy import Policy


@dataclass(frozen=True)
class Observed:
    images: dict[str, np.ndarray]
    state: np.ndarray


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cameras, an untrained network."""
    contract = Contract.load(resource('config/robots/block_arm.yaml'))
    config = load_config(preset_path('tiny'), [])
    return make_run(tmp_path_factory.mktemp('run'), contract.to_yaml(), config)


def started(run: Path) -> Policy:
    policy = Policy.load(run)
    policy.embeddings['go'] = np.ones(policy.model.config.text_size, np.float32)
    policy.embeddings['stop'] = -policy.embeddings['go']
    policy.reset('go')
    return policy


def observed(policy: Policy, seed: int) -> Observed:
    rng = np.random.default_rng(seed)
    images = {
        name: rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        for name, size in policy.cameras.items()
    }
    return Observed(images, rng.normal(size=len(policy.state_names)).astype(np.float32))


@pytest.mark.parametrize('cameras', [('front', 'wrist'), ('wrist',)])
def test_decisions_stay_what_they_are(run: Path, cameras: tuple[str, ...]) -> None:
    plain, ahead = started(run), started(run)
    encoded = []
    encode = ahead.model.encode_image

    def counted(camera, images, text):
        encoded.append(camera)
        return encode(camera, images, text)

    ahead.model.encode_image = counted
    for seed in range(6):
        observation = observed(plain, seed)
        for camera in cameras:
            ahead.see(camera, observed(plain, 100 + seed).images[camera])  # never observed
            ahead.see(camera, observation.images[camera])
        expected = plain.act(observation)
        ahead.observe(observation)
        got = ahead.decide()
        np.testing.assert_allclose(got.q, expected.q, atol=1e-5)
        assert got.bins.tolist() == expected.bins.tolist()
    # What was seen is not encoded a second time.
    assert len(encoded) == 6 * (2 * len(cameras) + (2 - len(cameras)))


def test_what_was_seen_under_another_instruction_is_forgotten(run: Path) -> None:
    plain, ahead = started(run), started(run)
    observation = observed(plain, 0)
    for camera, image in observation.images.items():
        ahead.see(camera, image)
    for policy in (plain, ahead):
        policy.reset('stop')
    assert torch.equal(
        torch.from_numpy(ahead.act(observation).q), torch.from_numpy(plain.act(observation).q)
    )


def test_what_does_not_fit_is_refused_when_it_is_observed(run: Path) -> None:
    policy = started(run)
    good = observed(policy, 0)
    policy.see('front', np.zeros((8, 8, 3), np.uint8))
    policy.see('front', good.images['front'])
    with pytest.raises(TrainingError, match='state is not finite'):
        policy.observe(Observed(good.images, np.full_like(good.state, np.nan)))
    with pytest.raises(TrainingError, match='camera wrist is missing'):
        policy.observe(Observed({'front': good.images['front']}, good.state))
