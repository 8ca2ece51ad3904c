"""A first contract for a recording: guesses, each with the reason written beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros import message_types as types
from qt_ros.bags.index import TopicIndex, index_bag
from qt_ros.bags.inspect import AHEAD_MS, inspect_bag
from qt_ros.bags.reader import BagReader
from qt_ros.bags.types import deserialize
from qt_ros.decoding import fields_of, read_fields
from qt_ros.errors import BagError, QtRosError

RATE_HZ = 10.0
MOST_MESSAGES = 20_000  # of a topic are looked at for ranges
SIDE = 96  # [px] images are scaled to this height and width
LARGEST = 1e30  # larger numbers, and NaN, come from damaged messages
BINS = 129  # odd: one bin is exactly the middle
_COMMAND = re.compile(r'cmd|command|target|action|trajectory|goal|leader|desired', re.I)
_ARRAYS = (types.FLOAT64_ARRAY, types.FLOAT32_ARRAY)
_STATE_TYPES = (types.JOINT_STATE,)
_COMMAND_TYPES = (
    types.JOINT_TRAJECTORY,
    types.JOINT_STATE,
    types.FLOAT64_ARRAY,
    types.FLOAT32_ARRAY,
    types.TWIST,
    types.TWIST_STAMPED,
)


@dataclass(frozen=True)
class _Numbers:
    """What a topic of numbers held: fields and their values at ticks, (T, n)."""

    topic: str
    type: str
    fields: tuple[str, ...]
    values: NDArray[np.float64]
    by_index: bool


def suggest_contract(path: Path | str) -> str:
    """Return the YAML of a contract that fits the recording; every guess carries a comment.

    Raises `BagError` if the recording has nothing that could be a state.
    """
    found = inspect_bag(path)
    with BagReader(path) as bag:
        index = index_bag(bag)
        state, commands = _numbers(bag, index, found)
    if not state:
        raise BagError(
            f'{path}: no topic holds joint states or other numbers that a policy could see; it'
            f' holds: {", ".join(found["topics"]) or "no topics"}'
        )
    clock, why = _clock(found, [*found['cameras'], *(s.topic for s in [*state, *commands])])
    lines = [
        f'# A first contract, guessed from {Path(path).name!r}. Read all of it before you use it.',
        f'name: {_identifier(Path(path).stem)}',
        f'rate_hz: {RATE_HZ}  # guess: fast enough for most arms; rates are in `qt-ros inspect`',
        f'clock: {clock}  # {why}',
        'max_gap_s: 1.0  # a longer silence of a stream cuts the episode',
        *_camera_lines(found),
        'state:',
        *(line for item in state for line in _state_lines(item)),
        'action:',
        *_action_lines(state, commands),
        *_episode_lines(found),
        'safety:  # without limits nothing protects the robot: add position, velocity and step',
        '  limits: {}',
        '  watchdog_s: 0.3',
        '  fallback: hold',
    ]
    return '\n'.join(lines) + '\n'


def _numbers(
    bag: BagReader, index: dict[str, TopicIndex], found: dict[str, Any]
) -> tuple[list[_Numbers], list[_Numbers]]:
    """Sort the topics of numbers into states and plausible commands."""
    state: list[_Numbers] = []
    commands: list[_Numbers] = []
    for topic, entry in found['topics'].items():
        if not entry['decodes'] or topic not in index or not _writable(topic):
            continue
        # Bare arrays carry no joint names: states rarely travel so, grippers' commands do.
        bare = entry['type'] in _ARRAYS and 'gripper' in topic and 'state' not in topic
        named = bare or _COMMAND.search(topic) is not None
        is_command = entry['type'] == types.JOINT_TRAJECTORY or (
            entry['type'] in _COMMAND_TYPES and named
        )
        if is_command or entry['type'] in _STATE_TYPES:
            numbers = _read(bag, topic, index[topic])
            if numbers is not None:
                # What has no joint names can be seen, by index, but not commanded.
                seen = not is_command or numbers.by_index
                (state if seen else commands).append(numbers)
    if not state and commands:  # only commands were recorded: better than no state at all
        state = [item for item in commands if item.type == types.JOINT_STATE]
    return state, commands


def _read(bag: BagReader, topic: str, index: TopicIndex) -> _Numbers | None:
    """Read a topic at ticks of the guessed rate, held in between."""
    info = bag.topics[topic]
    step = -(-len(index) // MOST_MESSAGES)
    chosen = index.ordinals[::step]
    fields: tuple[str, ...] = ()
    by_index = False
    rows, times = [], []
    log_ns = dict(zip(index.ordinals.tolist(), index.log_ns.tolist(), strict=True))
    for _, _, data, ordinal in bag.fetch(chosen.tolist()):
        try:
            message = deserialize(info, data, topic)
        except QtRosError:
            continue  # told by inspect
        if not fields:
            by_index = info.type == types.JOINT_STATE and not len(message.name)
            fields = _useful(fields_of(message, info.type, by_index))
        if not fields:
            continue
        values = read_fields(message, info.type, fields, by_index)
        if all(value is not None and abs(value) < LARGEST for value in values):
            rows.append(values)
            times.append(log_ns[ordinal])
    if not rows:
        return None
    return _Numbers(topic, info.type, fields, _at_ticks(times, rows), by_index)


def _useful(fields: Sequence[str]) -> tuple[str, ...]:
    """Keep positions where there are any: velocities and efforts rarely help a first policy.

    Damaged messages name a joint twice, or by what is no text.
    """
    fields = [name for name in dict.fromkeys(fields) if name.isprintable()]
    positions = tuple(name for name in fields if name.startswith('position.'))
    return positions or tuple(fields)


def _at_ticks(times_ns: Sequence[int], rows: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
    """Return the newest row at each tick of `RATE_HZ`, (T, n)."""
    order = np.argsort(times_ns, kind='stable')
    times = np.asarray(times_ns, np.int64)[order]
    values = np.asarray(rows, np.float64)[order]
    count = min(int((times[-1] - times[0]) / 1e9 * RATE_HZ) + 1, 10 * MOST_MESSAGES)
    ticks = times[0] + (np.arange(count) * 1e9 / RATE_HZ).astype(np.int64)
    return values[np.searchsorted(times, ticks, side='right') - 1]


def _clock(found: dict[str, Any], used: Sequence[str]) -> tuple[str, str]:
    """Choose the clock: header where all headers tell one time that runs with the log's."""
    offsets = {
        topic: found['topics'][topic]['header_minus_log_ms']['median']
        for topic in used
        if found['topics'][topic]['header_minus_log_ms'] is not None
    }
    if not offsets:
        return 'log', 'no topic has header stamps'
    spread = max(offsets.values()) - min(offsets.values())
    bare = [topic for topic in used if topic not in offsets]
    if spread > AHEAD_MS:
        return 'log', 'guess: header stamps of the topics do not agree with each other'
    if bare and abs(next(iter(offsets.values()))) > AHEAD_MS:
        return 'log', f'guess: headers are far from log time and {bare[0]} has no header'
    return 'header', 'guess: header stamps agree with each other; they tell when it was measured'


