"""The commands that start nodes: attempts over real topics, the whole loop, nodes that fail."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_outcome import Command

from qt_ros.cadence import CADENCE_KEYS

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures('ros_domain')]
ROUND_KEYS = {
    'round', 'demonstrations', 'failures', 'autonomous', 'transitions', 'train_seconds',
    'success_rate', 'episodes', 'interval95',
}  # fmt: skip


@pytest.mark.timeout(400)
def test_the_whole_loop_in_small(
    qt_ros: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    out = tmp_path / 'demo'
    out.mkdir()
    (out / 'precious').write_text('of an earlier run')
    sizes = {
        'demonstrations': 2, 'noisy': 1, 'random': 1, 'drive-episodes': 1, 'train-steps': 4,
        'more-steps': 2, 'max-duration-s': 4,
    }  # fmt: skip
    options = [text for name, size in sizes.items() for text in (f'--{name}', str(size))]
    found = qt_ros('demo', '--out', out, *options, '--json')
    assert found.status == 0, found.err
    summary = json.loads((out / 'summary.json').read_text())
    assert found.data == summary
    assert summary['over_ros'] is True
    assert set(summary['cadence']) == set(CADENCE_KEYS)
    assert summary['expert_success_rate'] is not None
    assert summary['random_success_rate'] is not None
    assert [each['round'] for each in summary['rounds']] == [1, 2]
    assert all(set(each) == ROUND_KEYS for each in summary['rounds'])
    first, second = summary['rounds']
    assert first['demonstrations'] + first['failures'] == 3
    assert (first['autonomous'], second['autonomous']) == (0, 1)
    assert second['transitions'] > first['transitions'] > 0
    assert summary['cadence']['rate_hz'] == pytest.approx(10.0, rel=0.2)
    page = (out / 'report.html').read_text()
    assert page.count('film strip of') >= 1
    (aside,) = tmp_path.glob('demo.*')
    assert (aside / 'precious').exists()


def test_a_checkpoint_that_is_damaged(qt_ros: Command, trained: Path, tmp_path: Path) -> None:
    run, bags = tmp_path / 'run', tmp_path / 'bags'
    shutil.copytree(trained, run)
    (weights,) = run.glob('checkpoints/*/target.safetensors')
    weights.write_bytes(weights.read_bytes()[:100])
    found = qt_ros('collect', run, '--episodes', '1', '--out', bags)
    assert found.status == 1
    assert 'policy' in found.err
    assert 'target.safetensors' in found.err
    assert str(bags / '.logs') in found.err


def test_a_stop_takes_the_nodes_along(trained: Path, tmp_path: Path) -> None:
    code = 'import sys; from qt_ros.cli import main; sys.exit(main())'
    arguments = ['collect', str(trained), '--episodes', '50', '--out', str(tmp_path / 'bags')]
    command = subprocess.Popen(
        [sys.executable, '-c', code, *arguments], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline_s = time.monotonic() + 60
        while not (children := _children(command.pid)) or len(children) < 4:
            assert time.monotonic() < deadline_s
            assert command.poll() is None
            time.sleep(0.1)
        command.send_signal(signal.SIGTERM)
        _, said = command.communicate(timeout=60)
    finally:
        command.kill()
    assert command.returncode == 130
    assert 'Traceback' not in said
    assert not [pid for pid in children if Path(f'/proc/{pid}').exists()]


def _children(pid: int) -> list[int]:
    """Return the child processes of a process."""
    path = Path(f'/proc/{pid}/task/{pid}/children')
    if not path.exists():
        pytest.skip(f'{os.uname().sysname} does not list the children of a process')
    return [int(word) for word in path.read_text().split()]
