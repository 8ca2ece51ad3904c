import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from training.config import TrainConfig, load_config
from training.config_checks import CHOICES, RANGES
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
        ('model.window=0', 'between 1 and'),
        ('optim.ema=1.0', 'between 0 and'),
        ('model.kernels=[4, 3, 3]', 'odd'),
        ('loss.alpha=.nan', 'loss.alpha'),
        ('optim.lr=.inf', 'between'),
        ('optim.warmup_steps=-1', 'optim.warmup_steps=-1'),
        ('model.channels=[8, 8]', 'as many as kernels'),
        ('model.channels=[8, 0, 8]', 'at least 1 each'),
        ('model.kernels=[3, -3, 3]', 'at least 1 each'),
        ('optim.accumulate=9', '1 to the number of segments in a batch, 8'),
        ('data.success_fraction=0.05', 'of 8 segments in a batch that is 0'),
        ('model.weights=a.safetensors', 'only an EfficientNet'),
        ('model.return_token=true', 'cloning'),
        ('model.atoms=51', 'hl_gauss'),
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


def test_overrides_with_all_kinds_of_mistakes_are_reported_at_once():
    wrong = ['loss.alfa=1', 'alpha', 'model.width=wide', 'gamma=2', 'data.batch=10', 'layers=0']
    with pytest.raises(TrainingError) as error:
        load_config(None, wrong)
    assert len(error.value.problems) == len(wrong)
    words = str(error.value)
    for each in ("'loss.alpha'?", 'key=value', "'wide'", 'loss.gamma=2', 'segment=8', 'layers=0'):
        assert each in words
    # What could not be read has no other problem.
    with pytest.raises(TrainingError) as error:
        load_config(None, ['model.window=none at all'])
    assert len(error.value.problems) == 1


def test_every_number_has_a_range_and_every_name_its_choices():
    free = {'model.weights', 'optim.device'}
    checked = {*RANGES, *CHOICES, *free}
    for room, values in load_config().to_json().items():
        for name, value in values.items():
            plain = isinstance(value, (bool, tuple, list))
            assert plain or f'{room}.{name}' in checked, f'{room}.{name}'


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