def _camera_lines(found: dict[str, Any]) -> list[str]:
    if not any(map(_writable, found['cameras'])):
        return ['# no camera topic was found']
    lines = ['cameras:']
    taken: set[str] = set()
    for topic, (height, width) in found['cameras'].items():
        if not _writable(topic):
            continue
        name = _camera_name(topic, taken)
        taken.add(name)
        lines.append(
            f'  {name}: {{topic: {_topic(topic)}, type: {found["topics"][topic]["type"]},'
            f' size: [{SIDE}, {SIDE}], max_age_s: 0.25}}  # recorded at {width} x {height}'
        )
    return lines


def _camera_name(topic: str, taken: set[str]) -> str:
    """Name a camera by the part of the topic that tells it from others."""
    dull = {'image', 'image_raw', 'image_rect_raw', 'compressed', 'color', 'camera', 'rgb'}
    parts = [part for part in topic.strip('/').split('/') if part not in dull]
    name = _identifier(parts[-1] if parts else 'camera')
    unique, number = name, 2
    while unique in taken:
        unique, number = f'{name}_{number}', number + 1
    return unique


def _state_lines(item: _Numbers) -> list[str]:
    by_index = '    by_index: true  # the message names no joints\n' if item.by_index else ''
    return (
        f'  - topic: {_topic(item.topic)}\n'
        f'    type: {item.type}\n'
        f'{by_index}'
        f'    fields: [{", ".join(map(_quoted, item.fields))}]\n'
        '    max_age_s: 0.25'
    ).split('\n')


