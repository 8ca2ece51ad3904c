"""`qt-ros import-lerobot` as a user types it, and sets that qt-ros itself wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_sets import MadeSet, contract

from qt_ros.cli import main
from qt_ros.contract import Contract
from qt_ros.dataset import Dataset, DatasetWriter
from qt_ros.episode import OUTCOMES, Episode
from qt_ros.lerobot import Source, import_lerobot, suggest_contract

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main(['import-lerobot', *map(str, arguments)])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        said = capsys.readouterr()
        assert 'Traceback' not in said.err
        return status, said.out, said.err

    return run


@pytest.fixture
def contract_file(tmp_path: Path) -> Path:
    path = tmp_path / 'so100.yaml'
    path.write_text(contract().to_yaml())
    return path


def episode(made_with: Contract, seed: int, **changes) -> Episode:
    """Return an episode of random rows of ours."""
    rng = np.random.default_rng(seed)
    rows = 4 + seed % 3
    frames = rng.integers(60, 190, (rows, 1, 1, 3)) + np.zeros((1, 32, 48, 1), int)
    stamps = 10**18 + np.arange(rows) * 10**8
    fields = {
        'episode_id': f'take-{seed}',
        'instruction': f'task {seed % 2}',
        'outcome': OUTCOMES[seed % 5],
        'source': 'mixed',
        'policy_id': 'run@7',
        'bag_uri': f'bags/{seed}',
        'contract_hash': made_with.hash,
        'start_stamp_ns': 10**18,
        'state': rng.normal(size=(rows, 3)).astype(np.float32),
        'action': rng.normal(size=(rows, len(made_with.dims))).astype(np.float32),
        'requested': rng.normal(size=(rows, len(made_with.dims))).astype(np.float32),
        'intervention': rng.integers(0, 2, rows).astype(bool),
        'stamps_ns': {name: stamps - rng.integers(0, 10**8, rows) for name in made_with.streams},
        'valid': {name: rng.integers(0, 2, rows).astype(bool) for name in made_with.streams},
        'images': {'top': lambda: iter(frames.astype(np.uint8))},
    }
    return Episode(**{**fields, **changes})


def test_import_twice_changes_nothing_the_second_time(
    tmp_path: Path, command: Command, contract_file: Path
) -> None:
    source = MadeSet().write(tmp_path / 'theirs')
    arguments = (source, '--out', tmp_path / 'ours', '--json')
    status, out, _ = command(*arguments, '--contract', contract_file)
    first = json.loads(out)
    assert (status, first['episodes']['new'], first['rows']) == (0, 3, 19)
    assert first['mapping']['action']['grip'] == 'action.gripper.pos'
    status, out, _ = command(*arguments)  # the contract of the dataset serves
    second = json.loads(out)
    assert (status, second['episodes']['new'], second['episodes']['already_there']) == (0, 0, 3)
    found = Dataset(tmp_path / 'ours')
    assert [each.bag_uri for each in found.episodes] == [f'{source}#{e}' for e in range(3)]


def test_parts_of_a_set_with_words_of_their_own(
    tmp_path: Path, command: Command, contract_file: Path
) -> None:
    source = MadeSet(success=None).write(tmp_path / 'theirs')
    given = (source, '--out', tmp_path / 'ours', '--contract', contract_file)
    status, _, err = command(*given)
    assert status == 1
    assert '--outcome' in err
    assert command(*given, '--episodes', '0,2', '--outcome', 'success')[0] == 0
    assert command(*given, '--episodes', '1-1', '--outcome', 'failure')[0] == 0
    told = {each.bag_uri[-1]: each.outcome for each in Dataset(tmp_path / 'ours').episodes}
    assert told == {'0': 'success', '2': 'success', '1': 'failure'}


def test_actions_in_other_units_are_told(
    tmp_path: Path, command: Command, contract_file: Path
) -> None:
    class Degrees(MadeSet):
        def action(self, episode: int) -> np.ndarray:
            return np.rad2deg(super().action(episode))

    source = Degrees().write(tmp_path / 'theirs')
    arguments = (source, '--out', tmp_path / 'ours', '--contract', contract_file)
    status, out, err = command(*arguments)
    assert status == 0
    assert 'action shoulder_pan: 100% of the actions lie outside -0.2 to 0.2' in err
    assert 'share outside' in out


def test_a_suggested_contract_serves_at_once(tmp_path: Path, command: Command) -> None:
    cameras = {'top': (64, 96), 'wrist-cam': (64, 64)}
    for number, names in enumerate(
        (
            ['shoulder_pan.pos', 'elbow.pos', 'gripper.pos'],
            ['left.x', 'left.y', 'grip'],
            ['x.vel', 'y.vel', 'Wrist Roll.pos'],
            {'motors': ['1', '2', '3']},
            None,
        )
    ):
        source = MadeSet(names=names, cameras=cameras).write(tmp_path / f'theirs{number}')
        out, guessed = tmp_path / f'ours{number}', tmp_path / f'guess{number}.yaml'
        status, _, err = command(source, '--out', out, '--suggest', guessed)
        assert status == 0, err
        assert 'FILL IN' in guessed.read_text()
        found = Dataset(out)
        assert len(found) == 3
        assert sorted(camera.name for camera in found.contract.cameras) == ['top', 'wrist_cam']
    status, _, err = command(source, '--out', out, '--suggest', guessed)
    assert status == 1
    assert 'exists' in err


def test_suggested_ranges_hold_what_the_set_holds(tmp_path: Path) -> None:
    made = MadeSet(lengths=(60, 40))
    guessed = Contract.parse(suggest_contract(Source(made.write(tmp_path / 'theirs'))))
    assert guessed.rate_hz == made.fps
    changes = np.concatenate([np.diff(made.action(e)[:, 0]) for e in range(2)])
    dim = guessed.action_dims[0]
    assert (dim.name, dim.mode) == ('shoulder_pan', 'delta')
    reach = np.abs(np.percentile(changes, (1, 99))).max()
    assert dim.high == -dim.low == pytest.approx(reach, rel=0.01)
    assert [dim.mode for dim in guessed.action_dims] == ['delta', 'delta', 'absolute']


def test_wrong_usage(tmp_path: Path, command: Command, contract_file: Path) -> None:
    source = MadeSet().write(tmp_path / 'theirs')
    for arguments, status, words in (
        ((source,), 1, '--out OUT'),
        ((source, '--out', tmp_path / 'ours'), 1, '--contract FILE'),
        ((source, '--out', tmp_path / 'o', '--map', 'front'), 1, 'OURS=THEIRS'),
        ((source, '--out', tmp_path / 'o', '--episodes', '3-1'), 2, 'range'),
        ((source, '--out', tmp_path / 'o', '--episodes', 'x'), 2, '0,3,5-9'),
        ((source, '--out', tmp_path / 'o', '--outcome', 'won'), 2, 'success'),
        (
            (tmp_path / 'gone', '--out', tmp_path / 'o', '--contract', contract_file),
            1,
            'is missing',
        ),
        ((source, '--out', source, '--contract', contract_file), 1, 'beside'),
    ):
        found, _, err = command(*arguments)
        assert (found, words in err) == (status, True), err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['so100.yaml', 'theirs']


def test_one_bad_episode_is_status_3(
    tmp_path: Path, command: Command, contract_file: Path
) -> None:
    class Noise(MadeSet):
        def frame(self, camera: str, episode: int, frame: int) -> np.ndarray:
            return np.random.default_rng(frame).integers(0, 256, (64, 96, 3), np.uint8)

    source = Noise(lengths=(20, 30)).write(tmp_path / 'theirs')
    path = source / 'videos/observation.images.top/chunk-000/file-000.mp4'
    content = bytearray(path.read_bytes())
    at = content.index(b'mdat') + len(content) // 10
    content[at : at + 4000] = b'\xff' * 4000
    path.write_bytes(bytes(content))
    status, _, err = command(source, '--out', tmp_path / 'ours', '--contract', contract_file)
    assert status == 3
    assert '! episode 0' in err


@pytest.mark.parametrize('terminate', [False, True])
def test_a_set_of_ours_comes_back_as_it_was(tmp_path: Path, terminate: bool) -> None:
    made_with = contract(more='terminate: {bins: 2}' if terminate else '')
    with DatasetWriter(tmp_path / 'first', made_with) as writer:
        for seed in range(7):
            writer.append(episode(made_with, seed))
    result = import_lerobot(tmp_path / 'first', tmp_path / 'second', made_with)
    assert result.status == 0
    assert result.report['episodes']['outcome_from'] == {'episode columns': 7}
    first, second = Dataset(tmp_path / 'first'), Dataset(tmp_path / 'second')
    for index in range(7):
        mine, back = first.rows(index), second.rows(index)
        assert mine.keys() == back.keys()
        for name, values in mine.items():
            np.testing.assert_array_equal(back[name], values, err_msg=name)
        error = first.frames(index, 'top').astype(float) - second.frames(index, 'top')
        assert np.abs(error).mean() < 1.5
        for name in ('episode_id', 'outcome', 'source', 'policy_id', 'start_stamp_ns'):
            assert getattr(first.episodes[index], name) == getattr(second.episodes[index], name)


def test_our_deltas_are_added_up_for_slower_ticks(tmp_path: Path) -> None:
    fast, slow = contract(rate_hz=20), contract(rate_hz=10)
    with DatasetWriter(tmp_path / 'first', fast) as writer:
        writer.append(episode(fast, 1, outcome='success'))
    import_lerobot(tmp_path / 'first', tmp_path / 'second', slow)
    fine = Dataset(tmp_path / 'first').rows(0)['action'].astype(np.float64)
    coarse = Dataset(tmp_path / 'second').rows(0)['action']
    expected = [fine[0:2, :2].sum(axis=0), fine[2:4, :2].sum(axis=0), fine[4:5, :2].sum(axis=0)]
    np.testing.assert_allclose(coarse[:, :2], expected, atol=1e-6)
    np.testing.assert_array_equal(coarse[:, 2], fine[[1, 3, 4], 2].astype(np.float32))


def test_a_set_of_ours_without_its_contract_does_not_guess(tmp_path: Path) -> None:
    made_with = contract()
    with DatasetWriter(tmp_path / 'first', made_with) as writer:
        writer.append(episode(made_with, 0))
    (tmp_path / 'first/meta/contract.yaml').unlink()
    assert import_lerobot(tmp_path / 'first', tmp_path / 'same', made_with).status == 0
    rows = [Dataset(tmp_path / 'same').rows(0)['action'], episode(made_with, 0).action]
    np.testing.assert_array_equal(*rows)
    other = contract(more='terminate: {bins: 2}')
    with pytest.raises(Exception, match=r'say --actions targets\|changes'):
        import_lerobot(tmp_path / 'first', tmp_path / 'other', other)
    assert import_lerobot(tmp_path / 'first', tmp_path / 'o', other, actions='changes').status == 0


def test_demonstrations_join_a_dataset_of_bags(tmp_path: Path) -> None:
    made_with = contract()
    with DatasetWriter(tmp_path / 'ours', made_with) as writer:
        for seed in range(3):
            writer.append(episode(made_with, seed))
    before = [Dataset(tmp_path / 'ours').rows(index) for index in range(3)]
    source = MadeSet().write(tmp_path / 'theirs')
    import_lerobot(source, tmp_path / 'ours', made_with)
    with DatasetWriter(tmp_path / 'ours', made_with) as writer:
        writer.append(episode(made_with, 9))
    found = Dataset(tmp_path / 'ours')
    assert len(found) == 7
    for index, rows in enumerate(before):
        for name, values in rows.items():
            np.testing.assert_array_equal(found.rows(index)[name], values)
    assert not any(found.problems(index) for index in range(7))
