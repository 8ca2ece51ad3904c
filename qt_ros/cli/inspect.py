"""`qt-ros inspect`: what a recording holds, what looks wrong in it, and a first contract."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from pathlib import Path
from typing import Any

from qt_ros.cli.console import DONE, FAILED, PARTLY, Console
from qt_ros.errors import BagError

_OTHERS = 50  # columns that everything but topics, types and what they hold takes

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
    from qt_ros.bags.inspect import inspect_bag

    if args.suggest is not None and args.suggest.exists():
        raise BagError(f'{args.suggest} exists; name a new file for the contract')
    found = inspect_bag(args.bag)
    show(found, console)
    console.result(found)
    if not any(topic['decodes'] for topic in found['topics'].values()):
        console.error(f'{args.bag}: {found["problems"][-1]}')
        return FAILED
    if args.suggest is not None:
        from qt_ros.bags.suggest import suggest_contract

        text = suggest_contract(args.bag, found)
        args.suggest.parent.mkdir(parents=True, exist_ok=True)
        args.suggest.write_text(text, encoding='utf-8')
        console.say(f'wrote {args.suggest}: read what it guesses before you use it')
    return PARTLY if found['partial'] else DONE


def show(found: dict[str, Any], console: Console) -> None:
    """Print the inspection for people: a table of topics, the joints, and what looks wrong."""
    console.print(
        f'{found["path"]}: {found["messages"]} messages in {found["duration_s"]:.2f} s,'
        f' {found["storage"]}{", parts are missing" if found["partial"] else ""}'
    )
    console.table(*_table(found, _columns()))
    for name, joints in sorted(found['joints'].items()):
        for line in _wrapped(f'joints of {name}: {", ".join(joints)}', '  '):
            console.print(line)
    console.print()
    for problem in found['problems'] or ['nothing looks wrong']:
        for line in _wrapped(problem, '  ', '! ' if found['problems'] else ''):
            console.print(line)


def _table(found: dict[str, Any], columns: int) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return heads and rows; types stand below the topics where there is no room beside them."""
    rows = [
        (
            _printable(name),
            _printable(entry['type'].replace('/msg/', '/')) or '(no type)',
            entry['count'],
            entry['rate_hz'],
            _offset(entry['header_minus_log_ms']),
            entry['gaps'] or None,
            _holds(name, entry, found),
        )
        for name, entry in found['topics'].items()
    ]
    heads = ('topic', 'type', 'count', 'Hz', 'header-log', 'gaps', 'holds')
    widest = [max(len(str(row[at])) for row in rows) if rows else 0 for at in (0, 1, -1)]
    if sum(widest) + _OTHERS <= columns:
        return heads, rows
    joined = [(f'{row[0]}\n  {row[1]}', *row[2:]) for row in rows]
    return (f'{heads[0]}, {heads[1]}', *heads[2:]), joined


def _columns() -> int:
    return max(shutil.get_terminal_size((80, 24)).columns, 40)


def _offset(offset: dict[str, float] | None) -> str | None:
    """Say how far header stamps are from log time, the middle of them."""
    from qt_ros.bags.clocks import span

    if offset is None:
        return None
    ms = offset['median']
    return '0' if abs(ms) < 0.0005 else f'{"+" if ms > 0 else "-"}{span(abs(ms))}'


def _holds(name: str, entry: dict[str, Any], found: dict[str, Any]) -> str:
    """Say in a word what a topic is good for."""
    if not entry['decodes']:
        if '/srv/' in entry['type'] or '/action/' in entry['type']:
            return 'not used'
        return 'not decoded' if entry['count'] else ''
    if name in found['cameras']:
        height, width = found['cameras'][name]
        return f'{width}x{height}{" depth" if name in found["depth_cameras"] else ""}'
    joints = found['joints'].get(name)
    return '' if joints is None else f'{len(joints)} joint{"s" if len(joints) != 1 else ""}'


def _wrapped(text: str, indent: str, first: str = '') -> list[str]:
    """Break a sentence at the width of the terminal."""
    return textwrap.wrap(
        _printable(text),
        _columns(),
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _printable(text: str) -> str:
    """Escape what would move the cursor or change the colours of a terminal."""
    return ''.join(c if c.isprintable() else repr(c)[1:-1] for c in text)
