"""Recordings that a dataset has already, under this path or another, or as they were before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_bags import steady
from made_conversions import BY_EVENTS, WHOLE, bag, facts, said, two_in_one

from qt_ros.bags.converter import convert


def test_a_moved_or_copied_bag_is_not_taken_twice(tmp_path: Path) -> None:
    path = two_in_one(tmp_path, 'two')
    out = tmp_path / 'out'
    convert([path], BY_EVENTS, out)
    before = facts(out)
    shutil.copytree(path, tmp_path / 'copy')
    result = convert([tmp_path / 'copy'], BY_EVENTS, out)
    assert result.status == 0
    assert result.report['per_bag'][0]['result'] == 'already there'
    assert "episode 'second' is in the dataset already, from " in said(result)
    assert 'the same recording under another path' in said(result)
    entry = result.report['topics']['/arm']
    assert (entry['used'], entry['read']) == (0, sum(entry['skipped'].values()))
    path.rename(tmp_path / 'moved')
    assert convert([tmp_path / 'moved'], BY_EVENTS, out).report['episodes']['new'] == 0
    assert facts(out) == before
    # Redone from where it lies now, it is still one recording.
    convert([tmp_path / 'moved'], BY_EVENTS, out, replace=True)
    assert facts(out) == [('moved', 'first', 5), ('moved', 'second', 5)]


@pytest.mark.parametrize('workers', [1, 2])
def test_copies_given_together_are_one(tmp_path: Path, workers: int) -> None:
    path = bag(tmp_path, 'run')
    copies = [shutil.copytree(path, tmp_path / name) for name in ('run_copy', 'run_old')]
    result = convert([path, *copies], WHOLE, tmp_path / 'out', workers=workers)
    assert result.status == 0
    assert facts(tmp_path / 'out') == [('run', 'run', 4)]  # ids differ: each is its bag's name
    assert [each['result'] for each in result.report['per_bag']] == [
        'converted',
        'already there',
        'already there',
    ]
    for entry in result.report['topics'].values():
        assert entry['read'] == entry['used'] + sum(entry['skipped'].values())
    assert result.report['episodes']['new'] == 1


def test_attempts_that_only_start_alike_are_all_kept(tmp_path: Path) -> None:
    """Simulation time begins at the same stamp each time, and ids may repeat."""
    first = steady(0.5)
    second = steady(0.5)
    second.rows = [row for row in second.rows if row[1] != '/joint_states']
    third = steady(0.5)
    third.rows = [row for row in third.rows if row[1] != '/front']
    for ms in range(-40, 501, 20):
        second.joints(ms, 0.002 * ms, 0.1)
    for ms in range(-50, 501, 50):
        third.image(ms, 200)
    paths = [made.write(tmp_path / f'{n}') for n, made in enumerate((first, second, third))]
    result = convert(paths, BY_EVENTS, tmp_path / 'out')
    assert len(facts(tmp_path / 'out')) == 3, said(result)


def test_a_bag_that_changed_is_told_and_not_touched(tmp_path: Path) -> None:
    out = tmp_path / 'out'
    path, other = bag(tmp_path, 'a'), bag(tmp_path, 'b', 0.5, 5000)
    convert([path], BY_EVENTS, out)
    before = facts(out)
    for seconds, start_ms in ((0.7, 0.0), (0.5, 3000.0), (0.3, 0.0)):
        shutil.rmtree(path)
        bag(tmp_path, 'a', seconds, start_ms)
        result = convert([path], BY_EVENTS, out)
        assert result.status == 1
        assert result.report['per_bag'][0]['result'] == 'changed'
        assert "episode 'a' has changed since it was converted: 5 rows" in said(result)
        assert 'use --replace' in said(result)
        assert facts(out) == before
    assert convert([path, other], BY_EVENTS, out).status == 3
    assert [row[0] for row in facts(out)] == ['a', 'b']
    assert convert([path], BY_EVENTS, out, replace=True).status == 0
    assert facts(out)[0] == ('a', 'a', 3)


def test_a_bag_that_grew_gives_its_new_episodes(tmp_path: Path) -> None:
    path = two_in_one(tmp_path, 'two', both=False)
    convert([path], BY_EVENTS, tmp_path / 'out')
    shutil.rmtree(path)
    two_in_one(tmp_path, 'two')
    result = convert([path], BY_EVENTS, tmp_path / 'out')
    assert result.status == 0
    assert (result.report['episodes']['new'], result.report['episodes']['already_there']) == (1, 1)
    assert facts(tmp_path / 'out') == [('two', 'first', 5), ('two', 'second', 5)]


def test_a_damaged_picture_is_no_change(tmp_path: Path) -> None:
    """What cannot be decoded moves the ticks; a second run must find the same ones."""
    made = steady(0.5, events=False)
    made.rows = [row for row in made.rows if row[1] != '/front']
    made.image(-60, 0, data=b'\xff\xd8 no image')
    for ms in range(40, 501, 50):
        made.image(ms, ms % 200)
    path = made.write(tmp_path / 'bag')
    first = convert([path], WHOLE, tmp_path / 'out')
    assert first.report['episodes']['new'] == 1
    again = convert([path], WHOLE, tmp_path / 'out')
    assert again.status == 0, said(again)
    assert again.report['episodes'] == {
        **again.report['episodes'],
        'new': 0,
        'already_there': 1,
    }
