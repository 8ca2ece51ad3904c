"""The Foxglove layout shows nothing that is not there, and everything of a policy step's Q."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from qt_ros.bags.types import own_types
from qt_ros.contract import Contract
from qt_ros.foxglove import COLOURS, STEP_TOPIC, layout, paths
from qt_ros.resources import resource

CONTRACTS = ['block_arm', 'abitobot']
PANELS = {  # names under which the application knows its panels
    'Image', 'Plot', 'StateTransitions', 'DiagnosticSummary', 'DiagnosticStatusPanel',
}  # fmt: skip
PATH = re.compile(r'(?P<topic>/[\w/]+)(?:\.(?P<field>\w+))?(?:\[(?P<at>[\d:]+)\])?')
TYPES = {
    STEP_TOPIC: 'q_transformer_ros/msg/PolicyStep',
    '/diagnostics': 'diagnostic_msgs/msg/DiagnosticArray',
}


@pytest.fixture(params=CONTRACTS)
def contract(request: pytest.FixtureRequest) -> Contract:
    return Contract.load(resource(f'config/robots/{request.param}.yaml'))


def leaves(node: Any) -> Iterator[str]:
    """Yield the panels of a tree of splits; each split is in two, along a row or a column."""
    if isinstance(node, str):
        yield node
        return
    assert set(node) == {'direction', 'first', 'second', 'splitPercentage'}
    assert node['direction'] in ('row', 'column')
    assert 0 < node['splitPercentage'] < 100
    yield from leaves(node['first'])
    yield from leaves(node['second'])


def test_the_shipped_layout_is_that_of_the_block_arm() -> None:
    shipped = json.loads(resource('config/foxglove.json').read_text())
    made = layout(Contract.load(resource('config/robots/block_arm.yaml')))
    assert shipped == made, 'make it anew: python -m qt_ros.foxglove CONTRACT > FILE'


def test_every_panel_is_known_and_lies_in_the_tree_once(contract: Contract) -> None:
    found = layout(contract)
    assert set(found) == {
        'configById', 'globalVariables', 'userNodes', 'playbackConfig', 'layout',
    }  # fmt: skip
    assert sorted(leaves(found['layout'])) == sorted(found['configById'])
    assert {name.partition('!')[0] for name in found['configById']} <= PANELS
    for config in found['configById'].values():
        for path in config.get('paths', ()):
            assert path['timestampMethod'] in ('receiveTime', 'publishTime', 'headerStamp')
            assert path.get('color', COLOURS[0]) in COLOURS


def test_every_path_leads_to_a_field_of_a_message(contract: Contract) -> None:
    cameras = {camera.topic: camera.type for camera in contract.cameras}
    fields = own_types().fielddefs
    seen = list(paths(layout(contract)))
    assert set(cameras) <= set(seen)
    for path in seen:
        match = PATH.fullmatch(path)
        assert match, path
        kind = {**TYPES, **cameras}[match['topic']]
        if match['field']:
            types = {name: node.name for name, (node, _) in fields[kind][1]}
            assert match['field'] in types, path
            assert (types[match['field']] == 'SEQUENCE') == bool(match['at']), path


def test_the_slices_of_q_are_the_dimensions_bins(contract: Contract) -> None:
    """As Foxglove slices: from the first index to the second, which is in it."""
    shown: list[int] = []
    for path in paths(layout(contract)):
        match = PATH.fullmatch(path)
        assert match
        if match['field'] == 'q_values':
            low, high = map(int, match['at'].split(':'))
            shown += range(low, high + 1)
    assert shown == list(range(sum(dim.bins for dim in contract.dims)))
    single = [m['at'] for p in paths(layout(contract)) if (m := PATH.fullmatch(p)) and m['at']]
    assert {int(at) for at in single if ':' not in at} == set(range(len(contract.dims)))


def test_another_topic_of_steps(contract: Contract) -> None:
    found = list(paths(layout(contract, '/left/policy/step')))
    assert not any(path.startswith(STEP_TOPIC) for path in found)
