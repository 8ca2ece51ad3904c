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
    labels = found['labels']
    if labels['given']:
        by = ', '.join(f'by {name} {count}' for name, count in labels['by'].items())
        console.print(f'labels: {labels["given"]} given to {labels["episodes"]} episodes ({by})')
    console.table(
        ('instruction', 'source', 'outcome', 'episodes', 'rows'),
        [tuple(group.values()) for group in found['groups']],
    )
    return DONE


def describe(path: Path) -> dict[str, Any]:
    """Return counts, dimensions, groups of episodes and later labels of a dataset."""
    from qt_ros.dataset import Dataset, read_labels

    dataset = Dataset(path)
    labels = read_labels(path)
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
        'labels': {
            'given': len(labels),
            'episodes': len({label.episode_index for label in labels}),
            'by': dict(Counter(label.by for label in labels)),
        },
        'groups': [
            dict(zip(('instruction', 'source', 'outcome'), key, strict=True))
            | {'episodes': episodes[key], 'rows': rows[key]}
            for key in sorted(episodes)
        ],
    }


def _pairs(cameras: dict[str, list[int]]) -> str:
    sizes = (f'{name} {width}x{height}' for name, (height, width) in cameras.items())
    return ', '.join(sizes) or 'none'
