"""The SROS2 policy allows each node what it has on the graph: nothing less, and nothing more."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path
from typing import Any

import policy_rig
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')
pytest.importorskip('mujoco', reason='the simulator is not installed')

pytestmark = pytest.mark.ros
ROOT = Path(__file__).resolve().parents[2]
CONTRACT = (ROOT / 'config' / 'robots' / 'block_arm.yaml').read_text(encoding='utf-8')
TASK = ['push the red block to the left']
NODES = ('sim_robot', 'recorder', 'policy', 'collector', 'teleop')
Rights = dict[str, set[str]]  # 'publish': {'/topic', ...}


def allowed() -> dict[str, Rights]:
    """Return {node: what the policy allows it}."""
    found: dict[str, Rights] = {}
    root = ElementTree.parse(ROOT / 'config' / 'sros2' / 'policy.xml').getroot()
    for enclave in root.iter('enclave'):
        (profile,) = enclave.iter('profile')
        node = profile.attrib['node']
        assert profile.attrib['ns'] == '/'
        assert enclave.attrib['path'] == f'/q_transformer/{node}'
        rights: Rights = defaultdict(set)
        for group in profile:
            ((verb, qualifier),) = group.attrib.items()
            assert qualifier == 'ALLOW'
            rights[verb] |= {each.text.replace('~', f'/{node}', 1) for each in group if each.text}
        found[node] = rights
    return found


def on_the_graph(node: Any, name: str) -> Rights:
    """Return what a running node has."""
    from rclpy.action import (
        get_action_client_names_and_types_by_node,
        get_action_server_names_and_types_by_node,
    )

    pairs = {
        'publish': node.get_publisher_names_and_types_by_node(name, '/'),
        'subscribe': node.get_subscriber_names_and_types_by_node(name, '/'),
        'reply': node.get_service_names_and_types_by_node(name, '/'),
        'request': node.get_client_names_and_types_by_node(name, '/'),
        'execute': get_action_server_names_and_types_by_node(node, name, '/'),
        'call': get_action_client_names_and_types_by_node(node, name, '/'),
    }
    found = {verb: {n for n, _ in names if '/_action/' not in n} for verb, names in pairs.items()}
    return {verb: names for verb, names in found.items() if names}


def difference(found: Rights, given: Rights) -> list[str]:
    """Say what differs, as it would have to be changed in the policy."""
    lines = []
    for verb in sorted({*found, *given}):
        missing = found.get(verb, set()) - given.get(verb, set())
        spare = given.get(verb, set()) - found.get(verb, set())
        lines += [f'{verb} {name} is missing' for name in sorted(missing)]
        lines += [f'{verb} {name} is not used' for name in sorted(spare)]
    return lines


def node(module: str, **parameters: Any) -> policy_rig.Process:
    return policy_rig.node(f'qt_ros.nodes.{module}', {'use_sim_time': True, **parameters})


def differences(client: policy_rig.Client, *names: str) -> dict[str, list[str]]:
    """Return {node: what differs} once everything is discovered, or after half a minute."""
    given = allowed()
    wrong = {name: ['it did not run'] for name in names}
    deadline_s = time.monotonic() + 30.0
    while any(wrong.values()) and time.monotonic() < deadline_s:
        client.spin(0.3)
        running = {name for name, _ in client.node.get_node_names_and_namespaces()}
        for name in running & set(wrong):
            wrong[name] = difference(on_the_graph(client.node, name), given[name])
    return {name: lines for name, lines in wrong.items() if lines}


def test_the_policy_allows_what_the_nodes_have(ros_domain: int, tmp_path: Path):
    run = policy_rig.make_checkpoint(tmp_path / 'run', CONTRACT)
    assert set(allowed()) == set(NODES)
    with (
        node('sim_robot', use_sim_time=False, lockstep=True) as robot,
        policy_rig.recorder(tmp_path, CONTRACT, use_sim_time=True) as recorder,
        policy_rig.Client() as client,
    ):
        robot.event('ready', 60.0)
        recorder.event('ready')
        with node('teleop', plan='expert:500', instructions=TASK) as teleop:
            teleop.event('ready', 60.0)
            assert differences(client, 'sim_robot', 'recorder', 'teleop') == {}
        with policy_rig.policy(run, use_sim_time=True, teleop_prefix='/teleop') as policy:
            policy.event('ready', 60.0)
            with node('collector', episodes=500, instructions=TASK):
                assert differences(client, 'policy', 'collector') == {}
