"""A first contract for a recording: guesses, each with the reason written beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qt_ros import message_types as types
from qt_ros.bags.findings import FEW
from qt_ros.bags.guesses import Guess, guess, guess_clock, writable
from qt_ros.bags.index import index_bag
from qt_ros.bags.inspect import inspect_bag
from qt_ros.bags.reader import BagReader
from qt_ros.bags.suggest_actions import ActionLines
from qt_ros.bags.suggest_text import Names, identifier, quoted, wrapped_list
from qt_ros.contract import Contract
from qt_ros.errors import BagError, ContractError

SIDE = 96  # [px] images are scaled to this height and width
PERIODS_OLD = 3.0  # a sample may be as old as so many periods of its topic
LEAST_AGE_S = 0.25
_ENDINGS = ('compressed', 'compressedDepth')
# Parts of topics that every camera has.
_DULL = {
    'image', 'images', 'image_raw', 'image_rect', 'image_rect_raw', 'image_color', 'compressed',
    'compressedDepth', 'color', 'camera', 'cameras', 'rgb', 'raw', 'depth',
}  # fmt: skip


def suggest_contract(path: Path | str, found: Mapping[str, Any] | None = None) -> str:
    """Return the YAML of a contract that fits the recording; every guess carries a comment.

    `found` is what `inspect_bag` says about it, where that is known already. Raises `BagError` if
    the recording has nothing that could be a state.
    """
    found = inspect_bag(path) if found is None else found
    with BagReader(path) as bag:
        index = index_bag(bag)
        guessed = guess(bag, index, found)
    if not guessed.state:
        raise BagError(
            f'{path}: no topic holds joint states or other numbers that a policy could see; it'
            f' holds: {", ".join(found["topics"]) or "no topics"}'
        )
    cameras = _cameras(found)
    observed = [*cameras, *(item.topic for item in guessed.state)]
    used = [*observed, *(item.topic for item in guessed.commands)]
    clock, why = guess_clock(found, index, used)
    names, actions = Names(), ActionLines(guessed)
    lines = [
        f'# A first contract, guessed from {Path(path).name!r}. Read all of it before you use it.',
        *_warnings(found, observed, guessed),
        f'name: {identifier(Path(path).stem)}',
        f'rate_hz: {guessed.rate_hz}  # guess: {_why_rate(guessed)}',
        f'clock: {clock}  # {why}',
        f'max_gap_s: {_max_gap_s(found, observed)}  # a longer silence cuts the episode',
        *_camera_lines(found, cameras, names),
        *_state_lines(found, guessed, names),
        *actions.lines(),
        *_episode_lines(found),
        *actions.safety_lines(),
        '  watchdog_s: 0.3  # no decision for this long: fall back',
        '  fallback: hold',
    ]
    text = '\n'.join(lines) + '\n'
    try:
        Contract.parse(text, 'the suggestion')
    except ContractError as exc:
        raise BagError(f'{path}: no contract can be suggested: {exc}') from exc
    return text


def _warnings(found: Mapping[str, Any], observed: Sequence[str], guessed: Guess) -> list[str]:
    """Say what keeps this contract from converting this recording."""
    lines = []
    fewest = min(found['topics'][topic]['count'] for topic in observed)
    if fewest < 3 or found['duration_s'] < 3 / guessed.rate_hz:
        lines += [
            '# NOTHING CAN BE CONVERTED from this recording: it is too short for an episode'
            f' ({found["duration_s"]:.2f} s,',
            f'# {fewest} of some messages). Ranges are placeholders; take them from a longer one'
            ' of this robot.',
        ]
    if guessed.only_commands:
        lines += [
            '# No measured joints were recorded: the state shows what was commanded; a policy',
            '# would repeat it. Record the joint states of the robot; name their topic here.',
        ]
    return lines


def _why_rate(guessed: Guess) -> str:
    if guessed.rate_hz >= 10:
        return 'fast enough for most arms; rates are in `qt-ros inspect`'
    return 'the slowest camera keeps up with it'


def _age_s(entry: Mapping[str, Any], share: float = 1.0) -> float:
    """Return how old a sample of a topic may be [s]; `share` of its messages are samples."""
    rate_hz = entry['rate_hz']
    if not rate_hz or entry['count'] < FEW:
        return LEAST_AGE_S
    return max(LEAST_AGE_S, float(f'{PERIODS_OLD / (share * rate_hz):.2g}'))


def _max_gap_s(found: Mapping[str, Any], observed: Sequence[str]) -> float:
    ages = (_age_s(found['topics'][topic]) for topic in observed)
    return max(1.0, *(float(f'{2 * age:.2g}') for age in ages))


def _cameras(found: Mapping[str, Any]) -> list[str]:
    """Return the topics of cameras; of one that was recorded raw and compressed, the latter."""
    topics = [topic for topic in found['cameras'] if writable(topic)]
    return [topic for topic in topics if not {f'{topic}/{e}' for e in _ENDINGS} & set(topics)]


def _camera_lines(found: Mapping[str, Any], cameras: Sequence[str], names: Names) -> list[str]:
    if not cameras:
        return ['# no camera topic was found']
    lines = ['cameras:  # images are squeezed to [height, width]; "crop" cuts out a part first']
    for topic in cameras:
        height, width = found['cameras'][topic]
        entry = found['topics'][topic]
        parts = [part for part in topic.strip('/').split('/') if part not in _DULL]
        name = identifier(parts[-1] if parts else 'camera')
        depth = topic in found['depth_cameras']
        near_far = found['depth_cameras'].get(topic) if depth else None
        lines.append(
            f'  {names.new(f"{name}_depth" if depth else name)}: {{topic: {_topic(topic)},'
            f' type: {entry["type"]}, size: [{SIDE}, {SIDE}],'
            + (f' depth_m: [{near_far[0]:g}, {near_far[1]:g}],' if near_far else '')
            + f' max_age_s: {_age_s(entry)}}}  # recorded at {width} x {height}'
            + ('; near and far [m] are those of its first image' if near_far else '')
        )
    left_out = [topic for topic in found['cameras'] if topic not in cameras and writable(topic)]
    return [*lines, *(f'  # {topic} shows the same, without compression' for topic in left_out)]


def _state_lines(found: Mapping[str, Any], guessed: Guess, names: Names) -> list[str]:
    """Write the state: joints that are commanded first, in the order of the commands."""
    commanded = [joint for item in guessed.commands for joint in item.joints]
    lines = ['state:']
    topics = [item.topic for item in guessed.state]
    for item in guessed.state:
        name = names.new(identifier(item.topic))
        kinds = dict.fromkeys(field.partition('.')[0] for field in item.fields)
        first = [f'{k}.{j}' for k in kinds for j in commanded if f'{k}.{j}' in item.fields]
        rest = [field for field in item.fields if field not in first]
        lines.append(f'  - topic: {_topic(item.topic)}')
        if name != item.topic.strip('/').replace('/', '_') or topics.count(item.topic) > 1:
            lines.append(f'    name: {name}')
        lines.append(f'    type: {item.type}')
        if item.by_index:
            lines.append('    by_index: true  # the message names no joints')
        groups = [
            (first, ''),
            (rest, 'not commanded: keep what helps the policy' if first else ''),
        ]
        lines += wrapped_list('    fields: [', groups)
        lines.append(f'    max_age_s: {_age_s(found["topics"][item.topic], item.share)}')
    return lines


def _episode_lines(found: Mapping[str, Any]) -> list[str]:
    for topic, entry in found['topics'].items():
        if entry['type'] == types.EPISODE_EVENT and writable(topic):
            return [f'episodes: {{events: {_topic(topic)}}}']
    return ['episodes: one_per_bag  # guess: no episode events; or {time_gap: SECONDS}']


def _topic(name: str) -> str:
    return quoted(name if name.startswith('/') else f'/{name}')
