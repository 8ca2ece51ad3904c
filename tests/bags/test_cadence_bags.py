"""`qt-ros cadence` on recordings made by hand: found by type, old ones too, damaged ones told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_bags import MS, STEP, STORE, T0, Bag, make, steady, time
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from qt_ros.cadence import cadence_report, read_steps
from qt_ros.cli import main
from qt_ros.resources import resource

SPLIT = {'wait_s': 0.01, 'decode_s': 0.001, 'encode_s': 0.002, 'infer_s': 0.005}
STREAMS = {'front': 0.0, 'joints': 0.0}


def driven(count: int = 20, **values: Any) -> Bag:
    """A policy's steps every 100 ms, each commanded 30 ms after its tick."""
    bag = steady(0.1 * count)
    for k in range(count):
        given = {'command_stamp': time(T0 + (100 * k + 30) * MS), 'fate': 'sent', **SPLIT}
        bag.step(k, 100.0 * k, STREAMS, observation_age_s=0.03, **{**given, **values})
    return bag


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any, str]:
    """Run the command with --json; return its status, what it printed, and its remarks."""
    status = main(['cadence', '--json', *map(str, arguments)])
    said = capsys.readouterr()
    assert 'Traceback' not in said.err
    return status, json.loads(said.out) if said.out else None, said.err


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_recording_is_summed_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], storage: str
) -> None:
    bag = driven().write(tmp_path / 'bag', storage)
    status, found, _ = run(capsys, bag)
    assert status == 0
    report = found['bags'][str(bag)]
    assert report == found['all'] == cadence_report(read_steps([bag]))
    assert report['decisions'] == {
        'asked_hz': 10.0,
        'hz': 10.0,
        'period_std_ms': 0.0,
        'period_p99_ms': 100.0,
        'period_max_ms': 100.0,
    }
    assert report['split']['infer'] == {'p50_ms': 5.0, 'p99_ms': 5.0}
    assert report['ticks'] == {
        'total': 20, 'over_budget': 0, 'over_budget_share': 0.0, 'sent': 20,
    }  # fmt: skip


def test_people_get_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in 'ab':
        driven().write(tmp_path / 'bags' / name)
    assert main(['cadence', str(tmp_path / 'bags')]) == 0
    said = capsys.readouterr().out
    assert '2 episodes in 2 recordings, 40 ticks: 40 sent; 0% over budget' in said
    for word in ('decisions', 'commands', 'observation age', 'infer', 'recording'):
        assert word in said
    assert 'command age' not in said  # nobody measured it


def test_a_policy_in_a_namespace_is_found_by_its_type(tmp_path: Path) -> None:
    bag = driven()
    bag.rows = [
        (at, '/left/policy/step' if kind == STEP else topic, kind, data)
        for at, topic, kind, data in bag.rows
    ]
    steps = read_steps([bag.write(tmp_path / 'bag')])
    assert len(steps) == 20
    assert steps[0].source.endswith('/left/policy/step')


def test_a_recording_from_before_the_newer_fields(tmp_path: Path) -> None:
    """The message had no fields below period_s once; recordings of it carry that definition."""
    text = resource('msg/PolicyStep.msg').read_text().partition('# Where the time of a tick')[0]
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(text, STEP))
    with Writer(tmp_path / 'bag', version=9) as writer:
        connection = writer.add_connection('/policy/step', STEP, typestore=store)
        for k in range(5):
            values = dict.fromkeys(['age', 'inference'], 0.02)
            new = make(
                STEP,
                episode_id='e',
                step=k,
                tick=time(T0 + 100 * k * MS),
                command_stamp=time(T0 + (100 * k + 20) * MS),
                observation_age_s=values['age'],
                inference_s=values['inference'],
            )
            names = [field[0] for field in store.fielddefs[STEP][1]]
            old = store.types[STEP](**{name: getattr(new, name) for name in names})
            writer.write(connection, T0 + 100 * k * MS, store.serialize_cdr(old, STEP))
    found = cadence_report(read_steps([tmp_path / 'bag']))
    assert found['rate_hz'] == found['decisions']['asked_hz'] == 10.0
    assert found['inference_p50_ms'] == 20.0
    assert found['commands']['asked_hz'] is None
    assert found['split']['wait'] == found['command_age'] == {'p50_ms': None, 'p99_ms': None}
    assert found['ticks']['sent'] == 5


def test_a_recording_without_a_policy_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teleop = steady().write(tmp_path / 'teleop')
    status, found, err = run(capsys, teleop)
    assert (status, found) == (1, None)
    assert f'{teleop}: no PolicyStep' in err
    policy = driven().write(tmp_path / 'policy')
    status, found, err = run(capsys, policy, teleop, tmp_path / 'nowhere')
    assert status == 3
    assert list(found['bags']) == [str(policy)]
    assert [str(teleop) in each for each in found['problems']] == [True, False]
    assert 'nowhere does not exist' in found['problems'][1]
    assert 'nowhere does not exist' in err


def test_a_damaged_step_is_told_and_the_others_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = driven()
    at = next(i for i, row in enumerate(bag.rows) if row[2] == STEP)
    bag.rows[at] = (*bag.rows[at][:3], bag.rows[at][3][:40])
    path = bag.write(tmp_path / 'bag')
    status, found, _ = run(capsys, path)
    assert status == 3
    assert found['all']['ticks']['sent'] == 19
    assert any('does not decode' in problem for problem in found['problems'])


def test_a_message_of_the_name_that_is_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg('float32 height', STEP))
    with Writer(tmp_path / 'bag', version=9) as writer:
        connection = writer.add_connection('/policy/step', STEP, typestore=store)
        stair = store.types[STEP](height=0.2)
        writer.write(connection, T0, store.serialize_cdr(stair, STEP))
    assert STORE.types[STEP] is not store.types[STEP]
    status, found, err = run(capsys, tmp_path / 'bag')
    assert (status, found) == (1, None)
    assert 'a PolicyStep without episode_id, step' in err
