"""Converting again: what is there is passed over, what was asked anew changes, nothing is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_bags import contract
from made_conversions import BY_EVENTS, bag, facts, said, two_in_one

from qt_ros.bags.converter import convert
from qt_ros.cli.main import main
from qt_ros.dataset import Dataset, DatasetWriter, build_cache, read_labels, relabel
from qt_ros.dataset.replacing import Change, merged_order, replacing
from qt_ros.dataset.swap import beside, swap
from qt_ros.errors import DatasetError


def test_replaced_episodes_stand_in_their_old_place(tmp_path: Path) -> None:
    paths = [bag(tmp_path, name, 0.4 + 0.1 * n) for n, name in enumerate('abcd')]
    out = tmp_path / 'out'
    convert(paths, BY_EVENTS, out)
    before = Dataset(out)
    frames = before.frames(3, 'front')
    shutil.rmtree(paths[1])
    bag(tmp_path, 'b', 1.0, start_ms=2000)
    result = convert([paths[1]], BY_EVENTS, out, replace=True)
    assert result.status == 0
    assert facts(out) == [('a', 'a', 4), ('b', 'b', 10), ('c', 'c', 6), ('d', 'd', 7)]
    after = Dataset(out)
    assert result.report['per_bag'][0]['replaced'] == 1
    assert result.report['episodes']['new'] == 1
    for index in (0, 2, 3):
        assert after.episodes[index].digest == before.episodes[index].digest
    assert np.array_equal(after.frames(3, 'front'), frames)
    assert json.loads((out / 'conversion_report.json').read_text()) == result.report
    with pytest.raises(DatasetError, match='has been replaced since it was opened'):
        before.rows(0)
    clean = tmp_path / 'clean'
    convert(paths, BY_EVENTS, clean)
    assert [e.digest for e in Dataset(clean).episodes] == [e.digest for e in after.episodes]
    for name in ('meta/info.json', 'meta/tasks.parquet'):
        assert (out / name).read_bytes() == (clean / name).read_bytes()


def test_replacing_into_nothing_is_converting(tmp_path: Path) -> None:
    path = bag(tmp_path, 'a')
    assert convert([path], BY_EVENTS, tmp_path / 'out', replace=True).status == 0
    assert facts(tmp_path / 'out') == [('a', 'a', 5)]


@pytest.mark.parametrize('workers', [1, 2])
def test_episodes_of_different_bags_keep_their_order(tmp_path: Path, workers: int) -> None:
    paths = [bag(tmp_path, name, 0.5, 1000 * n) for n, name in enumerate('abc')]
    convert(paths[:2], BY_EVENTS, tmp_path / 'out')
    result = convert(
        [paths[2], paths[0]], BY_EVENTS, tmp_path / 'out', replace=True, workers=workers
    )
    assert [name for name, _, _ in facts(tmp_path / 'out')] == ['a', 'b', 'c']
    assert [each.get('replaced') for each in result.report['per_bag']] == [0, 1]


def test_bad_input_never_costs_data(tmp_path: Path) -> None:
    paths = [bag(tmp_path, name, 0.5, 1000 * n) for n, name in enumerate('ab')]
    out = tmp_path / 'out'
    convert(paths, BY_EVENTS, out)
    before = facts(out)
    (file,) = paths[1].glob('*.mcap')
    file.write_bytes(file.read_bytes()[:300])
    result = convert([paths[1]], BY_EVENTS, out, replace=True)
    assert result.status == 1
    assert 'nothing came of it now; its 1 episodes of before are kept' in said(result)
    assert facts(out) == before
    result = convert(paths, BY_EVENTS, out, replace=True)
    assert result.status == 3
    assert facts(out) == before


def test_episodes_that_left_a_whole_bag_leave_and_of_a_damaged_one_stay(tmp_path: Path) -> None:
    path = two_in_one(tmp_path, 'two')
    other = bag(tmp_path, 'z', 0.3, 9000)
    convert([path, other], BY_EVENTS, tmp_path / 'out')
    rows = [('two', 'first', 5), ('two', 'second', 5), ('z', 'z', 3)]
    assert facts(tmp_path / 'out') == rows
    shutil.copytree(tmp_path / 'out', tmp_path / 'again')
    (file,) = path.glob('*.mcap')
    whole = file.read_bytes()
    at = whole.rindex(b'\x06', 0, len(whole) // 2)
    for cut in range(at, len(whole), len(whole) // 9):
        file.write_bytes(whole[:cut])
        result = convert([path], BY_EVENTS, tmp_path / 'again', replace=True)
        names = [name for _, name, _ in facts(tmp_path / 'again')]
        assert names == ['first', 'second', 'z'], said(result)
    shutil.rmtree(path)
    two_in_one(tmp_path, 'two', both=False)
    result = convert([path], BY_EVENTS, tmp_path / 'out', replace=True)
    assert "episodes 'second' are not in it any more; they have left the dataset" in said(result)
    assert facts(tmp_path / 'out') == [rows[0], rows[2]]


def test_labels_of_people_survive(tmp_path: Path) -> None:
    paths = [bag(tmp_path, name, 0.5, 1000 * n) for n, name in enumerate('abc')]
    out = tmp_path / 'out'
    convert(paths, BY_EVENTS, out)
    relabel(out, {1: 'failure', 2: 'aborted'}, 'ann')
    relabel(out, {1: 'timeout'}, 'ben')
    extra = two_in_one(tmp_path, 'x')
    convert([extra, paths[1]], BY_EVENTS, out, replace=True)
    outcomes = [e.outcome for e in Dataset(out).episodes]
    assert outcomes == ['success', 'timeout', 'aborted', 'failure', 'failure']
    assert [e.stored_outcome for e in Dataset(out).episodes] == outcomes
    history = [(e.episode_index, e.before, e.outcome, e.by) for e in read_labels(out)]
    assert history == [
        (1, 'success', 'failure', 'ann'),
        (2, 'success', 'aborted', 'ann'),
        (1, 'failure', 'timeout', 'ben'),
    ]
    # A file given now is newer than what was said before.
    (tmp_path / 'labels.csv').write_text('bag,outcome\nb,aborted\n')
    convert([paths[1]], BY_EVENTS, out, labels=tmp_path / 'labels.csv', replace=True)
    assert Dataset(out).episodes[1].outcome == 'aborted'
    assert [e.outcome for e in read_labels(out)][-1] == 'aborted'
    assert len(read_labels(out)) == 4
    facts(out)


def test_labels_of_episodes_that_left_stay_on_record_and_find_back(tmp_path: Path) -> None:
    path = two_in_one(tmp_path, 'two')
    out = tmp_path / 'out'
    convert([path, bag(tmp_path, 'z', 0.3, 9000)], BY_EVENTS, out)
    relabel(out, {1: 'success', 2: 'aborted'}, 'ann')
    shutil.rmtree(path)
    two_in_one(tmp_path, 'two', both=False)
    convert([path], BY_EVENTS, out, replace=True)
    assert [e.outcome for e in Dataset(out).episodes] == ['failure', 'aborted']
    assert [(e.episode_index, e.episode_id) for e in read_labels(out)] == [
        (-1, 'second'),
        (1, 'z'),
    ]
    shutil.rmtree(path)
    two_in_one(tmp_path, 'two')
    convert([path], BY_EVENTS, out, replace=True)
    assert [e.outcome for e in Dataset(out).episodes] == ['failure', 'success', 'aborted']


def test_what_others_keep_in_the_folder_comes_along(tmp_path: Path) -> None:
    path = bag(tmp_path, 'a')
    out = tmp_path / 'out'
    convert([path], BY_EVENTS, out)
    build_cache(out)
    (out / 'README.md').write_text('mine')
    (out / 'meta/notes.txt').write_text('mine too')
    (out / 'data/extra').mkdir()
    (out / 'data/extra/x.bin').write_bytes(b'1')
    (out / 'link').symlink_to('README.md')
    info = json.loads((out / 'meta/info.json').read_text())
    (out / 'meta/info.json').write_text(json.dumps({**info, 'tools': [{'name': 'say'}]}))
    convert([path], BY_EVENTS, out, replace=True)
    assert (out / 'README.md').read_text() == 'mine'
    assert (out / 'meta/notes.txt').read_text() == 'mine too'
    assert (out / 'data/extra/x.bin').read_bytes() == b'1'
    assert os.readlink(out / 'link') == 'README.md'
    assert json.loads((out / 'meta/info.json').read_text())['tools'] == [{'name': 'say'}]
    assert not (out / '.cache').exists()
    (out / '.cache').symlink_to('../larger_disk')
    (tmp_path / 'larger_disk').mkdir()
    convert([path], BY_EVENTS, out, replace=True)
    assert os.readlink(out / '.cache') == '../larger_disk'
    facts(out)


def test_a_dataset_behind_a_link_keeps_its_link(tmp_path: Path) -> None:
    path = bag(tmp_path, 'a')
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'out').symlink_to(tmp_path / 'elsewhere', target_is_directory=True)
    convert([path], BY_EVENTS, tmp_path / 'out')
    convert([path], BY_EVENTS, tmp_path / 'out', replace=True)
    assert (tmp_path / 'out').is_symlink()
    assert facts(tmp_path / 'out') == [('a', 'a', 5)]


def test_what_stands_in_the_way_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bag(tmp_path, 'a')
    out = tmp_path / 'out'
    convert([path], BY_EVENTS, out)
    beside(out).mkdir()
    (beside(out) / 'thesis.txt').write_text('years of work')
    with pytest.raises(DatasetError, match=r'is needed to replace .* holds thesis.txt; move'):
        convert([path], BY_EVENTS, out, replace=True)
    convert([path], BY_EVENTS, out)
    assert (beside(out) / 'thesis.txt').read_text() == 'years of work'
    shutil.rmtree(beside(out))
    with monkeypatch.context() as patch:
        patch.chdir(out / 'meta')
        with pytest.raises(DatasetError, match='run this from another folder'):
            convert([path], BY_EVENTS, out, replace=True)
    other = contract(**{'bins: 5': 'bins: 7'})
    with pytest.raises(DatasetError, match='made with contract'):
        convert([path], other, out, replace=True)
    with DatasetWriter(out, BY_EVENTS), pytest.raises(DatasetError, match='another process'):
        convert([path], BY_EVENTS, out, replace=True)
    facts(out)


def test_a_swap_cut_off_between_two_renames_is_finished_by_whoever_comes(tmp_path: Path) -> None:
    """Where names cannot be exchanged in one step: the first rename done, the second not."""
    path = bag(tmp_path, 'a')
    for number, opener in enumerate(
        (
            Dataset,
            lambda out: DatasetWriter(out, BY_EVENTS).close(),
            lambda out: relabel(out, {}, ''),
        )
    ):
        out = tmp_path / f'out{number}'
        convert([path], BY_EVENTS, out)
        work = beside(out)
        shutil.copytree(out, work / 'set')
        relabel(work / 'set', {0: 'aborted'}, 'me')
        out.rename(work / 'old')
        opener(out)
        assert Dataset(out).episodes[0].outcome == 'aborted'
        DatasetWriter(out, BY_EVENTS).close()
        facts(out)


def test_both_ways_of_swapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        out = tmp_path / str(number)
        for folder, text in ((out, 'old'), (beside(out) / 'set', 'new')):
            folder.mkdir(parents=True)
            (folder / 'which').write_text(text)
        if number:
            monkeypatch.setattr('qt_ros.dataset.swap.exchange', lambda a, b: False)
        swap(out)
        assert (out / 'which').read_text() == 'new'


@settings(max_examples=60, deadline=None)
@given(data=st.data(), old=st.integers(0, 8))
def test_order_is_that_of_the_old_set(data, old: int) -> None:
    owner = data.draw(st.lists(st.integers(0, 4), min_size=old, max_size=old))
    redone = data.draw(st.sets(st.integers(0, 6), max_size=4))
    coming = 0
    changes = []
    for name in sorted(redone):
        count = data.draw(st.integers(1, 3))
        leaving = tuple(index for index in range(old) if owner[index] == name)
        changes.append(Change(leaving, tuple(range(coming, coming + count))))
        coming += count
    order = merged_order(old, changes)
    assert sorted(index for new, index in order if new) == list(range(coming))
    stay = [index for index in range(old) if owner[index] not in redone]
    assert [index for new, index in order if not new] == stay
    for change in changes:
        at = [order.index((True, index)) for index in change.coming]
        assert at == list(range(at[0], at[0] + len(at)))  # side by side, in order
        if change.leaving:
            before = [index for new, index in order[: at[0]] if not new]
            assert all(index < change.leaving[0] for index in before)
            after = [index for new, index in order[at[-1] + 1 :] if not new]
            assert all(index > change.leaving[0] for index in after)


def test_readers_meet_a_whole_set_or_a_clear_error(tmp_path: Path) -> None:
    paths = [bag(tmp_path, name, 0.3, 1000 * n) for n, name in enumerate('abc')]
    out = tmp_path / 'out'
    convert(paths, BY_EVENTS, out)
    stop, seen, wrong = Event(), Counter[str](), []

    def read() -> None:
        while not stop.is_set():
            try:
                dataset = Dataset(out)
                names = [meta.episode_id for meta in dataset.episodes]
                rows = [len(dataset.rows(index)['index']) for index in range(len(dataset))]
                seen[f'{names} {rows}'] += 1
            except DatasetError as error:
                if not re.search('has been replaced since|is being replaced', str(error)):
                    wrong.append(str(error))

    reader = Thread(target=read)
    reader.start()
    try:
        for _ in range(4):
            convert(paths[:2], BY_EVENTS, out, replace=True)
    finally:
        stop.set()
        reader.join()
    assert not wrong, wrong
    assert list(seen) == ["['a', 'b', 'c'] [3, 3, 3]"]


def test_an_error_on_the_way_changes_nothing(tmp_path: Path) -> None:
    path = bag(tmp_path, 'a')
    out = tmp_path / 'out'
    convert([path], BY_EVENTS, out)
    inode = out.stat().st_ino

    def interrupted() -> None:
        with replacing(out, BY_EVENTS) as change:
            change.build([Change((0,), ())])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert out.stat().st_ino == inode
    assert facts(out) == [('a', 'a', 5)]


def test_the_journal_follows_by_name_whatever_was_redone(tmp_path: Path) -> None:
    paths = [bag(tmp_path, name, 0.3, 1000 * n) for n, name in enumerate('abcde')]
    out = tmp_path / 'out'
    convert(paths, BY_EVENTS, out)
    wanted = {'a': 'failure', 'c': 'timeout', 'e': 'aborted'}
    names = [e.episode_id for e in Dataset(out).episodes]
    relabel(out, {names.index(name): outcome for name, outcome in wanted.items()}, 'ann')
    history = read_labels(out)
    for redone in ((paths[0],), (paths[4], paths[2]), tuple(reversed(paths))):
        convert(redone, BY_EVENTS, out, replace=True, batch=2)
        found = {e.episode_id: e.outcome for e in Dataset(out).episodes}
        assert found == {name: wanted.get(name, 'success') for name in 'abcde'}
        assert [replace(e, episode_index=0) for e in read_labels(out)] == [
            replace(e, episode_index=0) for e in history
        ]
        assert [name for _, name, _ in facts(out)] == names


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bag(tmp_path, 'a')
    (tmp_path / 'c.yaml').write_text(BY_EVENTS.to_yaml())
    command = ['convert', str(path), '--contract', str(tmp_path / 'c.yaml')]
    command += ['--out', str(tmp_path / 'out'), '--workers', '1', '--json']
    for more, counts in (([], (1, 0, 0)), ([], (0, 1, 0)), (['--replace'], (1, 0, 1))):
        assert main([*command, *more]) == 0
        found = json.loads(capsys.readouterr().out)['episodes']
        assert (found['new'], found['already_there'], found['replaced']) == counts
    shutil.rmtree(path)
    bag(tmp_path, 'a', 0.7)
    assert main(command) == 1
    assert "episode 'a' has changed since it was converted" in capsys.readouterr().err
