"""Labels from a CSV file: outcomes, instructions and bounds of episodes, given after the fact.

    bag,episode_id,start_s,stop_s,instruction,outcome,source
    attempt_7,,,,push the red block,success,
    day_2,ep-004,,,,failure,
    long_run,,12.5,31.0,stack the blocks,timeout,teleop

`outcome` is needed, and `bag` or `episode_id`; the rest may be empty. `bag` is the name of the
recording's folder or file, or any end of its path. With `start_s` and `stop_s` [s from the first
message of the bag] a row defines an episode by itself. Of two rows about the same episode the
later one counts.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path, PurePath

from qt_ros.episode import OUTCOMES, SOURCES
from qt_ros.errors import BagError

COLUMNS = ('bag', 'episode_id', 'start_s', 'stop_s', 'instruction', 'outcome', 'source')


@dataclass(frozen=True)
class Label:
    """One row of the file; '' and None where the row says nothing."""

    outcome: str
    bag: str = ''
    episode_id: str = ''
    start_s: float | None = None
    stop_s: float | None = None
    instruction: str = ''
    source: str = ''

    def about(self, bag: Path) -> bool:
        """Return True if the row may speak of this bag (rows without a bag speak of all)."""
        return not self.bag or _ends_with(bag, self.bag)

    @property
    def bounds_s(self) -> tuple[float, float] | None:
        """Start and stop [s] if the row gives both."""
        if self.start_s is None or self.stop_s is None:
            return None
        return self.start_s, self.stop_s


def read_labels(path: Path | str) -> tuple[Label, ...]:
    """Read a label file; raise `BagError` with every problem and its line."""
    path = Path(path)
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as exc:
        raise BagError(f'{path}: cannot read the labels: {exc}') from exc
    try:
        rows = list(csv.reader(text.splitlines()))
    except csv.Error as exc:
        raise BagError(f'{path}: not a CSV file: {exc}') from exc
    header = [name.strip() for name in rows[0]] if rows else []
    unknown = [name for name in header if name not in COLUMNS]
    if unknown or 'outcome' not in header:
        raise BagError(
            f'{path}:1: the first line must name the columns, among them outcome; allowed:'
            f' {", ".join(COLUMNS)}; found: {", ".join(header) or "nothing"}'
        )
    labels, problems = [], []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) > len(header):
            problems.append(f'{path}:{number}: {len(row)} cells for {len(header)} columns')
            continue
        # A short row leaves its last columns empty, as spreadsheets do.
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        label, wrong = _label(cells)
        problems += [f'{path}:{number}: {text}' for text in wrong]
        if label is not None:
            labels.append(label)
    if problems:
        raise BagError(problems)
    return tuple(labels)


def _label(cells: dict[str, str]) -> tuple[Label | None, list[str]]:
    wrong = []
    if cells.get('outcome') not in OUTCOMES:
        wrong.append(f'outcome {cells.get("outcome", "")!r}; allowed: {", ".join(OUTCOMES)}')
    if cells.get('source') and cells['source'] not in SOURCES:
        wrong.append(f'source {cells["source"]!r}; allowed: {", ".join(SOURCES)} or empty')
    if not cells.get('bag') and not cells.get('episode_id'):
        wrong.append('neither bag nor episode_id; give at least one of them')
    times: list[float | None] = []
    for name in ('start_s', 'stop_s'):
        try:
            times.append(float(cells[name]) if cells.get(name) else None)
        except ValueError:
            wrong.append(f'{name} {cells[name]!r} is not a number of seconds')
            times.append(None)
    start, stop = times
    if any(value is not None and not math.isfinite(value) for value in times):
        wrong.append('start_s and stop_s must be finite')
    elif (start is None) != (stop is None):
        wrong.append('start_s and stop_s go together; give both or none')
    elif start is not None and stop is not None and not start < stop:
        wrong.append(f'start_s {start} must be less than stop_s {stop}')
    if wrong:
        return None, wrong
    return Label(
        outcome=cells['outcome'],
        bag=cells.get('bag', ''),
        episode_id=cells.get('episode_id', ''),
        start_s=start,
        stop_s=stop,
        instruction=cells.get('instruction', ''),
        source=cells.get('source', ''),
    ), []


def _ends_with(bag: Path, text: str) -> bool:
    """Compare whole parts of the path; the suffix of a file may be left out."""
    wanted = PurePath(text).parts
    for parts in (bag.parts, (*bag.parts[:-1], bag.stem)):
        if parts[-len(wanted) :] == wanted:
            return True
    return False
