"""The small readers and checks that the sections of a contract are made of."""

from __future__ import annotations

from collections.abc import Sequence

from qt_ros.contract import JointLimit
from qt_ros.contract_text.yaml_reader import Value
from qt_ros.message_types import (
    ACTIONS,
    FLOAT32_ARRAY,
    FLOAT64_ARRAY,
    GRIPPER_COMMAND,
    JOINT_JOG,
    JOINT_STATES,
    STAMPED,
    field_syntax,
)

LONGEST_S = 1e6  # 11 days


def check_field(value: Value, text: str, type: str, by_index: bool) -> None:
    """Check that `text` is written as fields of message type `type` are; '' is not checked."""
    if type:
        syntax = field_syntax(type, by_index)
        if not syntax.accepts(text):
            value.problem(f'{text!r} is not a field of {type}; allowed: {syntax.words}')


def check_complete(value: Value, type: str, fields: Sequence[str], by_index: bool = False) -> None:
    """Check that the fields fill the arrays of a command, so that no entry must be made up."""
    missing: list[str] = []
    # Of n distinct indices from 0 without a gap, none is above n - 1.
    if type in (FLOAT32_ARRAY, FLOAT64_ARRAY):
        missing = [str(i) for i in range(len(fields)) if str(i) not in fields]
    elif by_index:
        each = [field.split('.', 1)[0] for field in fields]
        wanted = [f'{kind}.{i}' for kind in dict.fromkeys(each) for i in range(each.count(kind))]
        missing = [field for field in wanted if field not in fields]
    elif type in (*JOINT_STATES, JOINT_JOG):
        split = [field.split('.', 1) for field in fields if '.' in field]
        kinds = dict.fromkeys(kind for kind, _ in split)
        joints = dict.fromkeys(joint for _, joint in split)
        wanted = [f'{kind}.{joint}' for kind in kinds for joint in joints]
        missing = [field for field in wanted if field not in fields]
    if missing:
        value.problem(f'one message carries all entries of its arrays; missing: {missing}')


def read_size(value: Value) -> tuple[int, int]:
    """Read [height, width] in pixels."""
    pair = value.pair('whole number')
    if pair is None:
        return 0, 0
    height, width = pair[0].integer(8, 8192), pair[1].integer(8, 8192)
    return height or 0, width or 0


def read_crop(value: Value) -> tuple[int, int, int, int] | None:
    """Read [top, left, height, width] in pixels of the recorded image."""
    parts = value.items(at_least=4)
    if len(parts) > 4:
        value.problem('needs four whole numbers: [top, left, height, width]')
    if len(parts) != 4:
        return None
    top, left = (part.integer(0, 65535) for part in parts[:2])
    height, width = (part.integer(1, 65536) for part in parts[2:])
    if top is None or left is None or height is None or width is None:
        return None
    return top, left, height, width


def read_depth_range(value: Value) -> tuple[float, float] | None:
    """Read [near, far] in metres, 0 <= near < far."""
    pair = value.pair()
    if pair is None:
        return None
    near, far = pair[0].number(at_least=0.0), pair[1].number(above=0.0)
    if near is None or far is None:
        return None
    if near >= far:
        value.problem(f'near {near:g} must be smaller than far {far:g}')
    return near, far


def read_by_index(keys: dict[str, Value], type: str) -> bool:
    """Read the optional by_index: the arrays of a JointState without names are counted off."""
    by_index = bool(keys['by_index'].boolean()) if 'by_index' in keys else False
    if by_index and type and type not in JOINT_STATES:
        keys['by_index'].problem(
            f'is for {JOINT_STATES[0]} only (arrays are by index anyway); leave it out for {type}'
        )
    return by_index and type in JOINT_STATES


def read_frame_id(keys: dict[str, Value], type: str) -> str:
    """Read the optional frame_id of stamped commands."""
    if 'frame_id' not in keys:
        return ''
    text = keys['frame_id'].text() or ''
    if type and type not in STAMPED:
        keys['frame_id'].problem(f'{type} has no header; leave it out')
    elif text.startswith('/'):
        keys['frame_id'].problem(f'a frame has no slash in front: {text.lstrip("/")}')
    return text


def read_max_effort(keys: dict[str, Value], type: str, fields: Sequence[str]) -> float | None:
    """Read the optional max_effort that goes along with every gripper command.

    `type`: as the contract writes it; fields: those that the dimensions command.
    """
    if 'max_effort' not in keys:
        return None
    value = keys['max_effort']
    if type and type not in (GRIPPER_COMMAND, *ACTIONS):
        value.problem(f'is for gripper commands only; leave it out for {type}')
    if any(field == 'max_effort' or field.startswith('effort.') for field in fields):
        value.problem('a dimension commands the effort already; leave out one of them')
    return value.number(at_least=0.0)


def read_max_age(keys: dict[str, Value]) -> float:
    """Read the optional max_age_s of a stream [s]."""
    return read_seconds(keys, 'max_age_s', 0.25)


def read_seconds(keys: dict[str, Value], name: str, default: float) -> float:
    """Read an optional length of time [s]; years would overflow when stamps are added."""
    if name not in keys:
        return default
    return keys[name].number(above=0.0, at_most=LONGEST_S) or default


def read_limit(value: Value) -> JointLimit:
    """Read what limits one dimension; at least one kind of limit."""
    keys = value.mapping(('position', 'velocity', 'step', 'acceleration'))
    if not keys:
        value.problem(
            'limits nothing; allowed: position: [low, high], velocity, step, acceleration'
        )
    position = read_range(keys['position']) if 'position' in keys else None
    velocity, step, acceleration = (
        keys[name].number(above=0.0) if name in keys else None
        for name in ('velocity', 'step', 'acceleration')
    )
    return JointLimit(position, velocity, step, acceleration)


def read_range(value: Value) -> tuple[float, float] | None:
    """Read [low, high], low < high."""
    pair = value.pair()
    if pair is None:
        return None
    low, high = pair[0].number(), pair[1].number()
    if low is None or high is None:
        return None
    if low >= high:
        value.problem(f'low {low:g} must be smaller than high {high:g}')
    return low, high


def bad_name(what: str, name: str) -> str:
    """Say why a name is refused: names become parts of file names and dataset columns."""
    return (
        f'{what} {name!r} is not safe in file names; '
        'allowed: letters, digits and underscores, not starting with a digit'
    )
