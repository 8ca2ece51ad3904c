"""When a recorded message counts as logged.

With the system's time: when it was received. With simulated time, which in lockstep may run many
times faster than a busy recorder looks: the simulated time at which it was PUBLISHED,

    log time = the newest /clock that was published before the message was

so that messages without a header fall on the tick that they belong to, however far the recorder
lags behind. Publication times are the middleware's source time stamps (system time, ns).
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

PATIENCE_S = 0.25  # that a message waits for the next /clock before the newest known is used
LOOK_S = 0.005  # how often a change of mind about haste is looked for
KEPT = 4096  # /clock messages


@dataclass(frozen=True)
class Arrival:
    """When a message was published and received (system time, ns), and when it came here [s]."""

    source_ns: int
    received_ns: int
    monotonic_s: float


class SystemLogClock:
    """Messages count as logged when they were received."""

    def log_ns(self, arrival: Arrival, in_haste: Callable[[], bool]) -> int:
        """Return the log time of a message (ns)."""
        del in_haste
        return arrival.received_ns


class SimLogClock:
    """Messages count as logged at the simulated time of their publication; thread-safe."""

    def __init__(self) -> None:
        self._source_ns: list[int] = []
        self._sim_ns: list[int] = []
        self._changed = threading.Condition()

    def add(self, source_ns: int, sim_ns: int) -> None:
        """Note a /clock message: when it was published, and what it said."""
        with self._changed:
            at = bisect.bisect_right(self._source_ns, source_ns)
            self._source_ns.insert(at, source_ns)
            self._sim_ns.insert(at, sim_ns)
            if len(self._source_ns) > 2 * KEPT:
                del self._source_ns[:KEPT], self._sim_ns[:KEPT]
            self._changed.notify_all()

    @property
    def newest_ns(self) -> int:
        """Return the newest simulated time (ns), 0 while there is none."""
        with self._changed:
            return self._sim_ns[-1] if self._sim_ns else 0

    def log_ns(self, arrival: Arrival, in_haste: Callable[[], bool]) -> int:
        """Return the log time of a message (ns); 0 while no /clock has come at all.

        Unless `in_haste()`, waits a little for a /clock that was published after the message: only
        then is it certain that none is missing in between.
        """
        deadline_s = arrival.monotonic_s + PATIENCE_S
        with self._changed:
            while not (self._settled(arrival.source_ns) or in_haste()):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(min(left_s, LOOK_S))
            at = bisect.bisect_right(self._source_ns, arrival.source_ns)
            if not self._sim_ns:
                return 0
            return self._sim_ns[max(at - 1, 0)]

    def _settled(self, source_ns: int) -> bool:
        return bool(self._source_ns) and self._source_ns[-1] > source_ns
