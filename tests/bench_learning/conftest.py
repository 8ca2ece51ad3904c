"""What the tests of the learning bench share: data made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def made_data(tmp_path_factory) -> Path:
    """An OUT folder with the quick data of the block study, seed 0."""
    pytest.importorskip('mujoco', reason='the simulated robot is not installed')
    from bench.learning.places import ready_data
    from bench.learning.study import load_study

    out = tmp_path_factory.mktemp('learning')
    ready_data(out, load_study('block', quick=True), 0)
    return out


@pytest.fixture
def fresh_out(made_data, tmp_path) -> Callable[[str], Path]:
    """Make an OUT folder with those data and nothing else."""

    def make(name: str) -> Path:
        shutil.copytree(made_data / 'data', tmp_path / name / 'data')
        return tmp_path / name

    return make
