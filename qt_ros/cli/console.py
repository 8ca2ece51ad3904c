"""Where a command's words go: results to stdout, progress and remarks to stderr.

With `--json` stdout carries one JSON document and nothing else. On a terminal long work shows a
bar; elsewhere (a log, CI) it leaves a line now and then, so that the log stays readable.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from qt_ros.progress import Task
from qt_ros.spelling import printable

DONE, FAILED, PARTLY = 0, 1, 3  # 2 is argparse's: wrong usage
STOPPED = 130
LOG_EVERY_S = 15.0
SPEED_OVER_S = 300.0  # a training step of a large network takes seconds


class Console:
    """Talk to a person on a terminal, or to a script that asked for JSON."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    def say(self, text: str) -> None:
        """Print a remark to stderr."""
        print(printable(text), file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        """Print what went wrong to stderr."""
        self.say(f'qt-ros: {text}')

    def print(self, text: str = '') -> None:
        """Print a line of the result for people; silent with --json."""
        if not self.as_json:
            print(printable(text), flush=True)

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = ''
    ) -> None:
        """Print a table of the result for people; silent with --json."""
        if self.as_json or not rows:
            return
        from rich.console import Console as Rich
        from rich.table import Table

        table = Table(title=title or None, title_justify='left', header_style='bold')
        for index, column in enumerate(columns):
            numeric = all(_is_number(row[index]) for row in rows)
            table.add_column(column, justify='right' if numeric else 'left', overflow='fold')
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        Rich(file=sys.stdout, highlight=False, markup=False).print(table)

    def result(self, data: Any) -> None:
        """Print the result as JSON when that was asked for."""
        if self.as_json:
            print(json.dumps(plain(data), indent=2, allow_nan=False), flush=True)

    @contextmanager
    def task(self, title: str, total: float | None = None) -> Iterator[Task]:
        """Show the progress of one piece of work on stderr while the block runs."""
        if sys.stderr.isatty():
            with _Bar(title, total) as bar:
                yield bar
        else:
            log = _Log(title, total, self)
            yield log
            log.finish()


class _Bar:
    """A bar on the terminal with elapsed and remaining time, and remarks on the lines below it."""

    def __init__(self, title: str, total: float | None) -> None:
        from rich.console import Console as Rich
        from rich.console import Group
        from rich.live import Live
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        self._progress = Progress(
            TextColumn('{task.description:<33}'),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            speed_estimate_period=SPEED_OVER_S,
        )
        self._id = self._progress.add_task(title, total=total)
        self._fresh = True
        self._note = Text(style='dim', no_wrap=True, overflow='ellipsis')
        self._live = Live(
            Group(self._progress, self._note),
            console=Rich(file=sys.stderr),
            refresh_per_second=5,
            redirect_stdout=False,
        )

    def __enter__(self) -> _Bar:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, done: float, total: float | None = None, note: str | None = None) -> None:
        if self._fresh:  # what was done before, such as the steps of a resumed run, tells no speed
            task = self._progress.tasks[0]
            began = task.start_time
            self._progress.reset(self._id, completed=int(done), total=total)
            task.start_time = began
            self._fresh = False
        self._progress.update(self._id, completed=done, total=total)
        if note is not None:
            self._note.plain = '\n'.join(f'  {line}' for line in note.splitlines())


class _Log:
    """A line at the start, one every few seconds that says what is left, and one at the end."""

    def __init__(self, title: str, total: float | None, console: Console) -> None:
        self._title, self._total, self._console = title, total, console
        self._start_s = self._last_s = time.monotonic()
        self._done, self._note = 0.0, ''
        self._first: tuple[float, float] | None = None  # (time [s], done) of the first update
        console.say(f'{title} ...')

    def update(self, done: float, total: float | None = None, note: str | None = None) -> None:
        self._done = done
        self._total = self._total if total is None else total
        self._note = self._note if note is None else ', '.join(note.splitlines())
        now_s = time.monotonic()
        self._first = self._first or (now_s, done)
        if now_s - self._last_s >= LOG_EVERY_S:
            self._last_s = now_s
            self._say(self._left(now_s))

    def _left(self, now_s: float) -> str:
        """Say how long it will take at the speed so far, nothing if that is not known yet."""
        if not self._total or self._first is None or self._done <= self._first[1]:
            return ''
        speed = (self._done - self._first[1]) / (now_s - self._first[0])
        seconds = round(max(0.0, self._total - self._done) / speed)
        return f', {timedelta(seconds=seconds)} left'

    def finish(self) -> None:
        self._say(f' in {time.monotonic() - self._start_s:.1f} s')

    def _say(self, end: str) -> None:
        of = f'/{self._total:g}' if self._total else ''
        count = f' {round(self._done, 2):g}{of}' if self._done or of else ''
        note = f'  {self._note}' if self._note else ''
        self._console.say(f'{self._title}{count}{end}{note}')


def plain(value: Any) -> Any:
    """Turn dataclasses, paths and NumPy numbers into what JSON can say; NaN becomes null."""
    if hasattr(value, '__dataclass_fields__'):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, 'tolist'):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def _cell(value: object) -> str:
    if value is None:
        return '-'
    return f'{value:.3g}' if isinstance(value, float) else printable(str(value))


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
