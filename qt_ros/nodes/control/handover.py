"""From the thread that thinks to the executor's: what one found out, the other acts on."""

from __future__ import annotations

import queue
from collections.abc import Callable

from rclpy.node import Node


class Handover:
    """Runs what other threads leave here on the executor, soon and in order."""

    def __init__(self, node: Node, run: Callable[[Callable[[], None]], None]) -> None:
        """run: called on the executor with each action."""
        self._run = run
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = node.create_guard_condition(self._on_wake)

    def leave(self, action: Callable[[], None]) -> None:
        """Have an action run; may be called by any thread."""
        self._actions.put(action)
        self._wake.trigger()

    def _on_wake(self) -> None:
        while not self._actions.empty():
            self._run(self._actions.get_nowait())
