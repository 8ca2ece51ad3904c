"""Follow a node that makes attempts, one progress line each, and keep what it said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qt_ros.errors import QtRosError
from qt_ros.processes import NodeGroup, NodeProcess
from qt_ros.progress import Task

START_S = 90.0  # for a node to come up on a busy machine; torch alone takes 3 to 10 s
SILENCE_S = 60.0  # besides the length of an attempt, before a node counts as stuck


@dataclass(frozen=True)
class Attempt:
    """One attempt, as the node that made it told."""

    instruction: str
    seed: int
    outcome: str
    steps: int
    bag: str  # folder of its recording; '' if it was not recorded
    message: str = ''


def success_rate(attempts: Sequence[Attempt]) -> tuple[int, int]:
    """Return (successes, attempts); an aborted attempt counts: the task was not done."""
    return sum(attempt.outcome == 'success' for attempt in attempts), len(attempts)


def wait_ready(group: NodeGroup, nodes: Sequence[NodeProcess]) -> None:
    """Wait until nodes are up; raises QtRosError with what a node said when it refused."""
    for node in nodes:
        with Blame(group):
            said = node.wait_for(lambda event: event['event'] in ('ready', 'refused'), START_S)
        if said['event'] == 'refused':
            raise QtRosError(f'node {node.name}: {said["message"]}; its log: {node.log}')


def follow(
    group: NodeGroup, node: NodeProcess, total: int, longest_s: float, task: Task
) -> list[Attempt]:
    """Show the attempts of a node as they end, until it sums up.

    longest_s: of one attempt. Raises QtRosError when any node of the group fails or falls silent.
    """
    found: list[Attempt] = []
    outcomes: Counter[str] = Counter()
    task.update(0, total)
    with Blame(group):
        for event in node.events(longest_s + SILENCE_S):
            if event['event'] == 'episode':
                found.append(_attempt(event))
                outcomes[found[-1].outcome] += 1
                task.update(len(found), total, _words(outcomes))
            elif event['event'] == 'error':
                group.check()
                raise QtRosError(f'node {node.name}: {event["message"]}; its log: {node.log}')
            elif event['event'] == 'summary':
                return found
    raise QtRosError(
        f'node {node.name} ended after {len(found)} of {total} attempts; its log: {node.log}'
    )


class Blame:
    """Let the node that failed first be named, not the one that waited for it."""

    def __init__(self, group: NodeGroup) -> None:
        self._group = group

    def __enter__(self) -> None:
        """Do nothing yet."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, QtRosError):
            self._group.check()


def _attempt(event: Mapping[str, Any]) -> Attempt:
    return Attempt(
        instruction=event['instruction'],
        seed=int(event['seed']),
        outcome=event['outcome'],
        steps=int(event['steps']),
        bag=event.get('uri') or event.get('bag') or '',
        message=event.get('message', ''),
    )


def _words(outcomes: Mapping[str, int]) -> str:
    return ', '.join(f'{count} {outcome}' for outcome, count in sorted(outcomes.items()))


def bags_of(attempts: Sequence[Attempt]) -> list[Path]:
    """Return the recordings of attempts."""
    return [Path(attempt.bag) for attempt in attempts if attempt.bag]
