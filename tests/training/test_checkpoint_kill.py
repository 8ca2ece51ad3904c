"""A process that is killed while it saves leaves the last checkpoint or the new one, whole."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from training import checkpoint

STATE = {'note': 'x' * 1000}


def network(step: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network whose weights say which step it is."""
    net = nn.Linear(64, 64)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(step)
    optimizer = torch.optim.AdamW(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return net, optimizer


def save(run: Path, step: int, keep: int) -> None:
    net, optimizer = network(step)
    checkpoint.save(run, step, net, net, optimizer, STATE, keep)


def killed_at(event: int, run: Path, step: int, keep: int) -> bool:
    """Save in another process that kills itself at its n-th access to files; False: it got by."""
    net, optimizer = network(step)
    child = os.fork()
    if child == 0:
        left = event

        def count(name: str, _: object) -> None:
            nonlocal left
            if name == 'open' or name.startswith(('os.', 'shutil.')):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            checkpoint.save(run, step, net, net, optimizer, STATE, keep)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize('again', [False, True], ids=['first-time', 'over-one-left-behind'])
def test_sigkill_at_every_access_to_a_file_leaves_a_whole_checkpoint(tmp_path, again):
    events = 0
    while True:
        events += 1
        run = tmp_path / str(events)
        save(run, 1, keep=1)
        if again:  # the run was once further, and went on from step 1
            save(run, 2, keep=0)
            checkpoint.write_json(run / 'latest.json', {'checkpoint': 'step_0000001'})
        finished = not killed_at(events, run, 2, keep=1)
        found = checkpoint.find(run)
        step = checkpoint.read_state(found)['step']
        assert step in ((2,) if finished else (1, 2))
        for folder in (run / 'checkpoints').glob('step_*'):
            assert checkpoint.read_state(folder)['note'] == STATE['note']
            for name in ('model', 'target'):
                net = nn.Linear(64, 64)
                checkpoint.load_weights(folder, name, net)
                assert net.weight[0, 0].round() == int(folder.name[-1])
            checkpoint.load_optimizer(folder, *network(0))
        checkpoint.remove_leftovers(run)
        save(run, 3, keep=1)
        assert checkpoint.read_state(checkpoint.find(run))['step'] == 3
        assert not list(run.rglob('*.tmp'))
        if finished:
            break
    assert events > 15  # it did count


def test_a_checkpoint_left_further_on_does_not_push_out_the_one_that_counts(tmp_path):
    for step in (6, 12):
        save(tmp_path, step, keep=0)
    save(tmp_path, 8, keep=1)
    assert checkpoint.find(tmp_path).name == 'step_0000008'
    names = sorted(p.name for p in (tmp_path / 'checkpoints').iterdir())
    assert names == ['step_0000008', 'step_0000012']
