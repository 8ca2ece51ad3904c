"""How long work says how far it is, whoever shows it: a terminal, a log or nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of long work."""

    def update(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Say how much is done, of how much, and a few words or numbers beside it."""


# tasks(title, total) opens a task that is shown until the `with` block ends.
Tasks = Callable[[str, 'float | None'], AbstractContextManager[Task]]


class _Silent:
    """A task that nobody watches."""

    def update(self, done: float, total: float | None = None, note: str | None = None) -> None:
        pass


@contextmanager
def nobody(title: str, total: float | None = None) -> Iterator[Task]:
    """Open a task that is shown to nobody."""
    yield _Silent()
