"""Which attempts a scripted teleoperator makes, in which order, and how each of them counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qt_ros.errors import QtRosError
from qt_ros.sim.expert import MODES
from qt_ros.sim.tasks import parse


@dataclass(frozen=True)
class Attempt:
    """One attempt at a task."""

    index: int
    mode: str  # expert | noisy | random
    instruction: str
    seed: int  # of the scene


def parse_plan(plan: str) -> list[tuple[str, int]]:
    """Return [(mode, attempts)] of a plan such as 'expert:150,noisy:60,random:20'.

    Raises QtRosError with every problem of the plan.
    """
    found = []
    problems = []
    for part in plan.split(','):
        mode, _, count = part.strip().partition(':')
        if mode not in MODES:
            problems.append(f"plan: unknown mode '{mode}'; allowed: {', '.join(MODES)}")
        elif not count.isdigit():
            problems.append(f"plan: '{part.strip()}'; needed: MODE:ATTEMPTS, such as {mode}:10")
        else:
            found.append((mode, int(count)))
    if problems:
        raise QtRosError(problems)
    return found


def attempts(plan: str, instructions: Sequence[str], seed: int) -> list[Attempt]:
    """Return every attempt of a plan; the instructions take turns, scene i has seed `seed + i`.

    Raises QtRosError for a plan or an instruction that does not exist.
    """
    if not instructions:
        raise QtRosError('instructions: give at least one')
    known = [parse(instruction).instruction for instruction in instructions]

    def all_modes() -> Iterator[str]:
        for mode, count in parse_plan(plan):
            yield from (mode for _ in range(count))

    return [
        Attempt(index, mode, known[index % len(known)], seed + index)
        for index, mode in enumerate(all_modes())
    ]


def outcome_of(mode: str, success: bool, lost: bool = False) -> str:
    """Return how an attempt counts that ended on its own or ran out of time.

    Moving at random is no attempt at the task, so that running out of time it has not failed.
    """
    if success:
        return 'success'
    return 'timeout' if mode == 'random' and not lost else 'failure'
