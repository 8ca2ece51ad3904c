"""Labels from a CSV file: outcomes, instructions and bounds of episodes, given after the fact.

    bag,episode_id,start_s,stop_s,instruction,outcome,source
    attempt_7,,,,push the red block,success,
    day_2,ep-004,,,,failure,
    long_run,,12.5,31.0,stack the blocks,timeout,teleop

A row names its episode (`bag`, `episode_id`, or `episode_index` of a dataset) and says something
about it (`outcome`, `instruction` or `source`); the rest may be empty, and columns that nobody
needs left out. `bag` is the name of the recording's folder or file, or any end of its path. With
`start_s` and `stop_s` [s from the first message of the bag], or `start_stamp_ns` and
`stop_stamp_ns` [ns, on the contract's clock], a row defines an episode by itself. Of two rows
about the same episode the later one counts.

Files as spreadsheets write them are fine: comma, semicolon or tab, with a byte order mark, CRLF,
decimal commas, quoted line breaks, upper case in the header and in outcomes.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

from qt_ros.episode import OUTCOMES, SOURCES
from qt_ros.errors import BagError
from qt_ros.small_files import read_small

COLUMNS = (
    *('bag', 'episode_id', 'episode_index', 'start_s', 'stop_s', 'start_stamp_ns'),
    *('stop_stamp_ns', 'instruction', 'outcome', 'source'),
)
SAYING = ('outcome', 'instruction', 'source')
SEPARATORS = (',', ';', '\t')
STORAGES = ('.mcap', '.db3', '.bag', '.yaml')  # of files inside a recording's folder
MAX_STAMP_NS = 1 << 62


@dataclass(frozen=True)
class Label:
    """One row of the file; '' and None where the row says nothing."""

    outcome: str = ''
    bag: str = ''
    episode_id: str = ''
    start_s: float | None = None
    stop_s: float | None = None
    instruction: str = ''
    source: str = ''
    start_stamp_ns: int | None = None
    stop_stamp_ns: int | None = None
    episode_index: int | None = None
    line: int = field(default=0, compare=False)  # of the file, from 1 on

    def about(self, bag: Path) -> bool:
        """Return True if the row may speak of this bag (rows without a bag speak of all)."""
        return not self.bag or _parts(self.bag) in _tails(bag)

    @property
    def bounded(self) -> bool:
        """True if the row gives the bounds of an episode."""
        return self.start_s is not None or self.start_stamp_ns is not None

    def bounds_ns(self, first_ns: int) -> tuple[int, int]:
        """Return start and stop [ns]; `first_ns` is the time that seconds count from."""
        if self.start_stamp_ns is not None and self.stop_stamp_ns is not None:
            return self.start_stamp_ns, self.stop_stamp_ns
        start_s, stop_s = self.start_s or 0.0, self.stop_s or 0.0
        return first_ns + round(start_s * 1e9), first_ns + round(stop_s * 1e9)

    def __str__(self) -> str:
        named = {
            'bag': self.bag,
            'episode_id': self.episode_id,
            'episode_index': self.episode_index,
        }
        text = ', '.join(f'{k} {v!r}' for k, v in named.items() if v not in ('', None))
        return f'line {self.line} ({text})' if self.line else f'the row of {text}'


def read_labels(path: Path | str) -> tuple[Label, ...]:
    """Read a label file; raise `BagError` with every problem and its line."""
    path = Path(path)
    text = _text(path)
    separator = _separator(text)
    try:
        rows = list(_rows(text, separator))
    except csv.Error as exc:
        raise BagError(f'{path}: not a CSV file: {exc}') from exc
    line, names = rows[0] if rows else (1, [])
    header = [name.strip().lower() for name in names]
    while header and not header[-1]:  # spreadsheets leave empty columns at the right
        header.pop()
    unknown = [name for name in header if name not in COLUMNS]
    twice = sorted({name for name in header if header.count(name) > 1})
    if unknown or twice or not set(header) & set(SAYING):
        raise BagError(
            f'{path}:{line}: the first line must name the columns, each once, among them outcome'
            f' or instruction; allowed: {", ".join(COLUMNS)}; found: {", ".join(header)[:200]}'
        )
    labels, problems = [], []
    for line, row in rows[1:]:
        if any(cell.strip() for cell in row[len(header) :]):
            problems.append(f'{path}:{line}: {len(row)} cells for {len(header)} columns')
            continue
        # A short row leaves its last columns empty, as spreadsheets do.
        cells = dict(zip(header, (' '.join(cell.split()) for cell in row), strict=False))
        label, wrong = _label(cells, line, separator)
        problems += [f'{path}:{line}: {text}' for text in wrong]
        if label is not None:
            labels.append(label)
    if problems:
        raise BagError(problems)
    return tuple(labels)


def _text(path: Path) -> str:
    try:
        data = read_small(path)
    except OSError as exc:
        raise BagError(f'{path}: cannot read the labels: {exc.strerror or exc}') from exc
    # "Unicode text" of a spreadsheet is UTF-16, and says so in its first two bytes.
    encoding = 'utf-16' if data[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        raise BagError(
            f'{path}: cannot read the labels: not {encoding.upper()} text ({exc.reason} at byte'
            f' {exc.start}); save the table as CSV in UTF-8'
        ) from exc


def _separator(text: str) -> str:
    """Return the separator that makes most columns of the first line known ones."""
    first = next((line for line in text.splitlines() if line.strip()), '')

    def known(separator: str) -> int:
        cells = (cell.strip(' "\t').lower() for cell in first.split(separator))
        return sum(cell in COLUMNS for cell in cells)

    return max(SEPARATORS, key=known)


def _rows(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, cells) of the rows that are not empty."""
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=separator, strict=True)
    line = 1
    for row in reader:
        if any(cell.strip() for cell in row):
            yield line, row
        line = reader.line_num + 1


