"""The commands one after the other, in process: dataset, training, evaluation, report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli_outcome import TASKS, TINY, Command

from qt_ros.demo import move_aside


def test_info_counts_episodes(qt_ros: Command, dataset: Path) -> None:
    found = qt_ros('info', dataset, '--json').data
    assert found['episodes'] == 8
    assert sum(group['episodes'] for group in found['groups']) == 8
    assert {group['instruction'] for group in found['groups']} == set(TASKS)
    assert found['contract'] == 'block_arm'
    assert 'push the red block' in qt_ros('info', dataset).out


def test_train_says_how_it_goes(qt_ros: Command, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / 'run'
    found = qt_ros('train', dataset, '--out', run, '--steps', '10', *TINY, '--json')
    assert found.status == 0
    assert found.data['steps'] == 10
    for word in ('loss', 'Q on successes', 'failure', 'gap', 'transitions/s'):
        assert word in found.err
    again = qt_ros('train', dataset, '--out', run, '--resume', '--steps', '15', '--json')
    assert again.data['steps'] == 15


def test_evaluate_in_process_and_report(qt_ros: Command, trained: Path, tmp_path: Path) -> None:
    found = qt_ros('evaluate', trained, '--episodes', '2', '--max-duration-s', '2', '--json').data
    assert found['episodes'] == 2
    assert set(found['tasks']) == set(TASKS)
    low, high = found['interval95']
    assert 0 <= low <= found['success_rate'] <= high <= 1
    assert found['over_ros'] is False
    out = tmp_path / 'new' / 'run.html'
    assert qt_ros('report', trained, '--out', out).status == 0
    text = out.read_text()
    assert 'Learning' in text
    assert 'film strip' in text
    assert_self_contained(text)


def test_report_on_a_dataset(qt_ros: Command, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / 'dataset.html'
    assert qt_ros('report', dataset, '--out', out, '--json').data == {'report': str(out)}
    text = out.read_text()
    assert 'film strip of a success' in text
    assert_self_contained(text)
    assert out.stat().st_size < 3_000_000


def assert_self_contained(text: str) -> None:
    """Check that a page loads nothing from anywhere, and that its tags are closed."""
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert '<script' not in text
    assert text.count('<section>') == text.count('</section>') > 1


def test_label_from_csv(qt_ros: Command, dataset: Path, tmp_path: Path) -> None:
    from qt_ros.dataset import Dataset

    first = Dataset(dataset).episodes[0]
    csv = tmp_path / 'labels.csv'
    csv.write_text(f'episode_id,outcome\n{first.episode_id},unknown\nnobody,failure\n')
    assert qt_ros('label', dataset, '--csv', csv, '--by', 'me').status == 1
    assert Dataset(dataset).episodes[0].outcome == first.outcome
    found = qt_ros('label', dataset, '--csv', csv, '--by', 'me', '--skip-missing', '--json')
    assert found.status == 3  # one row fits nothing
    assert [found.data[name] for name in ('changed', 'fitting', 'unused')] == [1, 1, 1]
    assert Dataset(dataset).episodes[0].outcome == 'unknown'
    csv.write_text(f'episode_id,outcome\n{first.episode_id},{first.outcome}\n')
    assert qt_ros('label', dataset, '--csv', csv, '--by', 'me').status == 0
    assert Dataset(dataset).episodes[0].outcome == first.outcome


@pytest.mark.bags
def test_convert_says_what_it_did(qt_ros: Command, real_bags: Path, tmp_path: Path) -> None:
    from qt_ros.resources import resource

    contract, out = resource('config/robots/abitobot.yaml'), tmp_path / 'dataset'
    arguments = ('convert', real_bags / 'abitobot', '--contract', contract, '--out', out)
    found = qt_ros(*arguments, '--json')
    assert found.status == 0
    assert found.data == json.loads((out / 'conversion_report.json').read_text())
    assert found.data['episodes']['new'] >= 1
    again = qt_ros(*arguments)
    assert again.status == 0
    assert '0 new episodes' in again.out


def test_an_earlier_folder_is_moved_aside(tmp_path: Path) -> None:
    root = tmp_path / 'demo'
    assert move_aside(root) is None
    for _ in range(3):
        root.mkdir()
        (root / 'precious').write_text('data')
        aside = move_aside(root)
        assert aside is not None
        assert (aside / 'precious').read_text() == 'data'
        assert not root.exists()
    assert len(list(tmp_path.iterdir())) == 3
