"""Say what a recording holds and what looks wrong in it, in numbers and in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.index import NO_STAMP, TopicIndex, index_bag
from qt_ros.bags.reader import BagReader
from qt_ros.bags.types import deserialize, why_unreadable
from qt_ros.errors import QtRosError
from qt_ros.message_types import CAMERA_TYPES, JOINT_STATE, JOINT_TRAJECTORY

GAP_FACTOR = 3  # an interval of more than this many medians is a gap ...
GAP_LEAST_NS = 50_000_000  # ... if it is also longer than this
AHEAD_MS = 1_000.0  # header stamps further than this from the log time are told
DRIFT_MS = 200.0
IRREGULAR = 0.1  # a topic with gaps in more than this share of its intervals has no rate


def inspect_bag(path: Path | str) -> dict[str, Any]:
    """Return what `qt-ros inspect --json` prints about a recording.

    messages, duration_s [s], storage, topics {name: {type, count, rate_hz, header_minus_log_ms
    {min, median, max} or None, gaps, backwards, zero_stamps, decodes}}, problems (sentences), and
    besides: partial, cameras {topic: [height, width]}, joints {topic: [names]}.
    Raises `BagError` only if there is nothing to open.
    """
    with BagReader(path) as bag:
        index = index_bag(bag)
        firsts = _first_messages(bag, index)
        topics = {
            name: _topic(bag, name, index.get(name), firsts.get(name))
            for name in sorted(bag.topics)
        }
        problems = list(bag.problems)
        for name, entry in topics.items():
            problems += _problems_of(name, entry, index.get(name), firsts.get(name))
        if not bag.count:
            problems.append('the recording holds no messages')
        elif not any(entry['decodes'] for entry in topics.values()):
            problems.append('none of its messages can be decoded, so it cannot be converted')
        return {
            'path': str(path),
            'storage': bag.kind,
            'messages': bag.count,
            'duration_s': _duration_s(index),
            'partial': bag.partial,
            'topics': topics,
            'cameras': {
                name: size for name, m in firsts.items() if (size := _image_size(bag, name, m))
            },
            'joints': {
                name: names for name, m in firsts.items() if (names := joint_names(m)) is not None
            },
            'problems': list(dict.fromkeys(problems)),
        }


def joint_names(message: Any) -> list[str] | None:
    """Return the joints that a message names, None if it is not about joints.

    Unnamed positions (some grippers) are called by their index: '0', '1'.
    """
    kind = getattr(message, '__msgtype__', '')
    if kind == JOINT_TRAJECTORY:
        return list(message.joint_names)
    if kind != JOINT_STATE:
        return None
    return list(message.name) or [str(i) for i in range(len(message.position))]


def gap_count(stamps_ns: NDArray[np.int64]) -> int:
    """Return how many intervals between (N,) stamps [ns] are out of line with the rest.

    Stamps 0, 10, 20, 500, 510 ms: one gap (480 ms against a median of 10 ms).
    """
    intervals = np.diff(np.sort(stamps_ns))
    intervals = intervals[intervals > 0]
    if len(intervals) < 2:
        return 0
    limit = max(GAP_FACTOR * float(np.median(intervals)), GAP_LEAST_NS)
    return int((intervals > limit).sum())


def format_inspection(found: dict[str, Any]) -> str:
    """Return the inspection as a table for people."""
    lines = [
        f'{found["path"]}: {found["messages"]} messages in {found["duration_s"]:.2f} s'
        f' ({found["storage"]}{", partial" if found["partial"] else ""})',
        '',
        f'{"topic":<44} {"type":<38} {"count":>7} {"Hz":>7} {"header-log ms":>14} {"gaps":>5}',
    ]
    for name, entry in found['topics'].items():
        offset = entry['header_minus_log_ms']
        lines.append(
            f'{name:<44} {entry["type"]:<38} {entry["count"]:>7}'
            f' {_number(entry["rate_hz"]):>7}'
            f' {_number(offset["median"] if offset else None):>14} {entry["gaps"]:>5}'
            f'{"" if entry["decodes"] or not entry["count"] else "  not decoded"}'
        )
    for name, size in found['cameras'].items():
        lines.append(f'camera {name}: {size[1]} x {size[0]}')
    for name, joints in found['joints'].items():
        lines.append(f'joints {name}: {", ".join(joints)}')
    lines += ['', *(f'! {problem}' for problem in found['problems'])]
    return '\n'.join(lines).rstrip()


def _topic(
    bag: BagReader, name: str, index: TopicIndex | None, first: Any | None
) -> dict[str, Any]:
    info = bag.topics[name]
    entry: dict[str, Any] = {
        'type': info.type,
        'count': info.count,
        'rate_hz': None,
        'header_minus_log_ms': None,
        'gaps': 0,
        'backwards': 0,
        'zero_stamps': 0,
        'decodes': first is not None,
    }
    if index is None:
        return entry
    stamps = index.stamps_ns('header')
    spans_ns = [int(times.max()) - int(times.min()) for times in (index.log_ns, stamps)]
    span_ns = spans_ns[0] or spans_ns[1]
    if len(index) > 1 and span_ns > 0:
        entry['rate_hz'] = round((len(index) - 1) / span_ns * 1e9, 3)
    headers = index.header_ns[index.header_ns != NO_STAMP]
    usable = (index.header_ns != NO_STAMP) & (index.header_ns != 0)
    if usable.any():
        offset = (index.header_ns[usable] - index.log_ns[usable]) / 1e6
        entry['header_minus_log_ms'] = {
            'min': round(float(offset.min()), 3),
            'median': round(float(np.median(offset)), 3),
            'max': round(float(offset.max()), 3),
        }
    entry['gaps'] = gap_count(stamps)
    entry['backwards'] = int((np.diff(stamps) < 0).sum())
    entry['zero_stamps'] = int((headers == 0).sum())
    return entry


def _problems_of(
    name: str, entry: dict[str, Any], index: TopicIndex | None, first: Any | None
) -> list[str]:
    """Put into words what looks wrong with one topic."""
    found = []
    if entry['zero_stamps'] and index is not None:
        found.append(
            f'{name}: {entry["zero_stamps"]} of {len(index)} header stamps are zero; their log'
            ' time counts instead'
        )
    if entry['backwards']:
        found.append(f'{name}: stamps go backwards {entry["backwards"]} times')
    if entry['gaps'] > IRREGULAR * entry['count']:
        found.append(f'{name}: comes irregularly ({entry["gaps"]} gaps)')
    elif entry['gaps']:
        found.append(f'{name}: {entry["gaps"]} gaps, messages were lost or not sent')
    offset = entry['header_minus_log_ms']
    if offset is None:
        return found
    if abs(offset['median']) > AHEAD_MS:
        side = 'ahead of' if offset['median'] > 0 else 'behind'
        hint = 'use clock: log'
        if offset['median'] < -1e9:
            hint = 'simulation time: use clock: header if every topic has it, else clock: log'
        found.append(
            f'{name}: header stamps are {_span(abs(offset["median"]))} {side} log time: {hint}'
        )
    if offset['max'] - offset['min'] > DRIFT_MS:
        found.append(
            f'{name}: header stamps drift or jump by {_span(offset["max"] - offset["min"])}'
            ' against log time'
        )
    return found


def _first_messages(bag: BagReader, index: dict[str, TopicIndex]) -> dict[str, Any]:
    """Decode the first message of each topic; why one does not decode goes to the problems."""
    found = {}
    for name, info in bag.topics.items():
        reason = why_unreadable(info)
        if reason:
            bag.problems.append(f'{name}: {reason}')
    firsts = [int(each.ordinals[0]) for each in index.values()]
    for topic, _, data, _ in bag.fetch(firsts):
        info = bag.topics[topic]
        if why_unreadable(info):
            continue
        try:
            found[topic] = deserialize(info, data, topic)
        except QtRosError as exc:
            bag.problems.append(str(exc))
    return found


def _image_size(bag: BagReader, topic: str, message: Any) -> list[int] | None:
    """Return [height, width] of an image message, None if it is none or damaged."""
    kind = bag.topics[topic].type
    if kind not in CAMERA_TYPES:
        return None
    if hasattr(message, 'height'):
        return [int(message.height), int(message.width)]
    return encoded_size(message)


def encoded_size(message: Any) -> list[int] | None:
    """Return [height, width] of a CompressedImage."""
    data = bytes(message.data)
    start = data.find(b'\x89PNG') if 'compressedDepth' in str(message.format) else 0
    image = cv2.imdecode(np.frombuffer(data[max(start, 0) :], np.uint8), cv2.IMREAD_UNCHANGED)
    return None if image is None else [int(image.shape[0]), int(image.shape[1])]


def _duration_s(index: dict[str, TopicIndex]) -> float:
    """Return the time between the first and the last message [s], by log time."""
    if not index:
        return 0.0
    low = min(int(each.log_ns.min()) for each in index.values())
    high = max(int(each.log_ns.max()) for each in index.values())
    return (high - low) / 1e9


def _span(ms: float) -> str:
    """Say a length of time in the unit that people use."""
    for limit, factor, unit in (
        (1e3, 1, 'ms'),
        (12e4, 1e3, 's'),
        (72e5, 6e4, 'min'),
        (17e7, 36e5, 'h'),
        (63e9, 864e5, 'days'),
    ):
        if ms < limit:
            return f'{ms / factor:.3g} {unit}'
    return f'{ms / 31557600000:.3g} years'


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.5g}'
