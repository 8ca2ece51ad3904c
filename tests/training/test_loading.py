"""Batches gathered ahead are the same batches; the thread ends with the run, however that ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import closing

import pytest
import torch
from safetensors.torch import load_file

from training import checkpoint
from training.data import Replay
from training.errors import TrainingError
from training.loading import batches, usable_cores, useful_ahead
from training.train import train

CPU = torch.device('cpu')


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith('batches')]


def model_of(run):
    return load_file(checkpoint.find(run) / 'model.safetensors')


@pytest.mark.parametrize('ahead', [0, 1, 2, 5, 50])
def test_batches_come_in_order_and_no_more_than_ahead_are_made(ahead):
    made, seen = [], []

    def gather(step):
        made.append(step)
        return step

    with closing(batches(gather, range(7, 20), ahead, CPU)) as coming:
        for step in coming:
            seen.append(step)
            assert max(made) <= step + ahead
    assert seen == made == list(range(7, 20))
    assert threads() == []


def test_the_next_batch_is_made_while_the_step_runs():
    second = threading.Event()

    def gather(step):
        if step == 1:
            second.set()
        return step

    with closing(batches(gather, range(3), 1, CPU)) as coming:
        assert next(coming) == 0
        assert second.wait(20)  # nobody has asked for it


def test_an_error_comes_when_its_batch_is_due():
    def gather(step):
        if step == 2:
            raise TrainingError('the disk is gone')
        return step

    with closing(batches(gather, range(9), 4, CPU)) as coming:
        assert [next(coming), next(coming)] == [0, 1]
        with pytest.raises(TrainingError, match='the disk is gone'):
            next(coming)
    assert threads() == []


def test_a_gathered_batch_keeps_its_memory_until_it_is_used(cache, small_config):
    """The loader's own buffers are used again: never those of a batch that waits."""
    config = small_config('data.shift_px=2')
    options = {'window': 2, 'gamma': 0.9, 'text_encoder': 'hashed', 'text_size': 16}
    plain, ahead = (Replay([cache], config.data, **options) for _ in range(2))
    with closing(batches(ahead.batch, range(40), 3, CPU)) as coming:
        for step, batch in enumerate(coming):
            if step % 7 == 0:
                time.sleep(0.01)  # let it run ahead
            assert torch.equal(batch.images['front'], plain.batch(step).images['front'])


def test_ahead_changes_nothing_in_a_run(cache, tmp_path, small_config):
    for ahead in (0, 3):
        train([cache], tmp_path / str(ahead), small_config(f'optim.ahead={ahead}'))
    none, some = (model_of(tmp_path / name) for name in ('0', '3'))
    assert all(torch.equal(none[name], some[name]) for name in none)
    assert threads() == []


def test_resume_with_batches_ahead_is_exact_after_a_crash_and_a_signal(
    cache, tmp_path, small_config
):
    config = small_config('optim.ahead=2')
    train([cache], tmp_path / 'whole', config)
    run = tmp_path / 'part'

    def crash(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([cache], run, small_config('optim.ahead=2', 'optim.save_every=3'), progress=crash)
    assert threads() == []

    def stop(row):
        os.kill(os.getpid(), signal.SIGTERM)

    # How many are gathered ahead, and how often is saved, may change.
    result = train([cache], run, small_config('optim.ahead=5'), resume=True, progress=stop)
    assert result.stopped
    assert threads() == []
    train([cache], run, config, resume=True)
    whole, part = model_of(tmp_path / 'whole'), model_of(run)
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def test_a_thread_is_used_where_a_core_is_free():
    assert useful_ahead(0, CPU) == 0
    assert useful_ahead(7, CPU) == 7
    assert useful_ahead(None, torch.device('cuda')) == 2
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(usable_cores())
        assert useful_ahead(None, CPU) == 0
        if usable_cores() > 1:
            torch.set_num_threads(1)
            assert useful_ahead(None, CPU) == 2
    finally:
        torch.set_num_threads(before)
