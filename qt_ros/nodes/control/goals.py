"""Commands that are goals of an action, as grippers take them: sent on change, never awaited.

Everything here returns at once; answers arrive as callbacks on the executor. One goal at a time
waits for its answer, and behind it only the newest command. A goal goes out

    when the command changed
    when the server is another one than the one that had it (a controller was restarted)
    AGAIN_S after it was refused, while it is still wanted
    after a pause of the commands: somebody else may have moved the gripper meanwhile

and only from `want`: while no episode runs, nothing is sent again.
"""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.task import Future

ANSWER_S = 1.0  # a server that takes longer to accept or refuse is slow: the next goal goes out
RESULT_S = 10.0  # a goal that is carried out for longer is told
AGAIN_S = 1.0  # between tries of a refused goal; a pause of the commands that counts as one
LOOK_S = 0.2  # how often the server is looked for
COUNTED = ('sent', 'accepted', 'refused', 'unanswered', 'reached', 'stalled', 'failed', 'resent')

Key = tuple[float, ...]  # the numbers of a command


class GoalSender:
    """Keeps an action server on the newest goal."""

    def __init__(self, node: Node, name: str, action: type) -> None:
        """`action`: the class of the action called `name`."""
        self.name = name
        self._node = node
        self._client = ActionClient(node, action, name)
        self.counts: Counter[str] = Counter()
        self._servers: set[bytes] = set()
        self._looked_s = self._wanted_s = -AGAIN_S
        self._wanted: tuple[Key, Any] | None = None  # the newest goal
        self._asked: tuple[Key, Future, float] | None = None  # sent, without an answer yet
        self._stands: Key | None = None  # what the server has accepted last
        self._refused: tuple[Key, float] | None = None  # the newest answer was a no
        self._since_s: float | None = None  # when the goal that is being carried out was accepted
        self._results: list[Future] = []

    def want(self, key: Key, goal: Any) -> None:
        """Have `goal`, whose numbers are `key`, carried out; returns at once."""
        now_s = time.monotonic()
        if now_s - self._wanted_s > AGAIN_S:
            self._stands = self._refused = None
        self._wanted_s = now_s
        self._wanted = key, goal
        if now_s - self._looked_s > LOOK_S:
            self._look(now_s)
        self._send(now_s)

    def problems(self) -> list[str]:
        """Say what is wrong with the server or its answers now."""
        now_s = time.monotonic()
        if now_s - self._looked_s > LOOK_S:
            self._look(now_s)
        if not self._servers:
            return [f'nobody serves the action {self.name}; is its controller running?']
        if self._asked is not None and now_s - self._asked[2] > ANSWER_S:
            return [f'{self.name} has not answered a goal for {now_s - self._asked[2]:.1f} s']
        if self._refused is not None:
            numbers = ', '.join(f'{number:g}' for number in self._refused[0])
            return [f'{self.name} refused the goal {numbers}; is its controller active?']
        if self._since_s is not None and now_s - self._since_s > RESULT_S:
            return [f'{self.name} has been busy with a goal for {now_s - self._since_s:.0f} s']
        return []

    def values(self) -> dict[str, str]:
        """Return the counters as text, for the key-value pairs of a diagnostic status."""
        return {f'goals{self.name}.{what}': str(self.counts[what]) for what in COUNTED}

    def close(self) -> None:
        """Let go of the server; a goal that it accepted goes on."""
        self._forget()
        self._client.destroy()

    def _look(self, now_s: float) -> None:
        """Notice a server that came, went or was exchanged."""
        self._looked_s = now_s
        status = self._node.get_publishers_info_by_topic(f'{self.name}/_action/status')
        servers = {bytes(info.endpoint_gid) for info in status}
        if not self._client.server_is_ready():
            servers = set()  # only partly discovered
        if servers - self._servers or not servers:
            self.counts['resent'] += self._stands is not None and bool(servers)
            self._forget()
        self._servers = servers

    def _forget(self) -> None:
        """Give up everything that the server was asked for."""
        futures = self._results if self._asked is None else [*self._results, self._asked[1]]
        self._results, self._asked = [], None
        self._stands = self._refused = self._since_s = None
        for future in futures:
            future.cancel()

    def _send(self, now_s: float) -> None:
        """Send the newest command if the server does not have it, and may be asked."""
        if self._wanted is None or not self._servers:
            return
        key, goal = self._wanted
        if self._asked is not None:
            if now_s - self._asked[2] < ANSWER_S:
                return
            self.counts['unanswered'] += 1
            future, self._asked = self._asked[1], None
            future.cancel()
        elif key == self._stands:
            return
        elif self._refused is not None:
            refused, at_s = self._refused
            if key == refused and now_s - at_s < AGAIN_S:
                return
        future = self._client.send_goal_async(goal)
        self.counts['sent'] += 1
        self._asked = key, future, now_s
        future.add_done_callback(partial(self._answered, key))

    def _answered(self, key: Key, future: Future) -> None:
        if future.cancelled() or self._asked is None or self._asked[1] is not future:
            return
        self._asked = None
        now_s = time.monotonic()
        handle = future.result()
        if handle.accepted:
            self.counts['accepted'] += 1
            self._stands, self._refused, self._since_s = key, None, now_s
            result = handle.get_result_async()
            self._results.append(result)
            result.add_done_callback(self._finished)
        else:
            self.counts['refused'] += 1
            self._stands, self._refused, self._since_s = None, (key, now_s), None
        self._send(now_s)

    def _finished(self, future: Future) -> None:
        if future.cancelled() or future not in self._results:
            return
        newest = future is self._results[-1]
        self._results.remove(future)
        if not newest:
            return  # a later goal took its place
        self._since_s = None
        answer = future.result()
        if getattr(answer.result, 'stalled', False):
            self.counts['stalled'] += 1
        elif answer.status == GoalStatus.STATUS_SUCCEEDED:
            self.counts['reached'] += 1
        else:
            self.counts['failed'] += 1
