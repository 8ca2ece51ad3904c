"""The journal of labels: meta/labels.jsonl, one line for each label ever given, never rewritten.

The newest label of an episode is its outcome, and the newest one with an instruction its
instruction. The columns of the dataset follow the journal; where a crash kept them from following,
the next writer or the next relabel brings them into line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from qt_ros.dataset.layout import LABELS
from qt_ros.episode import OUTCOMES
from qt_ros.errors import DatasetError


@dataclass(frozen=True)
class Label:
    """One word about one episode; `instruction` '' says nothing about the instruction."""

    episode_index: int
    episode_id: str
    bag_uri: str
    before: str  # outcome that it replaced
    outcome: str
    by: str  # who said so
    stamp_ns: int  # when it was said [ns since 1970]
    instruction_before: str = ''  # instruction that it replaced
    instruction: str = ''


def read_labels(root: Path) -> list[Label]:
    """Return every label ever given, oldest first; a line cut off by a crash does not count."""
    path = root / LABELS
    if not path.exists():
        return []
    labels = []
    whole, _, _ = path.read_bytes().rpartition(b'\n')
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            label = Label(**json.loads(line))
            _check_types(label)
        except (ValueError, TypeError, RecursionError) as error:
            raise DatasetError(f'{path}:{number}: not a label ({error}); remove it') from None
        if label.outcome not in OUTCOMES:
            raise DatasetError(
                f'{path}:{number}: outcome {label.outcome!r} is unknown; allowed:'
                f' {", ".join(OUTCOMES)}'
            )
        labels.append(label)
    return labels


def _check_types(label: Label) -> None:
    for field in fields(Label):
        kind = int if field.name in ('episode_index', 'stamp_ns') else str
        if type(getattr(label, field.name)) is not kind:
            raise TypeError(f'{field.name} is not {"a whole number" if kind is int else "text"}')


def newest_outcomes(root: Path) -> dict[int, str]:
    """Return {episode index: outcome} of all episodes that were ever labelled."""
    return {label.episode_index: label.outcome for label in read_labels(root)}


def newest_instructions(root: Path) -> dict[int, str]:
    """Return {episode index: instruction} of all episodes that were given another one."""
    return {
        label.episode_index: label.instruction for label in read_labels(root) if label.instruction
    }


def add_labels(root: Path, labels: Sequence[Label]) -> None:
    """Append to the journal, durably; raises OSError."""
    lines = ''.join(json.dumps(_said(label), ensure_ascii=False) + '\n' for label in labels)
    with open(root / LABELS, 'a+b', buffering=0) as file:
        file.seek(0)
        # Start on a line of our own: a crash may have cut the last one.
        whole, _, _ = file.readall().rpartition(b'\n')
        length = len(whole) + 1 if whole else 0
        file.truncate(length)
        try:
            rest = memoryview(lines.encode())
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(length)  # all of these labels or none
            raise


def _said(label: Label) -> dict[str, Any]:
    """Return a line of the journal; what it says nothing about is left out."""
    said = asdict(label)
    if not label.instruction:
        del said['instruction'], said['instruction_before']
    return said
