"""Put into words what looks wrong with a recording: one sentence for topics that share a fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qt_ros.bags.clocks import span
from qt_ros.bags.index import TopicIndex
from qt_ros.message_types import CAMERA_TYPES, JOINT_STATE

FAR_MS = 1_000.0  # header stamps further than this from the log time are told
DRIFT_MS = 200.0
SIMULATION_NS = 3 * 10**17  # stamps before mid 1979 count from the start of something
IRREGULAR = 0.1  # a topic with gaps in more than this share of its intervals has no rate
FEW = 10  # messages, of which no rate can be told
_NAMED = 6  # topics in one sentence

Entries = Mapping[str, Mapping[str, Any]]


def what_looks_wrong(
    found: Mapping[str, Any], unreadable: Mapping[str, str], index: Mapping[str, TopicIndex]
) -> list[str]:
    """Return sentences about a recording as `inspect_bag` measured it.

    `unreadable` {topic: why its messages cannot be decoded}.
    """
    topics: Entries = found['topics']
    problems = _unreadable(topics, unreadable)
    problems += _clocks({name: topics[name] for name in index}, index)
    problems += _drifts(topics, index)
    problems += _stamps(topics)
    problems += _gaps(topics)
    if not found['messages']:
        problems.append('the recording holds no messages')
    elif not any(entry['decodes'] for entry in topics.values()):
        problems.append('none of its messages can be decoded, so it cannot be converted')
    return problems


def listed(names: Sequence[str]) -> str:
    """Name a few things in a sentence.

    >>> listed(['/a', '/b', '/c'])
    '/a, /b and /c'
    """
    shown = list(names[:_NAMED])
    if len(names) > _NAMED:
        shown.append(f'{len(names) - _NAMED} more')
    return ' and '.join([', '.join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _unreadable(topics: Entries, unreadable: Mapping[str, str]) -> list[str]:
    """Tell which topics cannot be decoded, and why; services and actions are no fault."""
    by_reason: dict[str, list[str]] = {}
    for name in sorted(unreadable):
        kind = topics[name]['type']
        if topics[name]['count'] and '/srv/' not in kind and '/action/' not in kind:
            by_reason.setdefault(unreadable[name], []).append(name)
    return [f'{listed(names)}: {reason}' for reason, names in by_reason.items()]


def _clocks(topics: Entries, index: Mapping[str, TopicIndex]) -> list[str]:
    """Compare header stamps with log times: which clock tells the truth for the whole bag?"""
    offsets = {
        name: float(entry['header_minus_log_ms']['median'])
        for name, entry in topics.items()
        if entry['header_minus_log_ms'] is not None
    }
    apart = bool(offsets) and max(offsets.values()) - min(offsets.values()) > FAR_MS
    simulated = [
        name
        for name, ms in offsets.items()
        if ms < -FAR_MS and _last_ns(index[name]) < SIMULATION_NS
    ]
    found = []
    if simulated:
        low = min(int(_stamps_ns(index[name]).min()) for name in simulated) / 1e9
        high = max(_last_ns(index[name]) for name in simulated) / 1e9
        agree = len(simulated) == len(offsets) and not apart
        hint = 'use clock: header' if agree else 'other stamps do not agree: use clock: log'
        found.append(
            f'{listed(sorted(simulated))}: header stamps are simulation time,'
            f' {low:.2f} to {high:.2f} s: {hint}'
        )
    for side, sign in (('ahead of', 1), ('behind', -1)):
        far = [n for n, ms in offsets.items() if ms * sign > FAR_MS and n not in simulated]
        if far:
            sizes = sorted(span(abs(offsets[name])) for name in far)
            by_size = sorted(far, key=lambda name: abs(offsets[name]))
            low_ms, high_ms = abs(offsets[by_size[0]]), abs(offsets[by_size[-1]])
            size = (
                sizes[0]
                if high_ms - low_ms < 0.05 * high_ms
                else (f'{span(low_ms)} to {span(high_ms)}')
            )
            found.append(
                f'{listed(sorted(far))}: header stamps are {size} {side} log time: use clock: log'
            )
    return found


def _drifts(topics: Entries, index: Mapping[str, TopicIndex]) -> list[str]:
    """Tell of header stamps that run at another speed than log time, or wander against it."""
    drifting: dict[str, float] = {}
    jumping: dict[str, float] = {}
    for name, each in index.items():
        stamped = each.stamped
        if stamped.sum() < FEW:
            continue
        ahead_ms = (each.header_ns[stamped] - each.log_ns[stamped]) / 1e6
        tenth = max(len(ahead_ms) // 10, 3)
        drift_ms = float(np.median(ahead_ms[-tenth:]) - np.median(ahead_ms[:tenth]))
        low, high = np.percentile(ahead_ms, (1, 99))
        if abs(drift_ms) > DRIFT_MS:
            drifting[name] = drift_ms
        elif high - low > DRIFT_MS:
            jumping[name] = float(high - low)
    found = []
    for sign, word in ((1, 'gain on'), (-1, 'fall behind')):
        names = [name for name, ms in drifting.items() if ms * sign > 0]
        if names:
            most = max(abs(drifting[name]) for name in names)
            found.append(
                f'{listed(sorted(names))}: header stamps {word} log time by {span(most)} during'
                ' the recording'
            )
    if jumping:
        found.append(
            f'{listed(sorted(jumping))}: header stamps and log time differ by up to'
            f' {span(max(jumping.values()))} more at some times than at others'
        )
    return found


def _stamps(topics: Entries) -> list[str]:
    found = []
    for name, entry in topics.items():
        if entry['zero_stamps']:
            found.append(
                f'{name}: {entry["zero_stamps"]} of {entry["count"]} header stamps are zero; their'
                ' log time counts instead'
            )
        if entry['backwards']:
            often = '; perhaps several nodes publish on it' if _often(entry, 'backwards') else ''
            times = 'once' if entry['backwards'] == 1 else f'{entry["backwards"]} times'
            found.append(f'{name}: stamps go backwards {times}{often}')
        if entry['repeated_stamps'] and entry['type'] in (*CAMERA_TYPES, JOINT_STATE):
            found.append(
                f'{name}: {entry["repeated_stamps"]} messages have the stamp of another one; of'
                ' equal stamps the later message counts'
            )
    return found


def _gaps(topics: Entries) -> list[str]:
    """Tell of gaps in streams that have a rate; commands, logs and events come as they come."""
    irregular, found = [], []
    for name, entry in topics.items():
        if not entry['gaps'] or entry['count'] < FEW:
            continue
        if entry['type'] not in (*CAMERA_TYPES, JOINT_STATE) and not entry['header_minus_log_ms']:
            continue
        if _often(entry, 'gaps'):
            irregular.append(name)
            continue
        gaps = 'a gap' if entry['gaps'] == 1 else f'{entry["gaps"]} gaps, the longest'
        found.append(
            f'{name}: {gaps} of {entry["longest_gap_s"]:.3g} s: messages were lost or not sent'
        )
    if irregular:
        found.append(f'{listed(irregular)}: comes irregularly')
    return found


def _often(entry: Mapping[str, Any], key: str) -> bool:
    return bool(entry[key] > IRREGULAR * entry['count'])


def _stamps_ns(index: TopicIndex) -> Any:
    return index.header_ns[index.stamped]


def _last_ns(index: TopicIndex) -> int:
    return int(_stamps_ns(index).max())
