"""What must hold for the robot to move at all: no emergency stop, somebody enables, start pose.

Pure state machines. Times are steady nanoseconds; nothing here waits, logs or publishes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from qt_ros.contract import Contract


class EmergencyStop:
    """Latched: once pressed, it stays until it is cleared, whatever else happens."""

    def __init__(self) -> None:
        self.pressed = 0  # times
        self._reason = ''

    def press(self, reason: str) -> bool:
        """Stop; True if it was not pressed before."""
        rising = not self._reason
        if rising:
            self._reason = reason or 'pressed'
            self.pressed += 1
        return rising

    def clear(self) -> bool:
        """Release it; True if it was pressed."""
        was, self._reason = bool(self._reason), ''
        return was

    def problem(self) -> str:
        """Say why nothing may move, or ''."""
        return f'emergency stop: {self._reason}; clear it first' if self._reason else ''


class Deadman:
    """Enabled only while somebody keeps saying so: a true at least every `timeout_s`.

    A timeout of 0 asks nobody. One false, or silence, disables at once.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._until_ns: int | None = None  # None: never heard; 0: told to stop

    def hear(self, enabled: bool, now_ns: int) -> None:
        """Take in a word on the enable topic."""
        self._until_ns = int(now_ns) + round(self.timeout_s * 1e9) if enabled else 0

    def problem(self, now_ns: int) -> str:
        """Say why nothing may move, or ''."""
        if self.timeout_s <= 0:
            return ''
        if self._until_ns is None:
            return 'not enabled: nobody said so yet'
        if self._until_ns == 0:
            return 'not enabled: told to stop'
        if int(now_ns) > self._until_ns:
            return f'not enabled: nothing heard for {self.timeout_s:g} s'
        return ''


class ReceiveGate:
    """Says which topics have fallen silent, by when their messages came, whatever their stamps.

    Stamps tell how old a picture is; a camera whose clock is ahead, or that died with stamps of
    the future under way, is told only by its silence.
    """

    def __init__(self, max_age_ns: Mapping[str, int]) -> None:
        """max_age_ns: {stream: longest silence}."""
        self._max_age_ns = dict(max_age_ns)
        self._heard_ns: dict[str, int] = {}

    def hear(self, stream: str, now_ns: int) -> None:
        """Note that a message of a stream came."""
        self._heard_ns[stream] = int(now_ns)

    def forget(self) -> None:
        """Start over, as when the clock jumped."""
        self._heard_ns.clear()

    def silent(self, now_ns: int) -> dict[str, int]:
        """Return {stream: how long nothing came [ns]} of those that were silent for too long."""
        ages = {name: int(now_ns) - heard for name, heard in self._heard_ns.items()}
        return {name: age for name, age in ages.items() if age > self._max_age_ns[name]}


class Edges:
    """Tells each change of a set of conditions once, and counts how often each began."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._present: set[str] = set()

    def update(self, present: Collection[str]) -> tuple[list[str], list[str]]:
        """Take in what holds now; return what began and what ended, in order of name."""
        now = set(present)
        began, ended = sorted(now - self._present), sorted(self._present - now)
        for name in began:
            self.counts[name] = self.counts.get(name, 0) + 1
        self._present = now
        return began, ended


def start_problems(contract: Contract, state: NDArray[np.float32]) -> list[str]:
    """Say where the measured state (S,) is not where the contract wants an episode to begin."""
    found = []
    for name, (low, high) in contract.safety.start.items():
        index = contract.state_index(name)
        value = float('nan') if index is None else float(state[index])
        if not low <= value <= high:
            found.append(f'{name} is {value:.4g}, an episode begins in [{low:g}, {high:g}]')
    return found
