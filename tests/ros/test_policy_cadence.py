"""The cadence of a run: on /diagnostics, in its result, and from its recording, all the same."""

from __future__ import annotations

import json
from pathlib import Path

import policy_rig
import pytest

from qt_ros.cli import main

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')

pytestmark = pytest.mark.ros


def test_the_cadence_of_a_run_is_told_everywhere(
    ros_domain: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from diagnostic_msgs.msg import DiagnosticArray

    run = policy_rig.make_checkpoint(tmp_path / 'run')
    with policy_rig.running(
        policy_rig.robot(),
        policy_rig.recorder(tmp_path),
        policy_rig.policy(run, command_rate_hz=30.0),
    ) as (client, _, _, policy):
        told = client.keep(DiagnosticArray, '/diagnostics')
        result, bag = client.record(instruction='do it', max_duration_s=4.0)
        ended = policy.event('episode')
        client.spin(1.2)
    assert 'published ' in result.message
    assert 'of 10 Hz' in result.message
    assert ended['message'] == result.message
    assert result.message in policy.output  # its log

    assert main(['cadence', bag, '--json']) == 0
    found = json.loads(capsys.readouterr().out)['all']
    assert found['decisions']['asked_hz'] == 10.0
    assert found['commands']['asked_hz'] == pytest.approx(30.0, abs=1e-3)
    # A busy machine loses ticks; it does not make up others.
    assert 3.0 < found['decisions']['hz'] < 11.0
    assert 10.0 < found['commands']['hz'] < 33.0
    assert found['commands']['hz'] > 1.5 * found['decisions']['hz']
    assert found['ticks']['total'] <= 40
    assert found['ticks']['sent'] == result.steps
    assert found['ticks'].get('late', 0) == result.late
    assert all(each['p50_ms'] is not None for each in found['split'].values())
    age, command_age = found['observation_age'], found['command_age']
    assert 0 < age['p50_ms'] <= command_age['p50_ms'] <= age['p50_ms'] + 20.0
    assert set(found['streams']) == {'eye', 'joint_states'}
    assert all(each['received'] > 20 for each in found['streams'].values())

    newest = {pair.key: pair.value for array in told for pair in array.status[0].values}
    assert float(newest['cadence.decisions.asked_hz']) == 10.0
    assert {'cadence.split.infer.p99_ms', 'cadence.streams.eye.received'} <= set(newest)

    page = tmp_path / 'page.html'
    assert main(['report', bag, '--out', str(page)]) == 0
    assert page.read_text().count('data:image/png') == 2  # the film strip, and Q of every bin
