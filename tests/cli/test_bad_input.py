"""Bad input ends in one clear message and the right exit status, and loses nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_outcome import Command, Outcome


def refused(found: Outcome, *words: str) -> None:
    """Check that a command failed with a message that holds these words, and printed no result."""
    assert found.status == 1
    assert found.err.count('qt-ros: ') == 1
    for word in words:
        assert word in found.err
    assert found.out == ''


def files(folder: Path) -> dict[Path, bytes]:
    """Return every file of a folder."""
    return {path: path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


@pytest.fixture
def broken_contract(tmp_path: Path, contract_path: Path) -> Path:
    """A contract that lacks a topic and misspells a key."""
    text = contract_path.read_text()
    path = tmp_path / 'broken.yaml'
    broken = text.replace('front: {topic: /front/image/compressed, ', 'front: {')
    path.write_text(broken.replace('watchdog_s', 'watchdogs'))
    return path


def test_a_contract_with_a_missing_topic(
    qt_ros: Command, tmp_path: Path, broken_contract: Path
) -> None:
    found = qt_ros('convert', tmp_path, '--contract', broken_contract, '--out', tmp_path / 'd')
    refused(found, 'broken.yaml', 'topic', 'watchdog_s')
    assert not (tmp_path / 'd').exists()


@pytest.mark.bags
def test_a_bag_without_the_contracts_topics(
    qt_ros: Command, tmp_path: Path, contract_path: Path, real_bags: Path
) -> None:
    bag, out = real_bags / 'rosbag2_cases' / 'talker_mcap', tmp_path / 'd'
    found = qt_ros('convert', bag, '--contract', contract_path, '--out', out, '--workers', 1)
    refused(found, 'talker_mcap', '/front/image/compressed')
    assert not out.exists()


@pytest.mark.bags
@pytest.mark.parametrize('case', ['empty_bag', 'wrong_serialization'])
def test_a_bag_that_holds_nothing_readable(
    qt_ros: Command, tmp_path: Path, contract_path: Path, real_bags: Path, case: str
) -> None:
    bag, out = real_bags / 'rosbag2_cases' / case, tmp_path / 'd'
    found = qt_ros('convert', bag, '--contract', contract_path, '--out', out, '--workers', 1)
    refused(found, case)
    assert not out.exists()
    looked = qt_ros('inspect', bag)
    assert looked.status == 1
    assert case in looked.err


@pytest.mark.bags
def test_a_bag_with_parts_missing_is_done_in_part(qt_ros: Command, real_bags: Path) -> None:
    found = qt_ros('inspect', real_bags / 'soccer_goal', '--json')
    assert found.status == 3
    assert found.data['partial'] is True
    assert found.data['problems']


@pytest.mark.bags
def test_suggest_writes_a_contract_but_not_over_a_file(
    qt_ros: Command, tmp_path: Path, real_bags: Path
) -> None:
    from qt_ros.contract import Contract

    suggestion = tmp_path / 'new' / 'contract.yaml'
    bag = real_bags / 'abitobot'
    assert qt_ros('inspect', bag, '--suggest', suggestion).status == 0
    Contract.load(suggestion)
    text = suggestion.read_text()
    refused(qt_ros('inspect', bag, '--suggest', suggestion), 'contract.yaml', 'exists')
    assert suggestion.read_text() == text


@pytest.mark.parametrize(
    'arguments',
    [
        ('inspect', 'nowhere'),
        ('info', 'nowhere'),
        ('label', 'nowhere', '--csv', 'nowhere.csv'),
        ('train', 'nowhere', '--out', 'run'),
        ('train', 'key=value', '--out', 'run'),
        ('evaluate', 'nowhere'),
        ('evaluate', 'nowhere', '--ros'),
        ('collect', 'nowhere', '--episodes', '1', '--out', 'bags'),
        ('loop', '--rounds', '1', '--run', 'nowhere', '--dataset', 'nowhere', '--out', 'loop'),
        ('report', 'nowhere'),
        ('report', '.'),
    ],
)
def test_a_path_that_does_not_exist(
    qt_ros: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(qt_ros(*arguments))
    assert list(tmp_path.iterdir()) == []


def test_settings_that_do_not_exist_are_all_named(
    qt_ros: Command, tmp_path: Path, dataset: Path
) -> None:
    out = tmp_path / 'run'
    found = qt_ros('train', dataset, '--out', out, 'optim.stepz=3', 'loss.alfa=1')
    refused(found, 'optim.stepz', 'optim.steps', 'loss.alfa', 'loss.alpha')
    refused(qt_ros('train', dataset, '--out', out, '--preset', 'smal'), "'small'", 'tiny')
    assert not out.exists()


def test_training_twice_into_one_folder_loses_nothing(
    qt_ros: Command, dataset: Path, trained: Path
) -> None:
    before = files(trained)
    refused(qt_ros('train', dataset, '--out', trained), 'resume')
    assert files(trained) == before


def test_a_dataset_or_checkpoint_of_another_contract(
    qt_ros: Command, tmp_path: Path, dataset: Path, trained: Path, contract_path: Path
) -> None:
    from qt_ros.contract import Contract
    from qt_ros.dataset import DatasetWriter
    from qt_ros.sim.demonstrations import collect_episodes

    task = 'push the red block to the left'
    contract = Contract.parse(contract_path.read_text().replace('bins: 129', 'bins: 65'))
    other = tmp_path / 'other'
    with DatasetWriter(other, contract) as writer:
        for episode in collect_episodes(contract, [task], 1, 0.0, 0):
            writer.append(episode)
    out = tmp_path / 'run'
    refused(qt_ros('train', dataset, other, '--out', out), 'contract')
    found = qt_ros('train', other, '--out', out, '--steps', '2', '--init', trained)
    refused(found, 'contract')
    found = qt_ros('loop', '--rounds', '1', '--run', trained, '--dataset', other, '--out', out)
    refused(found, 'contract', 'other')
    assert not out.exists()


@pytest.mark.parametrize('command', [('evaluate',), ('collect', '--out', 'bags')])
def test_an_unknown_task(
    qt_ros: Command, trained: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = files(trained)
    name, *options = command
    found = qt_ros(name, trained, '--episodes', '1', *options, '--tasks', 'push the red blok')
    refused(found, 'push the red blok', 'push the red block to the left')
    assert files(trained) == before
    assert list(tmp_path.iterdir()) == []


def test_labels_that_fit_nothing_change_nothing(
    qt_ros: Command, tmp_path: Path, dataset: Path
) -> None:
    before = files(dataset)
    csv = tmp_path / 'labels.csv'
    csv.write_text('episode_id,outcome\nnobody,success\n')
    refused(qt_ros('label', dataset, '--csv', csv), 'labels.csv', 'nothing was changed')
    csv.write_text('episode_id,outcome\nnobody,splendid\n')
    refused(qt_ros('label', dataset, '--csv', csv), 'splendid', 'success')
    assert files(dataset) == before


def test_a_damaged_dataset_is_named(qt_ros: Command, tmp_path: Path, dataset: Path) -> None:
    copy = tmp_path / 'copy'
    shutil.copytree(dataset, copy)
    (copy / 'meta' / 'info.json').write_text('{')
    for arguments in (('info',), ('report',)):
        refused(qt_ros(*arguments, copy), 'info.json')


def test_a_file_where_a_folder_is_needed(qt_ros: Command, tmp_path: Path, dataset: Path) -> None:
    (tmp_path / 'file').write_text('not a folder')
    refused(qt_ros('report', dataset, '--out', tmp_path / 'file' / 'report.html'), 'file')
