"""Bags to convert again and again, and a thorough look at what became of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from made_bags import contract, steady

from qt_ros.bags.converter import ConversionResult
from qt_ros.dataset import Dataset
from qt_ros.dataset.swap import beside

BY_EVENTS = contract()
WHOLE = contract(**{'episodes: {events: /episode/events}': 'episodes: one_per_bag'})


def bag(folder: Path, name: str, seconds: float = 0.5, start_ms: float = 0.0, **more: Any) -> Path:
    """Write a bag with one episode; its id is the bag's name."""
    made = steady(seconds, events=False, start_ms=start_ms)
    made.event(start_ms, 0, name, instruction='push', source='teleop')
    made.event(start_ms + seconds * 1000, 1, name, outcome=more.get('outcome', 'success'))
    return made.write(folder / name)


def two_in_one(folder: Path, name: str, both: bool = True) -> Path:
    """Write a bag with the episodes first and second, or with the first alone."""
    made = steady(1.2, events=False, start_ms=20_000)
    for number, episode in enumerate(('first', 'second')[: 1 + both]):
        made.event(20_000 + 600 * number, 0, episode, instruction='push')
        made.event(20_500 + 600 * number, 1, episode, outcome='failure')
    return made.write(folder / name)


def facts(path: Path) -> list[tuple[str, str, int]]:
    """Check a dataset thoroughly; return (name of the bag, id, rows) of each episode."""
    dataset = Dataset(path)
    at = 0
    for index, meta in enumerate(dataset.episodes):
        assert dataset.problems(index) == []
        rows = dataset.rows(index)
        assert rows['index'].tolist() == list(range(at, at + meta.length))
        assert meta.from_index == at
        at += meta.length
        for camera in dataset.contract.cameras:
            assert len(dataset.frames(index, camera.name)) == meta.length
    assert dataset.info()['total_frames'] == at
    stats = json.loads((path / 'meta/stats.json').read_text())
    assert stats['index']['count'] == [at]
    assert stats['index']['max'] == [at - 1]
    assert not beside(path).exists()
    assert not (path / '.staging').exists()
    return [(Path(m.bag_uri).name, m.episode_id, m.length) for m in dataset.episodes]


def said(result: ConversionResult) -> str:
    return '\n'.join(text for each in result.report['per_bag'] for text in each['problems'])
