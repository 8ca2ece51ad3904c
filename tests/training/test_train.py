import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from made_caches import random_episodes, write_cache
from made_learners import same, weights
from safetensors.torch import load_file

from training import checkpoint
from training.errors import TrainingError
from training.metrics import read_metrics
from training.text import encode_text
from training.train import resolve_device, train


def test_where_figures_take_long_the_step_is_told_alone(
    cache, tmp_path, small_config, monkeypatch
):
    monkeypatch.setattr('training.train._SILENCE_S', -1.0)  # every step is a long time
    rows = []
    train([cache], tmp_path / 'run', small_config(), progress=rows.append)
    assert [row['step'] for row in rows if 'loss' in row] == [4, 8, 12]
    assert [row for row in rows if 'loss' not in row] == [
        {'step': step, 'steps': 12} for step in range(1, 13)
    ]


def test_what_a_run_leaves_behind(cache, tmp_path, small_config):
    rows = []
    result = train([cache], tmp_path / 'run', small_config('keep=1'), progress=rows.append)
    run = result.run
    folders = [p.name for p in (run / 'checkpoints').iterdir()]
    assert folders == ['step_0000012']
    names = {p.name for p in (run / 'checkpoints' / folders[0]).iterdir()}
    assert names == {
        'model.safetensors', 'target.safetensors', 'optimizer.safetensors', 'state.json'
    }  # fmt: skip
    assert json.loads((run / 'latest.json').read_text()) == {'checkpoint': folders[0]}
    assert list((run / 'tensorboard').iterdir())
    assert [row['step'] for row in rows] == [4, 8, 12]
    assert rows[0]['steps'] == 12
    assert {'loss', 'td', 'conservative', 'q_success', 'q_failure', 'gap'} <= rows[0].keys()
    assert result.metrics == read_metrics(run)[-1]
    state = checkpoint.read_state(run / 'checkpoints' / folders[0])
    assert state['policy_id'] == result.policy_id
    assert result.policy_id.startswith('run@12-')
    assert state['signature']['contract'] == 'name: test\n'
    assert set(state['instructions']) == {'go left', 'go right'}
    assert not list(run.rglob('*.tmp'))


def test_a_finished_run_resumes_to_itself_and_can_be_prolonged(cache, tmp_path, small_config):
    run = tmp_path / 'run'
    first = train([cache], run, small_config('optim.steps=6'))
    before = weights(run)
    again = train([cache], run, resume=True)
    assert again.policy_id == first.policy_id
    assert same(before, weights(run))
    longer = train([cache], run, small_config('optim.steps=8'), resume=True)
    assert longer.steps == 8
    assert longer.policy_id != first.policy_id


@pytest.mark.parametrize('how', ['resume', 'init_from', 'another encoder'])
def test_instructions_are_encoded_once(cache, tmp_path, small_config, how):
    """What the checkpoint holds of them is used again, also where its encoder is gone."""
    run = train([cache], tmp_path / 'a', small_config('optim.steps=6')).run
    file = checkpoint.find(run) / 'state.json'
    state = json.loads(file.read_text())
    state['instructions']['go left'] = [0.25] * 16
    file.write_text(json.dumps(state))
    more = write_cache(
        tmp_path / 'more', [{**random_episodes([4], ['success'])[0], 'instruction': 'go up'}]
    )
    out = run if how == 'resume' else tmp_path / 'b'
    if how == 'another encoder':
        with pytest.raises(TrainingError, match='text_size: 16 -> 8'):
            train([cache], out, small_config('model.text_size=8'), init_from=run)
        return
    start = {'resume': True} if how == 'resume' else {'init_from': run}
    train([cache, more], out, small_config('optim.steps=7'), **start)
    stored = checkpoint.read_state(checkpoint.find(out))['instructions']
    assert stored['go left'] == [0.25] * 16
    assert stored['go right'] == state['instructions']['go right']
    assert np.allclose(stored['go up'], encode_text('go up', 'hashed', 16))


def test_init_from_starts_with_the_averaged_weights(cache, tmp_path, small_config):
    train([cache], tmp_path / 'a', small_config())
    more = write_cache(tmp_path / 'more', random_episodes([9], ['success'], seed=9))
    config = small_config('optim.steps=1', 'optim.lr=1e-12', 'optim.ema=0.0')
    train([cache, more], tmp_path / 'b', config, init_from=tmp_path / 'a')
    old = load_file(checkpoint.find(tmp_path / 'a') / 'target.safetensors')
    new = load_file(checkpoint.find(tmp_path / 'b') / 'model.safetensors')
    assert all(torch.allclose(old[key], new[key], atol=1e-6) for key in old)


