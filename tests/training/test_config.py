import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from training.config import TrainConfig, load_config
from training.errors import TrainingError


def test_defaults_are_the_papers_loss():
    loss = load_config().loss
    assert (loss.target, loss.error, loss.alpha) == ('per_dim', 'squared', 1.0)
    assert (loss.gamma, loss.monte_carlo, loss.smoothing) == (0.98, True, 0.0)


def test_overrides_with_and_without_room():
    config = load_config(None, ['loss.alpha=8', 'steps=5', 'optim.lr=1e-3', 'channels=[4, 8, 8]'])
    assert (config.loss.alpha, config.optim.steps, config.optim.lr) == (8.0, 5, 1e-3)
    assert config.model.channels == (4, 8, 8)
    assert load_config(None, ['data.success_fraction=0.5']).data.success_fraction == 0.5
    assert load_config(None, ['data.success_fraction=null']).data.success_fraction is None


@pytest.mark.parametrize(
    ('override', 'words'),
    [
        ('loss.alfa=1', 'loss.alpha'),
        ('stepz=1', 'steps'),
        ('alpha', 'key=value'),
        ('model.width=wide', 'model.width'),
        ('optim.steps=1.5', 'optim.steps'),
        ('data.outcomes=success', 'data.outcomes'),
        ('loss.target=best', 'n_step'),
        ('model.maps=30', 'multiple of image_tokens'),
        ('data.batch=10', 'multiple of segment'),
        ('model.window=0', 'at least 1'),
        ('optim.ema=1.0', 'below 1'),
        ('model.kernels=[4, 3, 3]', 'odd'),
        ('loss.alpha=.nan', 'loss.alpha'),
    ],
)
def test_a_bad_override_names_what_is_allowed(override, words):
    with pytest.raises(TrainingError, match=words.replace('.', r'\.')):
        load_config(None, [override])


def test_all_problems_are_reported_at_once(tmp_path):
    preset = tmp_path / 'p.yaml'
    preset.write_text('modell: {}\nloss: {alhpa: 1, gamma: high}\n')
    with pytest.raises(TrainingError) as error:
        load_config(preset)
    assert len(error.value.problems) == 3
    assert "'model'" in str(error.value)
    assert "'alpha'" in str(error.value)


@pytest.mark.parametrize('text', ['[1, 2]', 'loss: 3', 'a: b: c', '"just text"'])
def test_a_preset_that_is_no_mapping_is_refused(tmp_path, text):
    preset = tmp_path / 'p.yaml'
    preset.write_text(text)
    with pytest.raises(TrainingError, match=r'p\.yaml'):
        load_config(preset)


def test_missing_preset_is_refused(tmp_path):
    with pytest.raises(TrainingError, match='cannot be read'):
        load_config(tmp_path / 'none.yaml')


@pytest.mark.parametrize('name', ['tiny', 'small', 'base', 'large'])
def test_every_preset_loads_and_survives_yaml(name, pytestconfig):
    preset = pytestconfig.rootpath / 'config' / 'training' / f'{name}.yaml'
    config = load_config(preset)
    plain = yaml.safe_load(yaml.safe_dump(yaml.safe_load(str(config.to_json()).replace('(', '[')
                                          .replace(')', ']').replace('None', 'null')
                                          .replace('True', 'true'))))  # fmt: skip
    assert TrainConfig.from_json(plain) == config


@given(st.text(max_size=20))
def test_no_text_breaks_the_parser(text):
    with contextlib.suppress(TrainingError):
        load_config(None, [text, f'loss.alpha={text}'])
