"""What a terminal and a log show while a policy is trained."""

from __future__ import annotations

import os
import pty
import re
import sys

import pytest

from qt_ros.cli import console
from qt_ros.cli.console import Console
from qt_ros.loop.learning import figures
from qt_ros.presets import preset_path, presets
from qt_ros.progress import nobody

ROW = {
    'step': 4000, 'steps': 30000, 'loss': 1.8412, 'td': 0.66712, 'conservative': 0.1472,
    'q_success': 0.7712, 'q_failure': 0.0421, 'q_others': 0.00831, 'gap': 0.4123,
    'grad_norm': 1.0567, 'transitions_per_s': 10946.2,
}  # fmt: skip


def test_a_row_of_figures_fits_into_a_narrow_terminal():
    words = figures(ROW)
    assert words is not None
    lines = words.splitlines()
    assert lines == [
        'loss 1.84: td 0.667, conservative 0.147; gradient 1.06, 10946 transitions/s',
        'Q on successes 0.77, on failures 0.04, on bins not in the data 0.0083, gap 0.41',
    ]
    assert max(map(len, lines)) <= 80
    assert figures({'step': 3, 'steps': 9}) is None


def shown(script: str) -> str:
    """Run Python with a terminal of 82 columns; return what it showed, without its codes."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(COLUMNS='82', TERM='xterm')
        os.execv(sys.executable, [sys.executable, '-c', script])
    found = b''
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says so where other systems return nothing: the child has ended
            break
        if not part:
            break
        found += part
    os.close(terminal)
    assert os.waitpid(child, 0)[1] == 0
    return re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', found.decode())


def test_the_bar_counts_what_is_done_in_this_run_only_and_shows_all_lines():
    text = shown(f"""
import time
from qt_ros.cli.console import Console
from qt_ros.loop.learning import figures
row = {ROW!r}
with Console().task('Training first') as task:
    task.update(4000, 30000, figures(row))
    for step in range(4001, 4004):
        time.sleep(0.3)
        task.update(step, 30000, figures(row))
""")
    last = text.splitlines()[-3:]
    assert '4003/30000' in last[0]
    # 25997 steps at some 3 a second: hours. The 4000 before count for no speed.
    assert re.search(r'\d+:\d\d:\d\d +\d+:\d\d:\d\d', last[0]), last
    assert 'transitions/s' in last[1]
    assert 'gap 0.41' in last[2]


def test_a_log_says_what_is_left(monkeypatch, capsys):
    monkeypatch.setattr(console, 'LOG_EVERY_S', 0.0)
    with Console().task('Training first') as task:
        task.update(4000, 30000)
        task.update(29990, 30000, figures(ROW))
        task.update(30000, 30000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'Training first ...'
    assert lines[1] == 'Training first 4000/30000'
    assert lines[2].startswith('Training first 29990/30000, 0:00:00 left  loss 1.84')
    assert 'gap 0.41' in lines[2]
    assert re.match(r'Training first 30000/30000 in \d', lines[-1])


def test_nobody_is_shown_nothing(capsys):
    with nobody('Training', None) as task:
        task.update(1, 2, 'note')
    assert capsys.readouterr().err == ''


def test_help_lists_the_presets_that_come_along(qt_ros):
    said = qt_ros('train', '--help').out
    for name, purpose in presets().items():
        assert preset_path(name).is_file()
        assert f'  {name} ' in said
        assert purpose.split()[0] in said
    assert list(presets())[:2] == ['tiny', 'small']


@pytest.mark.parametrize(('name', 'words'), [('smal', "'small'"), ('huge', 'There are: tiny')])
def test_a_preset_that_does_not_exist_is_told_the_nearest(name, words):
    from qt_ros.errors import QtRosError

    with pytest.raises(QtRosError, match=words):
        preset_path(name)
