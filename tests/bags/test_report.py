"""The report: every message of every bag accounted for, in words and numbers that hold."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_bags import (
    CONTRACT,
    EVENT,
    JOINTS,
    MS,
    T0,
    TRAJECTORY,
    Bag,
    contract,
    make,
    steady,
)
from sums import wrong_sums
from test_real_bags import ABITOBOT, COUNTS

from qt_ros.bags import conversion_report
from qt_ros.bags.conversion_report import HISTORY, REPORT, history, write_report
from qt_ros.bags.converter import convert
from qt_ros.bags.suggest import suggest_contract
from qt_ros.cli import main
from qt_ros.contract import Contract
from qt_ros.errors import BagError


@pytest.mark.bags
@pytest.mark.parametrize('name', COUNTS)
def test_every_message_of_other_peoples_bags_is_told(
    real_bags: Path, tmp_path: Path, name: str
) -> None:
    """With the contract that is suggested for it, or, where none can be, with another robot's."""
    try:
        made_for = Contract.parse(suggest_contract(real_bags / name))
    except BagError:
        made_for = Contract.load(ABITOBOT)
    for run, chosen in enumerate((made_for, Contract.load(ABITOBOT))):
        report = convert([real_bags / name], chosen, tmp_path / f'out_{run}').report
        assert wrong_sums(report) == []
        assert report['messages'] == COUNTS[name]
        if report['bags'].get('failed'):
            assert report['per_bag'][0]['problems']
            assert all(topic['used'] == 0 for topic in report['topics'].values())


def text(value: str) -> Any:
    return make('std_msgs/msg/String', data=value)


def unused_topics(bag: Bag) -> None:
    bag.add('/chatter', 'std_msgs/msg/String', text('hello'), 100)


def late_images(bag: Bag) -> None:
    bag.rows = [row for row in bag.rows if row[1] != '/front']
    for ms in range(-50, 1001, 50):
        bag.image(ms, 10, log_ms=ms + 180)


def same_stamps(bag: Bag) -> None:
    for ms in (200, 200, 400):
        bag.joints(ms, 7.0, log_ms=ms + 3)


def backwards(bag: Bag) -> None:
    bag.joints(300, 7.0, log_ms=610)
    bag.image(100, 3, log_ms=705)


def no_stamps(bag: Bag) -> None:
    bag.joints(0, 7.0, log_ms=333, stamp_ns=0)


def damaged_image(bag: Bag) -> None:
    bag.rows = [r for r in bag.rows if not (r[1] == '/front' and r[0] == T0 + 300 * MS)]
    bag.image(300, 0, data=b'\xff\xd8 no image')


def damaged_messages(bag: Bag) -> None:
    for topic, kind in (
        ('/arm', TRAJECTORY),
        ('/joint_states', JOINTS),
        ('/episode/events', EVENT),
    ):
        bag.rows.append((T0 + 350 * MS, topic, kind, b'\x00\x01\x00\x00\x07'))


def other_joints(bag: Bag) -> None:
    bag.joints(311, 1.0, names=('c', 'd'))


def gap(bag: Bag) -> None:
    bag.rows = [row for row in bag.rows if not T0 + 300 * MS < row[0] < T0 + 1700 * MS]


def after_the_end(bag: Bag) -> None:
    for ms in range(2600, 3000, 100):
        bag.joints(ms, 1.0)
        bag.image(ms, 1)


def second_episode(bag: Bag) -> None:
    bag.rows += steady(0.5, start_ms=3000).rows


def unfinished(bag: Bag) -> None:
    bag.event(1500, 0, 'again')


def without_rows(bag: Bag) -> None:
    bag.event(50_000, 0, 'late')
    bag.event(51_000, 1, 'late', outcome='failure')


def no_events(bag: Bag) -> None:
    bag.rows = [row for row in bag.rows if row[1] != '/episode/events']


def no_commands(bag: Bag) -> None:
    bag.rows = [row for row in bag.rows if row[1] not in ('/arm', '/gripper')]


def few_commands(bag: Bag) -> None:
    bag.rows = [row for row in bag.rows if row[1] != '/arm' or row[0] > T0 + 700 * MS]


def policy_steps(bag: Bag) -> None:
    for number in range(10):
        ms = 100.0 * number
        bag.step(number, ms, {'front': ms, 'joints': ms})
    bag.step(99, 150, {'front': 151.5, 'joints': 149.5})  # samples that were not recorded


STORIES: tuple[Callable[[Bag], None], ...] = (
    unused_topics,
    late_images,
    same_stamps,
    backwards,
    no_stamps,
    damaged_image,
    damaged_messages,
    other_joints,
    gap,
    after_the_end,
    second_episode,
    unfinished,
    without_rows,
    no_events,
    no_commands,
    few_commands,
    policy_steps,
)
MODES = (
    {},
    {'clock: header': 'clock: log'},
    {'{events: /episode/events}': 'one_per_bag'},
    {'{events: /episode/events}': '{time_gap: 0.8}'},
    {'max_gap_s: 1.0': 'max_gap_s: 0.3'},
)


@pytest.mark.parametrize('story', STORIES, ids=lambda story: story.__name__)
def test_every_message_of_a_made_bag_is_told(tmp_path: Path, story: Callable[[Bag], None]) -> None:
    bag = steady(2.5 if story is gap else 1.2)
    story(bag)
    path = bag.write(tmp_path / 'bag', ('mcap', 'sqlite3')[STORIES.index(story) % 2])
    for number, changes in enumerate(MODES):
        out = tmp_path / f'out_{number}'
        for _ in range(2):  # the second time what is there is passed over
            report = convert([path], contract(**changes), out).report
            assert wrong_sums(report) == []
            assert report['messages'] == len(bag.rows)


