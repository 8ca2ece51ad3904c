"""What the fuzz tests share: material made once, and one watched worker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent / 'bags', HERE.parent / 'lerobot'):  # makers of inputs
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from fuzz_material import Material, prepare  # noqa: E402
from fuzz_workers import Worker  # noqa: E402


@pytest.fixture(scope='session')
def made_material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Material of hand-made bags alone."""
    return prepare(tmp_path_factory.mktemp('fuzz') / 'made', None)


@pytest.fixture(scope='session')
def real_material(tmp_path_factory: pytest.TempPathFactory, real_bags: Path) -> Material:
    """Material that has the real recordings too."""
    return prepare(tmp_path_factory.mktemp('fuzz') / 'real', real_bags)


@pytest.fixture(scope='session')
def made_worker(
    tmp_path_factory: pytest.TempPathFactory, made_material: Material
) -> Iterator[Worker]:
    """A watched process over the hand-made material."""
    worker = Worker(made_material, tmp_path_factory.mktemp('worker'))
    yield worker
    worker.stop()


@pytest.fixture(scope='session')
def real_worker(
    tmp_path_factory: pytest.TempPathFactory, real_material: Material
) -> Iterator[Worker]:
    """A watched process over the real recordings."""
    worker = Worker(real_material, tmp_path_factory.mktemp('worker'))
    yield worker
    worker.stop()
