"""Full and read-only disks end in a clear error, and with room again the work goes through."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_episodes import contract, episode

from qt_ros.dataset import Dataset, DatasetWriter, relabel
from qt_ros.dataset.files import CannotWrite

SCRIPT = Path(__file__).parent / 'full_disk.py'
OWN_DISK = 'mount -t tmpfs -o size=4m none "$1" && exec "$2" "$3" "$1" tmpfs'


def run(*command: str | Path) -> str:
    found = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, 'PYTHONPATH': f'{SCRIPT.parents[1] / "bags"}:{SCRIPT.parents[2]}'},
        timeout=170,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_a_small_disk_of_its_own(tmp_path: Path) -> None:
    """A tmpfs of 4 MB, filled to different marks, then read-only; the kernel says no, not we."""
    own = ('unshare', '-rm', 'sh', '-ec')
    tried = shutil.which('unshare') and subprocess.run(
        [*own, f'mount -t tmpfs -o size=4m none {tmp_path}'], capture_output=True, text=True
    )
    if not tried or tried.returncode:
        pytest.skip(f'no disk can be mounted here: {tried.stderr if tried else "no unshare"}')
    assert 'met' in run(*own, OWN_DISK, 'sh', tmp_path, sys.executable, SCRIPT)


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: the file that grows beyond it is refused, the small ones beside it not."""
    assert 'met' in run(sys.executable, SCRIPT, tmp_path, 'limit')


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    made_with = contract(cameras=0)
    out = tmp_path / 'd'
    with DatasetWriter(out, made_with) as writer:
        writer.append(episode(made_with, 1, 3))
    for folder in (out, *out.rglob('*')):
        folder.chmod(0o555 if folder.is_dir() else 0o444)
    try:
        with pytest.raises(CannotWrite, match='Permission denied'):
            DatasetWriter(out, made_with)
        with pytest.raises(CannotWrite, match='Permission denied'):
            relabel(out, {0: 'failure'}, 'me')
        assert Dataset(out).problems(0) == []
    finally:
        for folder in (out, *out.rglob('*')):
            folder.chmod(0o755)
