"""Run `qt-ros` in this process and check what no input may break.

A command ends with status 0, 1 or 3 and words; a dataset holds what it held; a bag's folder and
the folder for temporary files look as before.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qt_ros.cli import main
from qt_ros.dataset import Dataset
from qt_ros.errors import QtRosError

ALLOWED = (0, 1, 3)
# What `work.convert_bag` says of an exception that nobody foresaw.
UNFORESEEN = re.compile(r'unexpected [A-Z]\w*: .*')
OBEYED = '\x00\x07\x08\x0b\x0c\r\x1b\x7f\x85\x9b\u202a\u202e\u2066'  # by a terminal
CHANGING = ('.lock', 'conversion_report.json')  # of a dataset: may change without any episode


@dataclass(frozen=True)
class Ended:
    """How a command ended; `failure` is '' if it kept the rules."""

    status: int
    out: str
    err: str
    failure: str = ''

    @property
    def data(self) -> Any:
        """Return what it printed for scripts, None if that is no JSON."""
        try:
            return json.loads(self.out)
        except ValueError:
            return None


def call(*arguments: object) -> Ended:
    """Run one command; what it raised, said or returned against the rules is the failure."""
    words = [str(each) for each in arguments]
    # As strict as a terminal: text that cannot be encoded cannot be printed.
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding='utf-8', newline='') for _ in range(2))
    status, failure = -1, ''
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter('always')
        try:
            status = main(words)
        except SystemExit as stopped:
            failure = f'ended by SystemExit {stopped.code}'
        except BaseException:  # noqa: BLE001 - whatever comes is what is looked for
            failure = traceback.format_exc()
    printed, said = _text(out), _text(err)
    if not failure and status not in ALLOWED:
        failure = f'ended with status {status}'
    unforeseen = UNFORESEEN.search(printed) or UNFORESEEN.search(said)
    if not failure and unforeseen:
        failure = unforeseen.group()
    if not failure and 'Warning: ' in said:
        failure = 'a warning of Python: ' + said[said.index('Warning: ') - 20 :][:300]
    if not failure and status == 1 and 'qt-ros: ' not in said:
        failure = 'failed without a word'
    if not failure and not set(printed + said).isdisjoint(OBEYED):
        failure = f'printed what a terminal obeys: {printed + said!r}'
    return Ended(status, printed, said, failure and f'qt-ros {words[0]}: {failure}')


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode('utf-8')  # type: ignore[attr-defined]


def fingerprint(folder: Path) -> dict[str, str]:
    """Return {file below folder: hash}; a single file stands for its folder."""
    if folder.is_file():
        folder = folder.parent
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def episodes_of(root: Path) -> list[tuple[str, str, str, str]]:
    """Return what must stay of each episode of a dataset."""
    return [(e.episode_id, e.outcome, e.instruction, e.digest) for e in Dataset(root).episodes]


def check_dataset(root: Path) -> list[str]:
    """Return what is wrong with a dataset that a command has just written."""
    try:
        dataset = Dataset(root)
        found = [text for index in range(len(dataset)) for text in dataset.problems(index)]
    except QtRosError as exc:
        found = [str(exc)]
    left = [path.name for path in root.rglob('*') if path.name.endswith('.tmp')]
    left += [path.name for path in root.glob('.staging/*')]
    return [f'the dataset is damaged: {text}' for text in found] + [
        f'{name} was left behind in the dataset' for name in left
    ]


def check_kept(before: Path, now: Path, status: int) -> list[str]:
    """Compare a dataset with what it was before a conversion onto it.

    After a failure no file may differ; after success or a part the old episodes are there, with
    the same digests, and every file of the set is whole.
    """
    old, new = fingerprint(before), fingerprint(now)
    changed = sorted(
        name
        for name in old.keys() | new.keys()
        if old.get(name) != new.get(name) and name not in CHANGING
    )
    if status == 1:
        return [f'a refused conversion changed {name}' for name in changed]
    if not changed:
        return []
    found = check_dataset(now)
    try:
        episodes, kept = episodes_of(before), episodes_of(now)
    except QtRosError as exc:
        return [*found, f'the dataset does not open any more: {exc}']
    if kept[: len(episodes)] != episodes:
        found.append('the episodes that were there are not the same any more')
    return found


def check_report(report: Any) -> list[str]:
    """Check that every message that was read is accounted for."""
    if not isinstance(report, dict):
        return ['the report is no JSON']
    accounts = [report['topics'], *(bag['topics'] for bag in report['per_bag'])]
    return [
        f'{name}: read {entry["read"]}, used {entry["used"]}, skipped {entry["skipped"]}'
        for account in accounts
        for name, entry in account.items()
        if entry['read'] != entry['used'] + sum(entry['skipped'].values())
    ]
