"""Guess from names, types and numbers which topics are state and which are commands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qt_ros import message_types as types
from qt_ros.bags.findings import FAR_MS, SIMULATION_NS
from qt_ros.bags.index import TopicIndex
from qt_ros.bags.reader import BagReader
from qt_ros.bags.recorded_numbers import Numbers, read_numbers

RATES_HZ = (10.0, 5.0, 2.0, 1.0, 0.5)
# Words in the names of command topics, the surest first.
_COMMAND_WORDS = (
    ('cmd', 'cmds', 'command', 'commands', 'commanded'),
    ('action', 'actions'),
    ('goal', 'goals', 'target', 'targets', 'desired', 'setpoint', 'reference', 'traj'),
    ('leader', 'master'),
)
_GRIPPER_WORDS = {'gripper', 'grippers', 'hand', 'hands', 'claw', 'finger', 'fingers'}
_STATE_WORDS = {
    'state',
    'states',
    'status',
    'feedback',
    'measured',
    'actual',
    'follower',
    'puppet',
}
_BASE_WORDS = {'base', 'vel', 'wheel', 'wheels', 'drive', 'chassis'}
_ARRAYS = (types.FLOAT64_ARRAY, types.FLOAT32_ARRAY)
_COMMAND_TYPES = (
    types.JOINT_TRAJECTORY,
    types.JOINT_STATE,
    *_ARRAYS,
    types.TWIST,
    types.TWIST_STAMPED,
    types.POSE_STAMPED,
    types.JOINT_JOG,
    types.GRIPPER_COMMAND,
)
_OTHER_STATES = (types.POSE_STAMPED, types.TWIST_STAMPED, *_ARRAYS)


@dataclass
class Guess:
    """What a contract could be made of.

    `spare` are commands that were recorded too: of joints that others command already, or of a
    base beside an arm. `next_state` is true if no command was found.
    """

    rate_hz: float
    state: list[Numbers]
    commands: list[Numbers]
    spare: list[Numbers] = field(default_factory=list)
    only_commands: bool = False

    @property
    def next_state(self) -> bool:
        """True if the action has to be derived from the next state."""
        return not self.commands


def guess(bag: BagReader, index: Mapping[str, TopicIndex], found: Mapping[str, Any]) -> Guess:
    """Sort the topics of numbers into states and plausible commands."""
    usable = {
        topic: entry
        for topic, entry in found['topics'].items()
        if entry['decodes'] and topic in index and writable(topic)
    }
    rate_hz = _rate_hz([usable[topic]['rate_hz'] for topic in found['cameras'] if topic in usable])

    def read(topics: Sequence[str]) -> list[list[Numbers]]:
        found = [read_numbers(bag, topic, index[topic], rate_hz) for topic in topics]
        return [parts for parts in found if parts]

    named = [topic for topic, entry in usable.items() if _is_command(topic, entry['type'])]
    commands = [parts[0] for parts in read(named)]
    states = [
        topic
        for topic, e in usable.items()
        if e['type'] == types.JOINT_STATE and topic not in named
    ]
    if not states and not any(c.type == types.JOINT_STATE for c in commands):
        states = [
            topic
            for topic, e in usable.items()
            if e['type'] in _OTHER_STATES and topic not in named
        ]
    state = [part for parts in read(states) for part in parts]
    only_commands = not state
    if only_commands:
        state = [item for item in commands if item.type == types.JOINT_STATE]
    chosen, spare = _choose(commands, state)
    return Guess(rate_hz, _in_order(state, chosen), chosen, spare, only_commands)


def words(topic: str) -> set[str]:
    """Split a topic's name into words.

    >>> sorted(words('/io_teleop/jointCmd'))
    ['cmd', 'io', 'joint', 'teleop']
    """
    spaced = re.sub(r'([a-z0-9])([A-Z])', r'\1_\2', topic)
    return {word for word in re.split(r'[^a-z0-9]+', spaced.lower()) if word}


def is_gripper(topic: str) -> bool:
    """Return True if the topic's name tells of a gripper or a hand."""
    return bool(words(topic) & _GRIPPER_WORDS)