def _action_lines(state: Sequence[_Numbers], commands: Sequence[_Numbers]) -> list[str]:
    """Take commands that were recorded; where there are none, derive them from the next state."""
    lines: list[str] = []
    taken: set[str] = set()
    measured = {field for item in state for field in item.fields}
    for item in commands:
        lines += [
            f'  - topic: {_topic(item.topic)}  # guess: its name or type says command',
            f'    type: {item.type}',
            '    dims:  # low and high: 1st and 99th percentile (of the change per tick)',
        ]
        lines += _dim_lines(item, taken, measured)
    if lines:
        return lines
    item = state[0]
    return [
        '  - from: next_state  # no command topic was found: the action is where the joints go',
        '    dims:  # low and high: 1st and 99th percentile (of the change per tick)',
        *_dim_lines(item, taken, measured),
    ]


def _dim_lines(item: _Numbers, taken: set[str], measured: set[str]) -> list[str]:
    """Write one dimension per field: a delta where the state measures what it starts from."""
    twist = item.type in (types.TWIST, types.TWIST_STAMPED)
    lines = []
    for column, field in enumerate(item.fields):
        values = item.values[:, column]
        if twist:
            mode, numbers = 'velocity', values
        elif field in measured or f'position.{field}' in measured:
            mode, numbers = 'delta', np.diff(values)
        else:
            mode, numbers = 'absolute', values
        low, high, note = _range(numbers, mode)
        name = _identifier(field.split('.', 1)[-1] if field.startswith('position.') else field)
        if name in taken or not name.strip('_0123456789'):
            name = _identifier(f'{item.topic.rsplit("/", 1)[-1]}_{name.strip("_")}')
        while name in taken:
            name += '_'
        taken.add(name)
        lines.append(
            f'      - {{name: {name}, field: {_quoted(field)}, mode: {mode}, low: {low:.6g},'
            f' high: {high:.6g}, bins: {BINS}}}{note}'
        )
    return lines


def _range(values: NDArray[np.float64], mode: str) -> tuple[float, float, str]:
    """Return low, high and a comment; a dimension that never moved gets a range all the same."""
    values = values[np.isfinite(values)]
    if not len(values):
        return -0.1, 0.1, '  # guess: one message tells no range'
    low, high = (float(each) for each in np.percentile(values, (1, 99)))
    note = f'  # measured {low:.3g} to {high:.3g}'
    moved = high - low if mode == 'absolute' else max(abs(low), abs(high))
    shown = float(f'{low:.4g}'), float(f'{high:.4g}')
    if moved < 1e-4 or (mode == 'absolute' and shown[0] >= shown[1]):
        middle = 0.0 if mode != 'absolute' else shown[0]
        reach = max(0.01, abs(middle) / 1000)
        return middle - reach, middle + reach, f'{note}: it hardly moved, leave it out?'
    if mode == 'absolute':
        return *shown, note
    # A symmetric range with an odd number of bins has one that means "stay".
    reach = float(f'{max(abs(low), abs(high)):.3g}')
    return -reach, reach, note


def _episode_lines(found: dict[str, Any]) -> list[str]:
    for topic, entry in found['topics'].items():
        if entry['type'] == types.EPISODE_EVENT and _writable(topic):
            return [f'episodes: {{events: {_topic(topic)}}}']
    return ['episodes: one_per_bag  # guess: no episode events; or {time_gap: SECONDS}']


def _writable(topic: str) -> bool:
    """Return False for names that no ROS topic has: they come from damaged recordings."""
    return re.fullmatch(r'/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*', topic, re.ASCII) is not None


def _topic(name: str) -> str:
    return _quoted(name if name.startswith('/') else f'/{name}')


def _quoted(text: str) -> str:
    """Quote what YAML would not read as this very string."""
    if re.fullmatch(r'[A-Za-z/_][A-Za-z0-9_/.\-]*', text):
        return text
    escaped = text.replace('\\', '\\\\').replace('"', '\\"')
    return f'"{escaped}"'


def _identifier(text: str) -> str:
    name = re.sub(r'[^A-Za-z0-9_]+', '_', text).strip('_') or 'unnamed'
    return f'_{name}' if name[0].isdigit() else name