@settings(max_examples=12, deadline=None)
@given(
    st.sets(st.sampled_from(STORIES), min_size=2, max_size=6), st.sampled_from(MODES), st.data()
)
def test_troubles_together_are_told(
    tmp_path_factory: pytest.TempPathFactory,
    stories: set[Callable[[Bag], None]],
    changes: dict[str, str],
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp('stories')
    bag = steady(1.5)
    for story in data.draw(st.permutations(sorted(stories, key=lambda each: each.__name__))):
        story(bag)
    chance = random.Random(data.draw(st.integers(0, 1000)))
    bag.rows = [row for row in bag.rows if chance.random() < 0.95]  # drops
    path = bag.write(folder / 'bag')
    for _ in range(2):
        report = convert([path], contract(**changes), folder / 'out').report
        assert wrong_sums(report) == []
        assert report['messages'] == len(bag.rows)


def test_counts_ages_and_costs_of_one_bag(tmp_path: Path) -> None:
    bag = steady(1.0)
    bag.rows = [row for row in bag.rows if row[1] != '/front']
    for ms in (-70, 30, 130, 230, 330, 830, 930):  # at ticks: 70 ms old, from 400 to 800 older
        bag.image(ms, 10)
    report = convert([bag.write(tmp_path / 'bag')], contract(), tmp_path / 'out').report
    ages = [70, 70, 70, 70, 70, 170, 270, 370, 470, 70]
    found = report['streams']['front']
    expected = np.percentile(ages, [50, 90, 99, 100])
    assert list(found['age_ms'].values()) == pytest.approx(expected, abs=0.02)
    assert found['valid_share'] == 0.7  # 270, 370 and 470 ms are too old
    assert report['topics']['/front'] == {
        'read': 7,
        'used': 6,
        'skipped': {'not the newest at any tick': 1},
    }
    assert report['ticks']['planned'] == report['rows'] == 10
    assert report['recorded_s'] == pytest.approx(1.07, abs=0.01)
    assert report['cpu_seconds'] >= report['committer_cpu_seconds'] > 0
    ratio = report['recorded_s'] / report['cpu_seconds']
    assert report['times_real_time_per_core'] == pytest.approx(ratio, rel=0.02)


def test_runs_that_bring_nothing_push_nothing_out(tmp_path: Path) -> None:
    one, two = (steady(0.5 + 0.1 * n).write(tmp_path / f'run_{n}') for n in range(2))
    out = tmp_path / 'out'
    first = convert([one], contract(), out).report
    for _ in range(3):
        again = convert([one], contract(), out).report
    assert json.loads((out / REPORT).read_text()) == again
    assert again['episodes']['new'] == 0
    second = convert([one, two], contract(), out).report
    assert history(out) == [first, second]
    broken = (out / HISTORY).read_text() + 'edited by hand\n'
    (out / HISTORY).write_text(broken)
    assert history(out) == [first, second]


def test_the_history_is_bounded_and_shares_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion_report, 'HISTORY_BYTES', 500)
    (tmp_path / 'meta').mkdir()
    reports = [{'episodes': {'new': 1}, 'run': n, 'text': 'é' * 100} for n in range(10)]
    for number, report in enumerate(reports):
        write_report(tmp_path, report)
        if number == 5:
            os.link(tmp_path / HISTORY, tmp_path / 'copy')
            before = (tmp_path / 'copy').read_bytes()
    kept = history(tmp_path)
    assert kept == reports[-len(kept) :]
    assert 1 < len(kept) < 5
    assert (tmp_path / HISTORY).stat().st_size <= 1000
    assert (tmp_path / 'copy').read_bytes() == before
    write_report(tmp_path, {'episodes': {'new': 1}, 'text': 'x' * 1000})
    assert len(history(tmp_path)) == 1, 'the newest is kept whatever its size'


def test_the_table_is_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('COLUMNS', '100')
    good, cut = steady(2.0), steady(2.5)
    gap(cut)
    good.write(tmp_path / 'bags/good')
    cut.write(tmp_path / 'bags/cut')
    (tmp_path / 'bags/broken.mcap').write_bytes(b'\x89MCAP0\r\n' + b'\x05' * 100)
    (tmp_path / 'contract.yaml').write_text(CONTRACT)
    arguments = ['convert', str(tmp_path / 'bags'), '--contract', str(tmp_path / 'contract.yaml')]
    arguments += ['--out', str(tmp_path / 'out'), '--workers', '1']
    assert main(arguments) == 3
    out, err = capsys.readouterr()
    assert '3 recordings: 2 converted, 1 failed' in out
    assert '3 new episodes' in out
    assert '1 cut at gaps' in out
    assert 'times real time' in out
    assert 'not the newest at any tick' in out
    assert 'e+0' not in out
    assert '! ' in err
    assert 'broken.mcap is damaged' in err
    assert max(len(line) for line in out.splitlines() if line[:1] in '┃│') <= 100
    assert main(arguments) == 3
    out, _ = capsys.readouterr()
    assert '0 new episodes' in out
    assert '3 episodes already there' in out
    assert HISTORY in out
