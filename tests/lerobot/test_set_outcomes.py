"""Where outcomes of imported episodes come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_sets import MadeSet, contract

from qt_ros.dataset import Dataset
from qt_ros.errors import DatasetError
from qt_ros.lerobot import SourceError, import_lerobot


def last(*values: bool):
    """Return a column maker: `values[episode]` on the last row, false before."""
    return lambda episode, length: (np.arange(length) == length - 1) & values[episode]


def outcomes(out: Path) -> list[str]:
    """Return the outcomes of a dataset."""
    return [episode.outcome for episode in Dataset(out).episodes]


def test_success_and_failure_from_the_rows(tmp_path: Path) -> None:
    source = MadeSet(success={1: True}).write(tmp_path / 'theirs')
    result = import_lerobot(source, tmp_path / 'ours', contract())
    assert outcomes(tmp_path / 'ours') == ['failure', 'success', 'failure']
    assert result.report['episodes']['outcome_from'] == {'next.success': 3}
    rows = Dataset(tmp_path / 'ours').rows(1)
    assert rows['next.reward'].tolist() == [0] * 8 + [1]
    assert rows['next.done'][-1]
    assert not rows['next.truncated'].any()


@pytest.mark.parametrize(
    'extra',
    [
        {'next.truncated': last(True, True, False), 'next.done': last(False, False, True)},
        {'next.truncated': last(True, True, False)},
        {'next.done': last(False, True, True)},
    ],
)
def test_an_episode_that_was_cut_off_is_a_timeout(tmp_path: Path, extra: dict) -> None:
    source = MadeSet(success={1: True}, extra=extra).write(tmp_path / 'theirs')
    import_lerobot(source, tmp_path / 'ours', contract())
    assert outcomes(tmp_path / 'ours') == ['timeout', 'success', 'failure']


def test_a_set_that_says_nothing_needs_a_word(tmp_path: Path) -> None:
    source = MadeSet(success=None).write(tmp_path / 'theirs')
    with pytest.raises(SourceError) as caught:
        import_lerobot(source, tmp_path / 'ours', contract())
    assert 'next.success' in str(caught.value)
    assert '--outcome success|failure' in str(caught.value)
    assert not (tmp_path / 'ours').exists()
    result = import_lerobot(source, tmp_path / 'ours', contract(), outcome='success')
    assert outcomes(tmp_path / 'ours') == ['success'] * 3
    assert result.report['episodes']['outcome_from'] == {'command line': 3}


def test_the_command_line_wins_and_says_so(tmp_path: Path) -> None:
    source = MadeSet(success={0: True}).write(tmp_path / 'theirs')
    result = import_lerobot(
        source, tmp_path / 'ours', contract(), outcome='aborted', source='policy'
    )
    assert outcomes(tmp_path / 'ours') == ['aborted'] * 3
    assert {episode.source for episode in Dataset(tmp_path / 'ours').episodes} == {'policy'}
    assert any('--outcome aborted was taken' in text for text in result.report['problems'])


def test_success_that_passed_is_no_success_and_told(tmp_path: Path) -> None:
    source = MadeSet(
        success=None, extra={'next.success': lambda e, n: np.arange(n) == n - 2}
    ).write(tmp_path / 'theirs')
    result = import_lerobot(source, tmp_path / 'ours', contract())
    assert outcomes(tmp_path / 'ours') == ['failure'] * 3
    assert any('before the last row' in text for text in result.report['problems'])


def test_unknown_words_are_refused(tmp_path: Path) -> None:
    source = MadeSet().write(tmp_path / 'theirs')
    for words in ({'outcome': 'won'}, {'source': 'robot'}, {'actions': 'deltas'}):
        with pytest.raises(DatasetError, match='allowed'):
            import_lerobot(source, tmp_path / 'ours', contract(), **words)