def test_requests_that_do_not_fit_say_what_to_do(cache, tmp_path, small_config):
    run = tmp_path / 'run'
    config = small_config('optim.steps=1')
    with pytest.raises(TrainingError, match='no run to resume'):
        train([cache], run, config, resume=True)
    train([cache], run, config)
    with pytest.raises(TrainingError, match='already holds a run'):
        train([cache], run, config)
    with pytest.raises(TrainingError, match=r'loss\.alpha: 1\.0 -> 3\.0'):
        train([cache], run, small_config('optim.steps=1', 'alpha=3'), resume=True)
    with pytest.raises(TrainingError, match='only one'):
        train([cache], run, config, resume=True, init_from=run)
    with pytest.raises(TrainingError, match=r'model\.width: 16 -> 32'):
        train([cache], tmp_path / 'x', small_config('model.width=32'), init_from=run)
    with pytest.raises(TrainingError, match='no checkpoint'):
        train([cache], tmp_path / 'x', config, init_from=tmp_path / 'nothing')
    with pytest.raises(TrainingError, match='at least one dataset'):
        train([], tmp_path / 'x', config)
    with pytest.raises(TrainingError, match='no training cache'):
        train([tmp_path / 'nowhere'], tmp_path / 'x', config)
    other = write_cache(tmp_path / 'other', random_episodes([5], ['success'], size=2), size=2)
    with pytest.raises(TrainingError, match='other data: state'):
        train([other], tmp_path / 'x', config, init_from=run)
    assert not (tmp_path / 'x').exists()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_and_the_run_can_go_on(cache, tmp_path, small_config, number):
    whole = train([cache], tmp_path / 'whole', small_config())
    before = signal.getsignal(number)
    run = tmp_path / 'run'

    def interrupt(row):
        if row['step'] == 4:
            os.kill(os.getpid(), number)

    result = train([cache], run, small_config(), progress=interrupt)
    assert signal.getsignal(number) is before
    assert result.stopped
    assert result.steps == 5  # the step in hand is finished, and not lost
    assert checkpoint.find(run).name == 'step_0000005'
    assert read_metrics(run)[-1]['step'] == 5
    assert train([cache], run, resume=True).steps == whole.steps
    assert same(weights(tmp_path / 'whole'), weights(run))


def test_training_works_outside_the_main_thread(cache, tmp_path, small_config):
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(train, [cache], tmp_path / 'run', small_config('optim.steps=1'))
        assert future.result().steps == 1


def test_a_checkpoint_is_whole_or_absent(cache, tmp_path, small_config, monkeypatch):
    run = tmp_path / 'run'
    train([cache], run, small_config('optim.steps=6'))

    def full_disk(*_args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(checkpoint, '_moments', full_disk)
    with pytest.raises(OSError, match='No space'):
        train([cache], run, small_config(), resume=True)
    monkeypatch.undo()
    assert checkpoint.find(run).name == 'step_0000006'
    assert train([cache], run, small_config(), resume=True).steps == 12
    assert not list(run.rglob('*.tmp'))


@pytest.mark.parametrize('damage', ['model.safetensors', 'optimizer.safetensors', 'state.json'])
def test_a_damaged_file_is_named(cache, tmp_path, small_config, damage):
    run = tmp_path / 'run'
    train([cache], run, small_config('optim.steps=6'))
    file = checkpoint.find(run) / damage
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(TrainingError, match=damage):
        train([cache], run, small_config(), resume=True)


def test_a_pointer_to_nothing_lists_what_is_there(cache, tmp_path, small_config):
    run = tmp_path / 'run'
    train([cache], run, small_config('optim.steps=6'))
    (run / 'latest.json').write_text('{"checkpoint": "step_0000099"}')
    with pytest.raises(TrainingError, match='step_0000006'):
        checkpoint.find(run)
    (run / 'latest.json').write_text('not json')
    with pytest.raises(TrainingError, match='cannot be read'):
        checkpoint.find(run)


def test_unknown_devices_are_refused():
    assert resolve_device('cpu').type == 'cpu'
    with pytest.raises(TrainingError, match='auto, cpu or cuda'):
        resolve_device('abacus')
