"""`qt-ros label`: give episodes of a dataset another outcome, from a CSV file."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path

from qt_ros.cli.console import DONE, PARTLY, Console
from qt_ros.errors import DatasetError

HELP = 'give episodes of a dataset another outcome'
DESCRIPTION = (
    'Give episodes another outcome. Columns of the CSV file: outcome (success, failure, timeout, '
    'aborted or unknown), and bag, episode_id or both. The newest label of an episode wins; the '
    'old ones stay on record.'
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('dataset', type=Path, metavar='DATASET')
    parser.add_argument('--csv', type=Path, required=True, metavar='FILE', help='the labels')
    parser.add_argument('--by', default=None, metavar='NAME', help='who says so (your user name)')


def run(args: argparse.Namespace, console: Console) -> int:
    """Relabel; status 3 if a row of the file fits no episode."""
    from qt_ros.bags.labels import read_labels
    from qt_ros.dataset import Dataset, relabel

    episodes = Dataset(args.dataset).episodes
    labels = read_labels(args.csv)
    outcomes: dict[int, str] = {}
    unused = []
    for label in labels:
        fitting = [
            episode.index
            for episode in episodes
            if label.about(Path(episode.bag_uri)) and label.episode_id in ('', episode.episode_id)
        ]
        outcomes.update(dict.fromkeys(fitting, label.outcome))
        if not fitting:
            unused.append(label)
    for label in unused:
        console.say(f'! no episode fits bag {label.bag!r}, episode_id {label.episode_id!r}')
    if labels and len(unused) == len(labels):
        raise DatasetError(
            f'no row of {args.csv} fits an episode of {args.dataset}; nothing was changed. '
            'Write bag (any end of its path) or episode_id as the dataset has them'
        )
    changed = relabel(args.dataset, outcomes, args.by or getpass.getuser())
    console.result({'changed': changed, 'fitting': len(outcomes), 'unused': len(unused)})
    console.print(f'{changed} outcomes changed; {len(outcomes) - changed} were so already')
    return PARTLY if unused else DONE
