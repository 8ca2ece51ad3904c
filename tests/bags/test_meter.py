"""A long recording says how far its conversion is, from this process and from workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_bags import contract, steady

from qt_ros.bags import meter
from qt_ros.bags.converter import convert


def test_shares_rise_to_one_within_a_bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, 'PERIOD_S', 0.0)
    seen: list[dict[str, Any]] = []
    bag = steady(3.0).write(tmp_path / 'run')
    convert([bag], contract(), tmp_path / 'out', progress=seen.append)
    shares = [each['under_way'] for each in seen if not each['done']]
    assert shares == sorted(shares)
    assert len(shares) >= 30  # one a frame
    assert shares[0] == pytest.approx(1 / 30, abs=0.01)
    assert shares[-1] == 1
    assert (seen[-1]['done'], seen[-1]['under_way']) == (1, 0)


def test_shares_never_fall_also_where_all_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, 'PERIOD_S', 0.0)
    seen: list[float] = []
    empty, full = steady(1.0), steady(1.0)
    paths = [empty.write(tmp_path / 'a'), full.write(tmp_path / 'b')]
    for run in range(2):  # the second time every episode is there already
        convert(
            paths,
            contract(),
            tmp_path / 'out',
            progress=lambda at: seen.append(at['done'] + at['under_way']),
        )
        assert seen == sorted(seen), run
        assert seen[-1] == 2
        seen.clear()


def test_workers_tell_too(tmp_path: Path) -> None:
    paths = [steady(500.0).write(tmp_path / name) for name in ('a', 'b')]
    seen: list[dict[str, Any]] = []
    convert(paths, contract(), tmp_path / 'out', workers=2, progress=seen.append)
    assert any(0 < each['under_way'] <= 2 and each['done'] == 0 for each in seen)
    assert (seen[-1]['done'], seen[-1]['under_way']) == (2, 0)