def _label(cells: dict[str, str], line: int, separator: str) -> tuple[Label | None, list[str]]:
    outcome, source = cells.get('outcome', '').lower(), cells.get('source', '').lower()
    instruction = cells.get('instruction', '')
    wrong = []
    if outcome and outcome not in OUTCOMES:
        wrong.append(f'outcome {outcome!r}; allowed: {", ".join(OUTCOMES)}')
    if source and source not in SOURCES:
        wrong.append(f'source {source!r}; allowed: {", ".join(SOURCES)} or empty')
    if not instruction.isprintable():
        wrong.append(f'instruction {instruction!r} has characters that cannot be printed')
    if not outcome and not instruction and not source:
        wrong.append(f'says nothing; give one of {", ".join(SAYING)}')
    if not any(cells.get(name) for name in ('bag', 'episode_id', 'episode_index')):
        wrong.append('no bag, episode_id or episode_index; give at least one of them')
    index = _whole(cells, 'episode_index', wrong)
    times = {name: _seconds(cells, name, separator, wrong) for name in ('start_s', 'stop_s')}
    stamps = {name: _whole(cells, name, wrong) for name in ('start_stamp_ns', 'stop_stamp_ns')}
    _check_bounds(times, wrong)
    _check_bounds(stamps, wrong)
    if any(v is not None for v in times.values()) and any(v is not None for v in stamps.values()):
        wrong.append('bounds in seconds and as stamps; give only one of them')
    if wrong:
        return None, wrong
    return Label(
        outcome=outcome,
        bag=cells.get('bag', ''),
        episode_id=cells.get('episode_id', ''),
        instruction=instruction,
        source=source,
        start_s=times['start_s'],
        stop_s=times['stop_s'],
        start_stamp_ns=stamps['start_stamp_ns'],
        stop_stamp_ns=stamps['stop_stamp_ns'],
        episode_index=index,
        line=line,
    ), []


def _check_bounds(
    bounds: dict[str, float | None] | dict[str, int | None], wrong: list[str]
) -> None:
    (low, start), (high, stop) = bounds.items()
    if (start is None) != (stop is None):
        wrong.append(f'{low} and {high} go together; give both or none')
    elif start is not None and stop is not None and not start < stop:
        wrong.append(f'{low} {start} must be less than {high} {stop}')


def _seconds(cells: dict[str, str], name: str, separator: str, wrong: list[str]) -> float | None:
    text = cells.get(name, '')
    if not text:
        return None
    try:
        value = float(text if separator == ',' else text.replace(',', '.'))
    except ValueError:
        wrong.append(f'{name} {text!r} is not a number of seconds')
        return None
    if not math.isfinite(value) or abs(value) * 1e9 >= MAX_STAMP_NS:
        wrong.append(f'{name} {text} is no time of a recording; seconds from its start are meant')
        return None
    return value


def _whole(cells: dict[str, str], name: str, wrong: list[str]) -> int | None:
    text = cells.get(name, '')
    if not text:
        return None
    # Not int(): that takes '1_000'. Not 1.7e18 either: a spreadsheet has rounded it.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < MAX_STAMP_NS):
        wrong.append(
            f'{name} {text!r} is not a whole number; digits alone are allowed (format the column'
            ' as text where a spreadsheet writes 1.7E+18)'
        )
        return None
    return int(text)


@lru_cache(maxsize=4096)
def _parts(name: str) -> tuple[str, ...]:
    """Return the parts of a path as somebody wrote it, on whatever system."""
    parts = PurePosixPath(name.replace('\\', '/')).parts
    return tuple(part for part in parts if part not in ('.', '..'))


@lru_cache(maxsize=64)
def _tails(bag: Path) -> frozenset[tuple[str, ...]]:
    """Return every name of a recording: all ends of its path, spelled in the usual ways.

    The suffix of a file may be left out. A folder may be named by a file in it, as in
    'run/run_0.mcap' or 'run/metadata.yaml', and such a file by its folder.
    """
    parts = bag.parts
    whole = [parts, (*parts[:-1], bag.stem)]
    plain = bag.name.removesuffix('.zstd')
    if Path(plain).suffix in STORAGES:
        stem = Path(plain).stem
        whole += [(*parts[:-1], plain), (*parts[:-1], stem)]
        if bag.parent.name and stem.startswith(bag.parent.name):
            whole.append(parts[:-1])
    else:
        inside = (f'{bag.name}_{n}{suffix}' for n in range(2) for suffix in STORAGES[:3])
        whole += [(*parts, name) for name in ('metadata.yaml', *inside)]
    return frozenset(each[start:] for each in whole for start in range(len(each)))
