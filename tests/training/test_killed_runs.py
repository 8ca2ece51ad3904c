"""A training process that is stopped from outside, and its run afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from training import checkpoint
from training.metrics import read_metrics
from training.train import train

SCRIPT = """
import json
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from training.config import TrainConfig
from training.train import train
result = train(
    [Path(sys.argv[1])],
    Path(sys.argv[2]),
    TrainConfig.from_json(json.loads(sys.argv[3])),
    progress=lambda row: print(row['step'], flush=True),
)
sys.exit(7 if result.stopped else 0)
"""


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_a_run_goes_on_as_if_nothing_had_happened(cache, tmp_path, small_config, number):
    """Killed while it trains, or while it saves what it saves after every step."""
    config = small_config('optim.log_every=1', 'optim.save_every=1', 'optim.keep=2')
    run = tmp_path / 'run'
    command = [sys.executable, '-c', SCRIPT, str(cache), str(run), json.dumps(config.to_json())]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 4:
            pass
        process.send_signal(number)
        process.stdout.read()
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 7)
    reached = checkpoint.read_state(checkpoint.find(run))['step']
    assert 3 <= reached < config.optim.steps
    if number == signal.SIGTERM:
        assert read_metrics(run)[-1]['step'] == reached
    assert train([cache], run, resume=True).steps == 12
    assert not list(run.rglob('*.tmp'))
    whole = train([cache], tmp_path / 'whole', config).run
    for name in ('model', 'target', 'optimizer'):
        one, other = (
            load_file(checkpoint.find(each) / f'{name}.safetensors') for each in (run, whole)
        )
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    steps = [row['step'] for row in read_metrics(run)]
    assert steps == list(range(1, 13))
