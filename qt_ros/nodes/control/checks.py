"""What must fit before the robot moves: the checkpoint, the contract and the running robot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qt_ros.contract import Contract
from qt_ros.decoding import DecodeError, decode_state
from qt_ros.errors import ContractError, QtRosError

TOLD, FEEDBACK = '/_action/feedback', '_FeedbackMessage'  # topic and type that show an action


def contract_for(trained_text: str, given_path: str) -> Contract:
    """Return the contract to drive with: the checkpoint's, or the one given for this robot.

    Raises ContractError where the given one does not agree, or where nothing can be sent.
    """
    contract = Contract.parse(trained_text, origin='contract of the checkpoint')
    if given_path:
        given = Contract.load(given_path)
        conflicts = contract_conflicts(contract, given)
        if conflicts:
            raise ContractError([f'{given_path}: {conflict}' for conflict in conflicts])
        contract = given
    problems = drivable(contract)
    if problems:
        raise ContractError(problems)
    return contract


def contract_conflicts(trained: Contract, given: Contract) -> list[str]:
    """Say where a contract given for the robot differs from the checkpoint's in what it means.

    The policy's inputs and outputs must agree: rate, cameras and their sizes, state fields, action
    dimensions. Topics, message types, ages, episodes and safety may differ: they are the robot's.
    """
    found = []
    for what, a, b in (
        ('rate_hz', trained.rate_hz, given.rate_hz),
        ('cameras', *(_cameras(c) for c in (trained, given))),
        ('state', *(_state(c) for c in (trained, given))),
        ('action', *(_dims(c) for c in (trained, given))),
    ):
        if a != b:
            found.append(f'{what}: the checkpoint was trained with {a}, the contract says {b}')
    return found


def _cameras(contract: Contract) -> list[str]:
    return [f'{c.name} {c.size[0]}x{c.size[1]}' for c in contract.cameras]


def _state(contract: Contract) -> list[str]:
    return [name for stream in contract.state for name in stream.fields]


def _dims(contract: Contract) -> list[str]:
    return [f'{d.name} {d.mode} {d.low:g}..{d.high:g} in {d.bins} bins' for d in contract.dims]


def drivable(contract: Contract) -> list[str]:
    """Say which actions of a contract have no command topic, so that nothing can be sent."""
    return [
        f'action dims {", ".join(d.name for d in action.dims)} come from next_state, which a '
        'recording has and a robot does not; give a contract whose action names command topics'
        for action in contract.action
        if action.topic is None
    ]


def check_command_rate(contract: Contract, command_rate_hz: float) -> None:
    """Raise QtRosError unless a whole number of commands fits a period of the contract."""
    ratio = command_rate_hz / contract.rate_hz
    if round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-6:
        raise QtRosError(
            f'command_rate_hz is {command_rate_hz:g}; it must be a multiple of the rate_hz of '
            f'the contract, {contract.rate_hz:g}'
        )


@dataclass(frozen=True)
class Seen:
    """What was seen of the running robot."""

    types: Mapping[str, Sequence[str]]  # topic -> types on the graph
    publishers: Mapping[str, int]  # observation topic -> publishers
    newest: Mapping[str, Any]  # observation topic -> a message that arrived


def robot_problems(contract: Contract, seen: Seen) -> list[str]:
    """Say what the running robot lacks for this contract: topics, types, messages, joints."""
    found = []
    for topic, type_name in {s.topic: s.type for s in contract.observed}.items():
        types = list(seen.types.get(topic, ()))
        if types and types != [type_name]:
            found.append(f'{topic} carries {", ".join(types)}, the contract says {type_name}')
        elif not seen.publishers.get(topic, 0):
            found.append(f'{topic}: nobody publishes it; {_nearest(topic, type_name, seen)}')
        elif topic not in seen.newest:
            found.append(f'{topic}: has a publisher, but no message arrived')
    for stream in contract.state:
        message = seen.newest.get(stream.topic)
        if message is None:
            continue
        try:
            decode_state(message, stream.type, stream.fields, stream.by_index)
        except DecodeError as error:
            found.append(f'{stream.topic}: {error}')
    for action in contract.action:
        types = list(seen.types.get(action.topic or '', ()))
        if types and types != [action.type]:
            found.append(
                f'{action.topic} carries {", ".join(types)}, the contract says {action.type}'
            )
        served = [t.removesuffix(FEEDBACK) for t in seen.types.get(f'{action.action}{TOLD}', ())]
        if action.action and served and served != [action.action_type]:
            found.append(
                f'{action.action} is the action {", ".join(served)}, the contract says '
                f'{action.action_type}'
            )
    return found


def _nearest(topic: str, type_name: str, seen: Seen) -> str:
    same = sorted(name for name, types in seen.types.items() if type_name in types)
    same = [name for name in same if name != topic]
    if same:
        return f'topics of type {type_name}: {", ".join(same)}; remap or correct the contract'
    return f'there is no topic of type {type_name}; is the robot (or its driver) running?'
