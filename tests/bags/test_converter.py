"""From bags to a dataset: every message accounted for, workers agree, a second run is idle."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bags import MS, T0, Bag, contract, steady

from qt_ros.bags.converter import convert
from qt_ros.dataset import Dataset
from qt_ros.errors import BagError


def bags(folder: Path, count: int = 3) -> list[Path]:
    found = []
    for number in range(count):
        bag = steady(0.6 + 0.1 * number)
        bag.joints(333, 5.0)  # nothing uses it
        bag.add('/chatter', 'std_msgs/msg/String', _text('hi'), 100)
        found.append(bag.write(folder / f'run_{number}', ('mcap', 'sqlite3')[number % 2]))
    return found


def _text(value: str) -> Any:
    from made_bags import make

    return make('std_msgs/msg/String', data=value)


def balanced(report: dict[str, Any]) -> bool:
    accounts = [report['topics'], *(bag['topics'] for bag in report['per_bag'])]
    return all(
        entry['read'] == entry['used'] + sum(entry['skipped'].values())
        for account in accounts
        for entry in account.values()
    )


def test_every_message_is_accounted_for(tmp_path: Path) -> None:
    paths = bags(tmp_path)
    seen: list[dict[str, Any]] = []
    result = convert(paths, contract(), tmp_path / 'out', progress=seen.append)
    report = result.report
    assert result.status == 0
    assert balanced(report)
    assert sum(entry['read'] for entry in report['topics'].values()) == report['messages']
    # run_N lasts 600 + 100 N ms: 6 + 7 + 8 ticks, each with a command.
    assert [bag['episodes'][0]['rows'] for bag in report['per_bag']] == [6, 7, 8]
    topics = report['topics']
    assert topics['/arm'] == {'read': 21, 'used': 21, 'skipped': {}}
    assert topics['/episode/events']['used'] == 6
    assert topics['/front']['used'] == 21
    assert topics['/joint_states']['used'] == 21
    assert topics['/chatter'] == {'read': 3, 'used': 0, 'skipped': {'not in the contract': 3}}
    assert report['episodes']['by_outcome'] == {'success': 3}
    assert report['streams']['joints']['age_ms']['max'] == 0
    assert report['streams']['joints']['valid_share'] == 1
    assert json.loads((tmp_path / 'out/conversion_report.json').read_text()) == report
    assert [each['done'] for each in seen if not each['under_way']] == [1, 2, 3]
    assert len(Dataset(tmp_path / 'out')) == 3


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    paths = bags(tmp_path)
    convert(paths[:2], contract(), tmp_path / 'out')
    before = {
        path: path.read_bytes()
        for path in sorted((tmp_path / 'out').rglob('*'))
        if path.is_file() and path.name not in ('conversion_report.json',)
    }
    again = convert(paths[:2], contract(), tmp_path / 'out')
    assert again.status == 0
    assert again.report['episodes']['already_there'] == 2
    assert again.report['episodes']['new'] == 0
    assert balanced(again.report)
    assert all(path.read_bytes() == data for path, data in before.items() if path.exists())
    more = convert(paths, contract(), tmp_path / 'out')
    assert (more.report['episodes']['new'], len(Dataset(tmp_path / 'out'))) == (1, 3)


def test_workers_make_the_same_dataset(tmp_path: Path) -> None:
    paths = bags(tmp_path, 4)
    convert(paths, contract(), tmp_path / 'one')
    convert(paths, contract(), tmp_path / 'two', workers=2)
    one, two = Dataset(tmp_path / 'one'), Dataset(tmp_path / 'two')
    assert [e.digest for e in one.episodes] == [e.digest for e in two.episodes]
    for index in range(4):
        for name, column in one.rows(index).items():
            assert np.array_equal(column, two.rows(index)[name]), name
        assert np.array_equal(one.frames(index, 'front'), two.frames(index, 'front'))


def test_bad_bags_do_not_stop_the_others(tmp_path: Path) -> None:
    good = bags(tmp_path, 1)
    empty = Bag()
    empty.add('/chatter', 'std_msgs/msg/String', _text('hi'), 0)
    bad = empty.write(tmp_path / 'bad')
    (tmp_path / 'broken.mcap').write_bytes(b'\x89MCAP0\r\n' + b'\x05' * 100)
    result = convert([*good, bad, tmp_path / 'broken.mcap'], contract(), tmp_path / 'out')
    assert result.status == 3
    assert [bag['result'] for bag in result.report['per_bag']] == ['converted', 'failed', 'failed']
    assert balanced(result.report)
    assert all(bag['problems'] for bag in result.report['per_bag'][1:])


def test_episodes_without_a_row_are_told(tmp_path: Path) -> None:
    bag = steady()
    bag.event(2000, 0, 'late')  # after all samples
    bag.event(5000, 1, 'late', outcome='success')
    result = convert([bag.write(tmp_path / 'bag')], contract(), tmp_path / 'out')
    assert result.status == 3
    assert result.report['episodes']['left_out'] == 1
    assert any("'late' gives no row" in text for text in result.report['per_bag'][0]['problems'])
    assert balanced(result.report)


def test_damaged_images_are_found_while_encoding(tmp_path: Path) -> None:
    bag = steady()
    bag.rows = [r for r in bag.rows if not (r[1] == '/front' and r[0] == T0 + 300 * MS)]
    bag.image(300, 0, data=b'\xff\xd8 no image')
    result = convert([bag.write(tmp_path / 'bag')], contract(), tmp_path / 'out')
    assert result.status == 0
    assert balanced(result.report)
    data = Dataset(tmp_path / 'out')
    assert data.frames(0, 'front').shape == (10, 16, 16, 3)
    assert data.problems(0) == []


def test_labels_file_decides_outcomes(tmp_path: Path) -> None:
    paths = bags(tmp_path, 2)
    (tmp_path / 'labels.csv').write_text(
        'bag,episode_id,outcome,instruction\nrun_0,,failure,\nrun_1,e,timeout,pull\n'
    )
    convert(paths, contract(), tmp_path / 'out', labels=tmp_path / 'labels.csv')
    found = [(e.outcome, e.instruction) for e in Dataset(tmp_path / 'out').episodes]
    assert found == [('failure', 'push'), ('timeout', 'pull')]


def test_wrong_use_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BagError, match='does not exist'):
        convert([tmp_path / 'nothing'], contract(), tmp_path / 'out')
    with pytest.raises(BagError, match='no recording given'):
        convert([], contract(), tmp_path / 'out')
    with pytest.raises(BagError, match='workers'):
        convert([tmp_path], contract(), tmp_path / 'out', workers=0)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_mutated_bags_are_converted_or_refused(tmp_path: Path, storage: str) -> None:
    path = steady(0.5).write(tmp_path / 'bag', storage)
    (file,) = (each for each in path.iterdir() if each.suffix in ('.mcap', '.db3'))
    whole = file.read_bytes()
    chance = random.Random(11)
    for number in range(25):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 5, 50])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        file.write_bytes(data)
        report = convert([path], contract(), tmp_path / f'out{number}').report
        assert balanced(report)
        said = ' '.join(report['per_bag'][0]['problems'])
        assert not re.search(r'unexpected [A-Z]\w+:', said), said
        assert said or report['status'] == 0
