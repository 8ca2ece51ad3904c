"""SIGKILL at any moment of a conversion, a replacement or a relabel costs nothing committed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from killing import Killer

KILLS = int(os.environ.get('QT_KILLS', '50'))


@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='reads the processes from /proc')
@pytest.mark.timeout(180 + 6 * KILLS)
def test_sigkill_at_any_moment_of_a_conversion(tmp_path: Path) -> None:
    killer = Killer(tmp_path, seed=int(os.environ.get('QT_SEED', '0')))
    killer.campaign(KILLS)
    print(dict(killer.seen))
    assert killer.seen['killed'] >= KILLS
