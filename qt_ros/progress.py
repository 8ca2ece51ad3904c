"""How long work says how far it is, whoever shows it: a terminal, a log or nobody."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Task(Protocol):
    """One piece of long work."""

    def update(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Say how much is done, of how much, and a few words or numbers beside it."""


# tasks(title, total) opens a task that is shown until the `with` block ends.
Tasks = Callable[[str, 'float | None'], AbstractContextManager[Task]]
