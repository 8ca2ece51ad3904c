"""`qt-ros label`: give episodes of a dataset another outcome or instruction, from a CSV file."""

from __future__ import annotations

import argparse
import getpass
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qt_ros.cli.console import DONE, PARTLY, Console
from qt_ros.errors import DatasetError

if TYPE_CHECKING:
    from qt_ros.bags.relabelling import Change

HELP = 'give episodes of a dataset another outcome or instruction'
DESCRIPTION = (
    'Correct episodes after the fact. Columns of the CSV file: which episode (episode_index; or '
    'episode_id, with bag where several recordings have that id; or bag alone where it has one '
    'episode) and what is said (outcome: success, failure, timeout, aborted or unknown; '
    'instruction: in words). The file that convert was given can be corrected and used again. The '
    'newest label wins; the old ones stay on record in meta/labels.jsonl. If any row is wrong '
    'nothing is changed. Videos and actions are never touched.'
)
SHOWN = 20  # changes listed


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('dataset', type=Path, metavar='DATASET')
    parser.add_argument('--csv', type=Path, required=True, metavar='FILE', help='the labels')
    parser.add_argument('--by', default=None, metavar='NAME', help='who says so (your user name)')
    parser.add_argument(
        '--dry-run', action='store_true', help='show what would change, and change nothing'
    )
    parser.add_argument(
        '--skip-missing',
        action='store_true',
        help='pass over rows of episodes that the dataset does not hold (status 3 if there are)',
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """Relabel; status 3 if rows were passed over."""
    from qt_ros.bags.labels import read_labels
    from qt_ros.bags.relabelling import match
    from qt_ros.dataset import Dataset, relabel

    episodes = Dataset(args.dataset).episodes
    found = match(read_labels(args.csv), episodes)
    problems = found.problems if args.skip_missing else [*found.missing, *found.problems]
    if problems or (found.missing and not found.rows):
        raise DatasetError(
            [
                f'{args.csv} does not fit {args.dataset}; nothing was changed. Write bag (any end'
                ' of its path), episode_id or episode_index as the dataset has them'
                f'{"" if args.skip_missing else ", or pass over missing ones (--skip-missing)"}',
                *(problems or found.missing),
            ]
        )
    changes = found.changes(episodes)
    if changes and not args.dry_run:
        relabel(
            args.dataset,
            {each.episode.index: each.outcome for each in changes},
            args.by or _user(),
            {each.episode.index: each.instruction for each in changes},
        )
    after = Counter(episode.outcome for episode in episodes)
    for each in changes:
        after[each.episode.outcome] -= 1
        after[each.outcome] += 1
    console.result(
        {
            'changed': 0 if args.dry_run else len(changes),
            'fitting': len(found.rows),
            'unused': len(found.missing),
            'repeated': found.repeated,
            'dry_run': args.dry_run,
            'changes': [_described(each) for each in changes],
            'outcomes': {name: count for name, count in after.items() if count},
        }
    )
    for text in found.missing:
        console.say(f'! {text}: passed over')
    _show(console, changes, len(found.rows), found.repeated, after, args.dry_run)
    return PARTLY if found.missing else DONE


def _show(
    console: Console,
    changes: list[Change],
    fitting: int,
    repeated: int,
    after: Counter[str],
    dry_run: bool,
) -> None:
    rows = [
        (
            each.episode.index,
            each.episode.episode_id,
            Path(each.episode.bag_uri).name,
            _arrow(each.episode.outcome, each.outcome),
            _arrow(each.episode.instruction, each.instruction),
        )
        for each in changes
    ]
    console.table(('episode', 'id', 'recording', 'outcome', 'instruction'), rows[:SHOWN])
    if len(rows) > SHOWN:
        console.print(f'... and {len(rows) - SHOWN} more')
    kinds = Counter((each.episode.outcome, each.outcome) for each in changes)
    for (old, new), count in sorted(kinds.items()):
        if old != new:
            console.print(f'{old} -> {new}: {count}')
    verb = 'would change' if dry_run else 'changed'
    said = f'; {repeated} rows were replaced by later ones' if repeated else ''
    console.print(
        f'{len(changes)} episodes {verb}; {fitting - len(changes)} were so already{said}'
    )
    totals = ', '.join(f'{count} {name}' for name, count in sorted(after.items()) if count)
    console.print(f'the dataset {"would have" if dry_run else "has"}: {totals or "no episodes"}')


def _described(change: Change) -> dict[str, Any]:
    episode = change.episode
    return {
        'episode_index': episode.index,
        'episode_id': episode.episode_id,
        'bag': episode.bag_uri,
        'outcome': [episode.outcome, change.outcome],
        'instruction': [episode.instruction, change.instruction],
    }


def _arrow(old: str, new: str) -> str:
    return old if old == new else f'{old} -> {new}'


def _user() -> str:
    """Return the login name; containers may have none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return 'unknown'
