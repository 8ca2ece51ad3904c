"""How long after a tick its decision goes out, where decisions are spread over slots.

    tick                 slot           slot
    |----------------------|--------------|--- ...
    | thinks ........      |
    | thinks .... (waits)  |              both go out here, a lead after their tick

Were a decision taken up by whichever slot comes next, now by one and now by another, the period
between decisions would jump by a slot. So slots lie where thinking is mostly done, and a decision
that is early waits for its own.
"""

from __future__ import annotations

from collections import deque

HANDOVER_S = 0.003  # between the executor and the thread that thinks, there and back
AT_FIRST = 1.5  # times as long as when it was tried a decision takes now and then
FEWEST = 20  # decisions from which is known how long they take
NEWEST = 200


class Lead:
    """Learns from decisions how long they take, and says when they go out."""

    def __init__(self, rate_hz: float, slot_ns: int | None, thinking_s: float) -> None:
        """slot_ns: as `ControlLoop` has it. thinking_s: how long a decision took when tried."""
        self._tick_s, self._slot_s = 1 / rate_hz, (slot_ns or 0) / 1e9
        # A decision has several slots to go to; their rate is a multiple of the ticks'.
        self.spreads = slot_ns is not None and 1.5 * self._slot_s < self._tick_s
        self._at_first_s = AT_FIRST * thinking_s + HANDOVER_S
        self._ready_s: deque[float] = deque(maxlen=NEWEST)

    def learn(self, ready_s: float) -> None:
        """Take in how long after its tick a decision was there [s]."""
        self._ready_s.append(ready_s)

    def value_s(self) -> float:
        """Return the lead [s], which changes as decisions are learnt from; 0 where none is."""
        if not self.spreads:
            return 0.0
        return lead_s(self._mostly_s(), self._slot_s, self._tick_s)

    def _mostly_s(self) -> float:
        """Return when 19 of 20 decisions are there [s].

        For the last one all would wait: it is seldom, and far behind, on a busy machine.
        """
        count = len(self._ready_s)
        if count < FEWEST:
            return self._at_first_s
        return sorted(self._ready_s)[int(0.95 * count) - 1]


def lead_s(ready_s: float, slot_s: float, tick_s: float) -> float:
    """Return how long after a tick its decision goes out [s].

    ready_s: how long after the tick it is mostly there. Slots keep 0.25 to 0.9 of their period
    away from ticks, which have work of their own. Where less than half of the tick would be left
    to do what was decided, decisions go out as they come.
    """
    slots, part_s = divmod(ready_s, slot_s)
    if part_s >= 0.9 * slot_s:
        slots, part_s = slots + 1, 0.0
    part_s = max(part_s, 0.25 * slot_s)
    found_s = slots * slot_s + part_s
    return found_s if found_s <= tick_s / 2 else part_s
