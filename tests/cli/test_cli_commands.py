"""The command line's frame: help, JSON, wrong usage, and speed of loading."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cli_outcome import Command

from qt_ros.cli.console import plain
from qt_ros.cli.main import COMMANDS

NAMES = [module.__name__.rpartition('.')[2].replace('_', '-') for module in COMMANDS]
FIXED = (
    'demo', 'inspect', 'convert', 'import-lerobot', 'label', 'info', 'train', 'evaluate',
    'collect', 'loop', 'cadence', 'report',
)  # fmt: skip
HEAVY = ('torch', 'rclpy', 'mujoco', 'av', 'cv2', 'matplotlib', 'pyarrow', 'numpy', 'rich')


def test_help_lists_the_fixed_commands(qt_ros: Command) -> None:
    found = qt_ros('--help')
    assert found.status == 0
    assert set(FIXED) == set(NAMES)
    assert all(f'\n    {name}' in found.out for name in FIXED)


@pytest.mark.parametrize('name', NAMES)
def test_every_command_has_help_and_json(qt_ros: Command, name: str) -> None:
    found = qt_ros(name, '--help')
    assert found.status == 0
    assert '--json' in found.out


def test_nothing_heavy_is_loaded_for_help() -> None:
    code = (
        'import sys; from qt_ros.cli.main import build_parser; build_parser();'
        f'print([name for name in {HEAVY!r} if name in sys.modules])'
    )
    ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == '[]'


@pytest.mark.parametrize(
    'arguments',
    [
        (),
        ('fly',),
        ('convert',),
        ('convert', 'bag', '--contract', 'c.yaml'),
        ('convert', 'bag', '--contract', 'c', '--out', 'd', '--workers', '0'),
        ('info', 'dataset', 'another'),
        ('train', 'dataset', '--out', 'run', '--stepz', '3'),
        ('train', 'dataset', '--out', 'run', '--steps', '-3'),
        ('evaluate', 'run', '--episodes', 'many'),
        ('collect', 'run', '--out', 'bags'),
        ('loop', '--rounds', '1'),
        ('demo', '--max-duration-s', 'nan'),
    ],
)
def test_wrong_usage_is_status_2(qt_ros: Command, arguments: tuple[str, ...]) -> None:
    found = qt_ros(*arguments)
    assert found.status == 2
    assert 'usage:' in found.err
    assert found.out == ''


def test_json_can_say_everything() -> None:
    import numpy as np

    found = plain({'a': np.float32(0.5), 'b': np.arange(2), 'c': float('nan'), 'd': (1, None)})
    assert found == {'a': 0.5, 'b': [0, 1], 'c': None, 'd': [1, None]}