def writable(topic: str) -> bool:
    """Return False for names that no ROS topic has: they come from damaged recordings."""
    return re.fullmatch(r'/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*', topic, re.ASCII) is not None


def guess_clock(
    found: Mapping[str, Any], index: Mapping[str, TopicIndex], used: Sequence[str]
) -> tuple[str, str]:
    """Choose the clock for these topics: header where all headers tell one time that can be true.

    Returns the clock and the reason.
    """
    offsets = {
        topic: float(found['topics'][topic]['header_minus_log_ms']['median'])
        for topic in used
        if found['topics'][topic]['header_minus_log_ms'] is not None
    }
    if not offsets:
        return 'log', 'no topic has header stamps'
    if max(offsets.values()) - min(offsets.values()) > FAR_MS:
        return 'log', 'guess: header stamps of the topics do not agree with each other'
    if min(abs(ms) for ms in offsets.values()) > FAR_MS:
        last_ns = max(int(index[topic].header_ns.max()) for topic in offsets)
        if last_ns >= SIMULATION_NS:
            return 'log', 'guess: header stamps agree with each other, but not with log time'
        return 'header', 'guess: header stamps are simulation time, in which the robot moved'
    return 'header', 'guess: header stamps agree with each other; they tell when it was measured'


def _rate_hz(rates: Sequence[float | None]) -> float:
    """Return the fastest rate that the slowest camera keeps up with."""
    slowest = min((rate for rate in rates if rate), default=RATES_HZ[0])
    return next((rate for rate in RATES_HZ if rate <= slowest * 1.05), RATES_HZ[-1])


def _is_command(topic: str, kind: str) -> bool:
    if kind == types.JOINT_TRAJECTORY:
        return True
    if kind not in _COMMAND_TYPES:
        return False
    # Bare arrays carry no joint names: states rarely travel so, grippers' commands do.
    bare = kind in _ARRAYS and is_gripper(topic) and not words(topic) & _STATE_WORDS
    return bare or _surety(topic) < len(_COMMAND_WORDS)


def _surety(topic: str) -> int:
    """Return how sure the name says command: 0 is the surest."""
    found = words(topic)
    sure = (rank for rank, group in enumerate(_COMMAND_WORDS) if found & set(group))
    return next(sure, len(_COMMAND_WORDS))


def _choose(
    commands: Sequence[Numbers], state: Sequence[Numbers]
) -> tuple[list[Numbers], list[Numbers]]:
    """Keep one command for each joint: the surest; a base is left out beside an arm."""
    measured = {joint for item in state for joint in item.joints}

    def rank(item: Numbers) -> tuple[int, int, int, int]:
        known = sum(joint in measured for joint in item.joints)
        kind = 0 if item.type == types.JOINT_TRAJECTORY else 1
        return (0 if known else 1, _surety(item.topic), kind, -known)

    chosen: list[Numbers] = []
    spare: list[Numbers] = []
    taken: set[str] = set()
    grippers: set[frozenset[str]] = set()
    for item in sorted(commands, key=rank):
        side = frozenset(words(item.topic) & {'left', 'right', 'l', 'r'})
        if item.joints:
            # With an arm at hand, joints that nothing measures are somebody else's.
            fits = not taken & set(item.joints) and bool(
                not taken or measured & set(item.joints) or is_gripper(item.topic)
            )
        elif is_gripper(item.topic):
            fits = side not in grippers
            grippers.add(side)
        else:
            moves_base = item.type in (types.TWIST, types.TWIST_STAMPED) or bool(
                words(item.topic) & _BASE_WORDS
            )
            fits = not chosen or not (moves_base or measured)
        (chosen if fits else spare).append(item)
        if fits:
            taken |= set(item.joints)
    return chosen, spare


def _in_order(state: Sequence[Numbers], commands: Sequence[Numbers]) -> list[Numbers]:
    """Put the state's topics first that measure what is commanded."""
    commanded = {joint for item in commands for joint in item.joints}
    return sorted(state, key=lambda item: -len(commanded & set(item.joints)))
