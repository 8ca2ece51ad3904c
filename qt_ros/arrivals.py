"""How many messages of a topic came, and how many of those that were sent never did.

The middleware numbers what a publisher sends. A gap in the numbers is what was lost on the way, or
overwritten in a queue before anybody took it:

    publisher a   7  8  .  .  11      two lost
    publisher b      1  2  3          its own numbers; what it sent before the first is not ours
"""

from __future__ import annotations

UNKNOWN = (1 << 64) - 1  # what a middleware that does not number messages gives


class Arrivals:
    """Counts the messages of one topic by the numbers that their publishers gave them."""

    def __init__(self) -> None:
        self.received = 0
        self.lost = 0
        self._newest: dict[bytes, int] = {}  # publisher -> largest number so far

    def add(self, sequence: int | None = None, publisher: bytes = b'') -> None:
        """Count a message; `sequence` None (or what stands for it): it has no number."""
        self.received += 1
        if sequence is None or sequence >= UNKNOWN:
            return
        newest = self._newest.get(publisher)
        if newest is None or sequence > newest:
            self.lost += 0 if newest is None else sequence - newest - 1
            self._newest[publisher] = sequence
        elif sequence < newest:
            self.lost = max(self.lost - 1, 0)  # it came late, but it came

    def since(self, before: tuple[int, int]) -> tuple[int, int]:
        """Return (received, lost) since `before`, which was `counts` once."""
        return self.received - before[0], max(self.lost - before[1], 0)

    @property
    def counts(self) -> tuple[int, int]:
        """(received, lost) so far."""
        return self.received, self.lost
