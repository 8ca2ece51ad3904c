"""The way out of commands: stamped one after another, and the fallback as an episode's last."""

from __future__ import annotations

from qt_ros.contract import Contract
from qt_ros.nodes.control.motion import Motion
from qt_ros.nodes.control.outputs import Outputs
from qt_ros.safety import Limited, fallback_targets


class Sender:
    """Sends the commands of one episode; what went out last is what motion goes on from."""

    def __init__(self, contract: Contract, outputs: Outputs, motion: Motion) -> None:
        self._contract, self._outputs, self._motion = contract, outputs, motion
        self.begin()

    def begin(self) -> None:
        """Begin an episode."""
        self._stamp_ns = 0  # of the last command

    def send(self, limited: Limited, t_ns: int, last_ns: int, now_ns: int) -> int:
        """Send the commands of a slot; return their stamp.

        It lies after the tick `t_ns` and after the last one's, and at `last_ns` at the latest.
        Raises whatever sending them raises.
        """
        # A command of tick k lies in (t_k, t_k+1]: the last slot is stamped with its own time.
        stamp_ns = min(max(now_ns, t_ns + 1, self._stamp_ns + 1), last_ns)
        self._motion.sent = self._outputs.send(limited.targets, stamp_ns)
        self._stamp_ns = stamp_ns
        return stamp_ns

    def fallback(self, now_ns: int) -> str | None:
        """Send the declared fallback if this episode moved the robot.

        Returns what went wrong, '' if nothing did, None where there was nothing to send.
        """
        if self._motion.sent is None:
            return None
        targets = fallback_targets(self._contract, self._motion.sent)
        if targets is None:
            return None
        try:
            self._outputs.send(targets, max(now_ns, self._stamp_ns + 1))
        except Exception as error:  # noqa: BLE001 - told in the episode's message
            return in_words(error)
        return ''


def in_words(error: Exception) -> str:
    """Return an error with its type."""
    return f'{type(error).__name__}: {error}'
