"""A first contract for a LeRobot set: names and ranges from the set, topics to be filled in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from qt_ros import message_types as types
from qt_ros.dataset.layout import CONTRACT
from qt_ros.lerobot.errors import EpisodeError, SourceError
from qt_ros.lerobot.info import Feature
from qt_ros.lerobot.mapping import ACTION, STATE
from qt_ros.lerobot.names import identifier, plain
from qt_ros.lerobot.source import Source

MOST_EPISODES = 200  # are looked at for ranges
SIDE = 96  # [px] images are scaled to this height and width
BINS = 129  # odd: one bin is exactly the middle
FILL_IN = '# FILL IN: the topic of your robot'


def suggest_contract(source: Source) -> str:
    """Return the YAML of a contract that fits the set; every guess carries a comment.

    Raises `SourceError` if the set has no state or no action. A set that qt-ros made has its
    contract with it: that one is returned.
    """
    own = source.path / CONTRACT
    if own.is_file():
        return own.read_text(encoding='utf-8')
    state, action = (source.info.features.get(key) for key in (STATE, ACTION))
    problems = [
        f'{source.path} has no vector {key}; it has {", ".join(source.info.features)}'
        for key, each in ((STATE, state), (ACTION, action))
        if each is None or not each.is_vector
    ]
    if state is None or action is None or problems:
        raise SourceError(problems)
    name = identifier(source.info.robot_type or source.path.name)
    lines = [
        f'# A first contract, guessed from {source.path.name}. Read every line, and fill in the',
        '# topics before a robot runs by it; importing needs the names and ranges only.',
        f'name: {name}',
        f'rate_hz: {source.info.fps:g}  # that of the set: one row for each of its frames',
        'clock: header',
        'max_gap_s: 1.0  # a longer silence of a stream cuts the episode',
        *_camera_lines(list(source.info.cameras.values())),
        *_state_lines(state),
        *_action_lines(source, state, action),
        'episodes: one_per_bag  # of recordings; the episodes of a set are taken as they are',
        'safety:  # without limits nothing protects the robot: add position, velocity and step',
        '  limits: {}',
        '  watchdog_s: 0.3',
        '  fallback: hold',
    ]
    return '\n'.join(lines) + '\n'


def _camera_lines(cameras: Sequence[Feature]) -> list[str]:
    if not cameras:
        return ['# the set has no cameras']
    lines = ['cameras:']
    for camera in cameras:
        name = identifier(camera.short)
        size = 'x'.join(map(str, camera.shape))
        depth = ', depth_m: [0.2, 2.2]' if camera.depth else ''
        kind = types.IMAGE if camera.depth else types.COMPRESSED_IMAGE
        guess = '; guess: depth from 0.2 to 2.2 m' if camera.depth else ''
        lines.append(
            f'  {name}: {{topic: /{name}/image, type: {kind}, size: [{SIDE}, {SIDE}]{depth},'
            f' max_age_s: 0.25}}  {FILL_IN}; recorded as {size}{guess}'
        )
    return lines


def _state_lines(state: Feature) -> list[str]:
    fields = ', '.join(_quoted(field) for field in _fields(state))
    return [
        'state:',
        '  - name: joints',
        f'    topic: /joint_states  {FILL_IN}',
        f'    type: {types.JOINT_STATE}',
        f'    fields: [{fields}]' + _unnamed(state),
        '    max_age_s: 0.25',
    ]


def _fields(state: Feature) -> list[str]:
    """Return the fields of a JointState, 'position.JOINT', for the entries of the state."""
    return ['.'.join((plain(name)[0], _joint(name))) for name in state.names]


def _joint(name: str) -> str:
    """Return the joint in the set's own letters: 'Waist' for 'Waist.pos'."""
    joint = plain(name)[1]
    start = name.casefold().find(joint)
    return name[start : start + len(joint)]


def _unnamed(feature: Feature) -> str:
    if feature.named:
        return ''
    return f'  # the set names nothing: {feature.names[0]} is the first of {feature.key}'


def _action_lines(source: Source, state: Feature, action: Feature) -> list[str]:
    """Return positions as one trajectory and velocities as one array."""
    measured = set(_fields(state))
    velocities = [plain(name)[0] == 'velocity' for name in action.names]
    ranges = _Ranges(source, action)
    taken: set[str] = set()
    lines = ['action:']
    for velocity, topic, kind in (
        (False, '/arm_controller/joint_trajectory', types.JOINT_TRAJECTORY),
        (True, '/velocity_controller/commands', types.FLOAT64_ARRAY),
    ):
        columns = [at for at, found in enumerate(velocities) if found == velocity]
        if not columns:
            continue
        lines += [
            f'  - topic: {topic}  {FILL_IN}',
            f'    type: {kind}' + _unnamed(action),
            '    dims:  # low and high: 1st and 99th percentile (of the change from row to row)',
        ]
        for index, at in enumerate(columns):
            name = action.names[at]
            field = str(index) if velocity else _joint(name)
            mode = 'velocity' if velocity else 'absolute'
            if f'position.{field}' in measured and 'gripper' not in field.casefold():
                mode = 'delta'
            low, high, note = ranges.of(at, mode)
            lines.append(
                f'      - {{name: {_dim_name(name, taken)}, field: {_quoted(field)}, mode: {mode},'
                f' low: {low:.6g}, high: {high:.6g}, bins: {BINS}}}{note}'
            )
    return lines


def _dim_name(name: str, taken: set[str]) -> str:
    """Return a name for a dimension by which `mapping` finds the set's column again."""
    found = identifier(_joint(name))
    if found.casefold() in taken | {'terminate'}:
        found = identifier(name)
    taken.add(found.casefold())
    return found


class _Ranges:
    """Percentiles of the set's actions."""

    def __init__(self, source: Source, action: Feature) -> None:
        episodes = list(_read(source, action))
        if not episodes:
            raise SourceError(f'{source.path}: no episode of it can be read')
        self._values = np.concatenate(episodes)
        self._changes = np.concatenate([np.diff(each, axis=0) for each in episodes])

    def of(self, column: int, mode: str) -> tuple[float, float, str]:
        """Return low, high and a comment; what never moved gets a range all the same."""
        values = (self._changes if mode == 'delta' else self._values)[:, column]
        values = values[np.isfinite(values)]
        if not len(values):
            return -0.1, 0.1, '  # guess: too few rows tell no range'
        low, high = (float(each) for each in np.percentile(values, (1, 99)))
        note = f'  # in the set {low:.3g} to {high:.3g}, its own units'
        if mode == 'absolute':
            low, high = float(f'{low:.4g}'), float(f'{high:.4g}')
            if high <= low:
                return low - 0.01, low + 0.01, f'{note}: it hardly moved, leave it out?'
            return low, high, note
        # A symmetric range with an odd number of bins has one that means "stay".
        reach = float(f'{max(abs(low), abs(high)):.3g}')
        if reach < 1e-4:
            return -0.01, 0.01, f'{note}: it hardly moved, leave it out?'
        return -reach, reach, note


def _read(source: Source, action: Feature) -> Iterator[NDArray[np.float64]]:
    """Yield the actions (T, A) of episodes spread over the set; damaged ones are told later."""
    episodes = list(source.episodes.values())
    for episode in episodes[:: -(-len(episodes) // MOST_EPISODES) or 1]:
        try:
            values = source.rows(episode, [action.key])[action.key]
        except EpisodeError:
            continue
        yield values.reshape(len(values), -1).astype(np.float64)


def _quoted(text: str) -> str:
    """Quote for YAML, which reads every JSON string as that string."""
    return json.dumps(text, ensure_ascii=True)
