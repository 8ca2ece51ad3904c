"""The report of what is finished: sums from the rows, and honest about what is missing."""

from __future__ import annotations

import csv

import pytest

pytest.importorskip('mujoco', reason='the simulated robot is not installed')

from bench.learning.cli import main
from bench.learning.places import Cell
from training.checkpoint import write_json

PICK, BIN = 'pick up the red block', 'put the red block in the bin'
ABOUT = {
    **{'train_steps': 3900, 'cpu_training_s': 600.0, 'cpu_judging_s': 60.0},
    **{'commit': 'abc', 'date': '2026-01-01', 'hardware': 'a processor', 'torch': '2', 'note': ''},
}


def finish(out, method, seed, pick, bin_, **about):
    cell = Cell(out, 'block', method, seed)
    cell.folder.mkdir(parents=True)
    rows = [
        {'task': task, 'successes': number, 'episodes': 50, 'steps': 20.5}
        for task, number in ((PICK, pick), (BIN, bin_))
    ]
    write_json(cell.result, {'rows': rows, **ABOUT, **about})


def report(out, to):
    assert main(['report', '--out', str(out), '--to', str(to), '--seeds', '0', '1']) == 0
    return (to / 'README.md').read_text()


def test_a_partial_report_sums_what_is_there_and_names_what_is_not(tmp_path):
    out, to = tmp_path / 'out', tmp_path / 'results'
    finish(out, 'q_transformer', 0, 40, 30)
    finish(out, 'q_transformer', 1, 45, 25)
    finish(out, 'bc_all', 0, 10, 0, note='training gave up: Q has collapsed')
    Cell(out, 'block', 'softmax', 0).folder.mkdir(parents=True)  # begun, not finished
    text = report(out, to)
    with open(to / 'block.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {(r['method'], r['seed']) for r in rows} == {
        ('q_transformer', '0'), ('q_transformer', '1'), ('bc_all', '0'),
    }  # fmt: skip
    ours = next(line for line in text.splitlines() if line.startswith('| Q-Transformer |'))
    assert '70% (63 to 76) of 200' in ours  # 140 of 200 by Wilson
    assert '85% (77 to 91) of 100' in ours
    assert '7.0 (3.9 to 12.7)' in ours  # .70 / .10
    assert '70 70' in ours
    missing = next(line for line in text.splitlines() if 'Not finished' in line)
    assert 'bc_all (seed 1)' in missing
    assert 'softmax (seed 0)' in missing
    assert 'q_transformer' not in missing
    assert 'hl_gauss' not in missing  # extras are not owed
    assert '| softmax regulariser' not in text
    assert 'bc_all, seed 0: training gave up: Q has collapsed' in text
    assert (to / 'block.png').read_bytes().startswith(b'\x89PNG')


def test_the_same_cells_give_the_same_files_and_more_cells_more(tmp_path):
    out = tmp_path / 'out'
    finish(out, 'bc_all', 0, 0, 0)
    finish(out, 'q_transformer', 0, 25, 25)
    first = report(out, tmp_path / 'one')
    assert report(out, tmp_path / 'two') == first
    for path in (tmp_path / 'one').iterdir():
        assert path.read_bytes() == (tmp_path / 'two' / path.name).read_bytes(), path.name
    assert '50 against 0' in first  # no ratio to nothing
    finish(out, 'hl_gauss', 0, 30, 30)  # an extra shows once it is there
    assert '| HL-Gauss head |' in report(out, tmp_path / 'one')


def test_without_a_finished_cell_there_is_no_table(tmp_path):
    Cell(tmp_path / 'out', 'block', 'q_transformer', 0).folder.mkdir(parents=True)
    text = report(tmp_path / 'out', tmp_path / 'results')
    assert 'no cell of it is finished yet' in text
    assert '|' not in text
    assert [path.name for path in (tmp_path / 'results').iterdir()] == ['README.md']


def test_the_outside_check_is_told_with_what_it_sees(tmp_path):
    out, to = tmp_path / 'out', tmp_path / 'results'
    finish(out, 'q_transformer', 0, 40, 30)
    assert 'd3rlpy' not in report(out, to)
    names = ('method', 'seed', 'task', 'successes', 'episodes', 'train_steps', 'date')
    with open(to / 'outside.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow([*names, 'cpu_training_s'])
        for seed, picks in ((0, 30), (1, 10)):
            writer.writerow(['iql', seed, PICK, picks, 50, 30000, '2026-01-01', 120.0])
            writer.writerow(['iql', seed, BIN, 0, 50, 30000, '2026-01-01', 120.0])
    text = report(out, to)
    row = next(line for line in text.splitlines() if line.startswith('| IQL |'))
    assert '| 30000 | 20% (' in row  # 40 of 200
    assert '40% (31 to 50) of 100' in row
    assert '| 2.0 |' in row
    assert 'see the poses of all blocks' in text
