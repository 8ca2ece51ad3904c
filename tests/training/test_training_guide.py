"""The guide to training lists every setting with the default that it has."""

from __future__ import annotations

import re

import pytest
import yaml

from training.config import load_config
from training.metrics import COLUMNS


@pytest.fixture(scope='module')
def guide(request):
    return (request.config.rootpath / 'docs' / 'training.md').read_text(encoding='utf-8')


def listed(guide):
    """Return {room: {name: default}} of the tables."""
    found, room = {}, ''
    for line in guide.splitlines():
        if head := re.match(r'\| (\w+)\. \| default \|', line):
            room = head[1]
            found[room] = {}
        elif not line.startswith('|'):
            room = ''
        elif room and (row := re.match(r'\| `(\w+)` \| `([^`]*)` \|', line)):
            assert row[1] not in found[room]
            found[room][row[1]] = yaml.safe_load(row[2])
    return found


def test_every_setting_is_listed_with_its_default(guide):
    defaults = {
        room: {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        for room, values in load_config().to_json().items()
    }
    assert listed(guide) == defaults


def test_every_figure_is_explained(guide):
    figures = set(COLUMNS) - {'step', 'wall_s', 'loss', 'lr'}
    assert {name for name in figures if f'| `{name}` |' not in guide} == set()


def test_every_preset_is_described(guide, request):
    names = {path.stem for path in (request.config.rootpath / 'config/training').glob('*.yaml')}
    assert {name for name in names if f'\n| `{name}`' not in guide} == set()
