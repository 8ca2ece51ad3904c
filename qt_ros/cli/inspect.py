"""`qt-ros inspect`: what a recording holds, what looks wrong in it, and a first contract."""

from __future__ import annotations

import argparse
from pathlib import Path

from qt_ros.cli.console import DONE, FAILED, PARTLY, Console
from qt_ros.errors import BagError

HELP = 'topics, counts, rates and stamp health of a recording; a first contract'
DESCRIPTION = (
    'Say what a recording holds: topics, types, counts, rates, cameras, joints, and what looks '
    'wrong with its stamps. ROS is not needed.'
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('bag', type=Path, metavar='BAG', help='folder or file of a recording')
    parser.add_argument(
        '--suggest', type=Path, metavar='FILE', help='write a first contract to this new file'
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """Inspect the recording; status 1 if nothing in it can be read, 3 if parts are missing."""
    from qt_ros.bags.inspect import format_inspection, inspect_bag

    if args.suggest is not None and args.suggest.exists():
        raise BagError(f'{args.suggest} exists; name a new file for the contract')
    found = inspect_bag(args.bag)
    console.print(format_inspection(found))
    console.result(found)
    if not any(topic['decodes'] for topic in found['topics'].values()):
        console.error(f'{args.bag}: {found["problems"][-1]}')
        return FAILED
    if args.suggest is not None:
        from qt_ros.bags.suggest import suggest_contract

        text = suggest_contract(args.bag)
        args.suggest.parent.mkdir(parents=True, exist_ok=True)
        args.suggest.write_text(text, encoding='utf-8')
        console.say(f'wrote {args.suggest}: read what it guesses before you use it')
    return PARTLY if found['partial'] else DONE
