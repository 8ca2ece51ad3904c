"""`qt-ros info`: what a dataset holds."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from qt_ros.cli.console import DONE, Console

HELP = 'what a dataset holds: episodes by instruction, source and outcome'
DESCRIPTION = 'Say what a dataset holds.'


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('dataset', type=Path, metavar='DATASET')


def run(args: argparse.Namespace, console: Console) -> int:
    """Print what the dataset holds."""
    found = describe(args.dataset)
    console.result(found)
    console.print(
        f'{args.dataset}: {found["episodes"]} episodes, {found["rows"]} rows at '
        f'{found["rate_hz"]:g} Hz ({found["seconds"]:.0f} s), contract {found["contract"]} '
        f'({found["contract_hash"][:12]})'
    )
    console.print(f'cameras: {_pairs(found["cameras"])}')
    console.print(f'state ({len(found["state"])}): {", ".join(found["state"])}')
    console.print(f'action ({len(found["action"])}): {", ".join(found["action"])}')
    console.table(
        ('instruction', 'source', 'outcome', 'episodes', 'rows'),
        [tuple(group.values()) for group in found['groups']],
    )
    return DONE


def describe(path: Path) -> dict[str, Any]:
    """Return counts, dimensions and groups of episodes of a dataset."""
    from qt_ros.dataset import Dataset

    dataset = Dataset(path)
    contract = dataset.contract
    episodes, rows = Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]]()
    for episode in dataset.episodes:
        key = (episode.instruction, episode.source, episode.outcome)
        episodes[key] += 1
        rows[key] += episode.length
    total = sum(rows.values())
    return {
        'episodes': len(dataset.episodes),
        'rows': total,
        'rate_hz': contract.rate_hz,
        'seconds': round(total / contract.rate_hz, 3),
        'contract': contract.name,
        'contract_hash': contract.hash,
        'cameras': {camera.name: list(camera.size) for camera in contract.cameras},
        'state': list(contract.state_names),
        'action': [dim.name for dim in contract.dims],
        'policies': sorted({e.policy_id for e in dataset.episodes if e.policy_id}),
        'groups': [
            dict(zip(('instruction', 'source', 'outcome'), key, strict=True))
            | {'episodes': episodes[key], 'rows': rows[key]}
            for key in sorted(episodes)
        ],
    }


def _pairs(cameras: dict[str, list[int]]) -> str:
    sizes = (f'{name} {width}x{height}' for name, (height, width) in cameras.items())
    return ', '.join(sizes) or 'none'
