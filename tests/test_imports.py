"""Who may import what: nothing that runs code from data; ROS and Ray only where they belong."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEVER = {'pickle', 'cPickle', 'cloudpickle', 'dill', 'joblib', 'shelve', 'marshal'}
FILES = [path for room in ('qt_ros', 'training') for path in sorted((ROOT / room).rglob('*.py'))]


def imported(path: Path) -> set[str]:
    """Return the names of all modules that a file imports anywhere, 'a.b' for `import a.b`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f'{node.module}.{alias.name}' for alias in node.names)}
    return found


def tops(path: Path) -> set[str]:
    return {name.partition('.')[0] for name in imported(path)}


@pytest.mark.parametrize('room', ['qt_ros', 'training'])
def test_nothing_unpickles(room: str) -> None:
    wrong = {path for path in FILES if tops(path) & NEVER}
    assert not {path for path in wrong if path.is_relative_to(ROOT / room)}


def test_ray_and_ros_stay_in_their_rooms() -> None:
    ray = {path.relative_to(ROOT).as_posix() for path in FILES if 'ray' in tops(path)}
    assert ray == {'qt_ros/bags/ray_pool.py'}
    ros = {path.relative_to(ROOT) for path in FILES if 'rclpy' in tops(path)}
    assert ros
    assert all(path.is_relative_to('qt_ros/nodes') for path in ros), ros


def test_training_knows_nothing_of_ros() -> None:
    for path in FILES:
        if path.is_relative_to(ROOT / 'training'):
            assert not tops(path) & {'qt_ros', 'rclpy'}, path
