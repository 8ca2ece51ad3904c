"""Tasks that kill the process which converts them, for real, by SIGKILL."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qt_ros.bags.work import BagTask


@dataclass(frozen=True)
class Fatal:
    """Stands where labels of a task do; asked about its bag, it kills the process that asks.

    Each death leaves a file in `notes`; after `deaths` of them the bag is converted.
    """

    notes: Path
    deaths: int

    def about(self, bag: Any) -> bool:
        count = len(list(self.notes.glob('*')))
        if count < self.deaths:
            (self.notes / f'{count}').touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return False


def fatal(task: BagTask, notes: Path, deaths: int) -> BagTask:
    """Return the task, such that it kills `deaths` workers; `notes` is made."""
    notes.mkdir()
    return replace(task, labels=(Fatal(notes, deaths),))
