"""What the tests of the commands share: a way to run them, and a tiny dataset and run."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_outcome import TASKS, TINY, Command, Outcome

from qt_ros.cli import main
from qt_ros.resources import resource


@pytest.fixture
def qt_ros(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `qt-ros` with arguments and return how it ended."""

    def run(*arguments: object) -> Outcome:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stopped:  # argparse: help and wrong usage
            status = int(stopped.code or 0)
        said = capsys.readouterr()
        assert 'Traceback' not in said.err
        return Outcome(status, said.out, said.err)

    return run


@pytest.fixture(scope='session')
def contract_path() -> Path:
    """The simulated arm's contract."""
    return resource('config/robots/block_arm.yaml')


@pytest.fixture(scope='session')
def dataset(tmp_path_factory: pytest.TempPathFactory, contract_path: Path) -> Path:
    """A dataset of a few demonstrations and clumsy attempts, made in process."""
    pytest.importorskip('mujoco', reason='the simulator is not installed')
    from qt_ros.contract import Contract
    from qt_ros.dataset import DatasetWriter
    from qt_ros.sim.demonstrations import collect_episodes

    path = tmp_path_factory.mktemp('made') / 'dataset'
    contract = Contract.load(contract_path)
    with DatasetWriter(path, contract) as writer:
        for noise, seed in ((0.0, 0), (1.0, 100)):
            for episode in collect_episodes(contract, TASKS, 4, noise, seed, max_steps=60):
                writer.append(episode)
    return path


@pytest.fixture(scope='session')
def trained(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """A run of a few training steps on that dataset."""
    run = tmp_path_factory.mktemp('trained') / 'run'
    assert main(['train', str(dataset), '--out', str(run), '--steps', '10', *TINY]) == 0
    return run
