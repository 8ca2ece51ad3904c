"""Measure a recording: what it holds, how regular its stamps are, what decodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.findings import FAR_MS, what_looks_wrong
from qt_ros.bags.index import NO_STAMP, TopicIndex, index_bag
from qt_ros.bags.reader import BagReader
from qt_ros.bags.types import deserialize, why_unreadable
from qt_ros.errors import QtRosError
from qt_ros.images.compressed import read_compressed
from qt_ros.images.picture import DEPTH, Picture
from qt_ros.images.raw import read_raw
from qt_ros.message_types import CAMERA_TYPES, IMAGE, JOINT_STATE, JOINT_TRAJECTORY

GAP_FACTOR = 3  # an interval of more than this many medians is a gap ...
GAP_LEAST_NS = 50_000_000  # ... if it is also longer than this
SAMPLES = 3  # messages of each topic that are decoded

Index = Mapping[str, TopicIndex]
Ints = NDArray[np.int64]


def inspect_bag(path: Path | str) -> dict[str, Any]:
    """Return what `qt-ros inspect --json` prints about a recording.

    messages, duration_s [s], storage, topics {name: {type, count, rate_hz, header_minus_log_ms
    {min, median, max} or None, gaps, backwards, zero_stamps, decodes}}, problems (sentences).
    Besides, of the recording: path, partial, cameras {topic: [height, width]}, depth_cameras
    {topic: [near, far] [m] or None}, joints {topic: [names]}; of a topic: encoding,
    repeated_stamps, longest_gap_s.
    Raises `BagError` only if there is nothing to open.
    """
    with BagReader(path) as bag:
        index = index_bag(bag)
        samples = _Samples(bag, index)
        topics = {name: _topic(bag, name, index.get(name)) for name in sorted(bag.topics)}
        for name, entry in topics.items():
            entry['decodes'] = bool(samples.messages.get(name))
        firsts = {name: samples.messages[name][0] for name in topics if topics[name]['decodes']}
        pictures = samples.pictures()
        found = {
            'path': str(path),
            'storage': bag.kind,
            'messages': bag.count,
            'duration_s': _duration_s(index),
            'partial': bag.partial,
            'topics': topics,
            'cameras': {name: [*each.pixels.shape[:2]] for name, each in pictures.items()},
            'depth_cameras': {
                name: _near_far(each) for name, each in pictures.items() if each.kind == DEPTH
            },
            'joints': {
                name: names for name, m in firsts.items() if (names := joint_names(m)) is not None
            },
        }
        breaks = bag.breaks()
        own = [*bag.problems, *samples.problems]
    if breaks and len(bag.paths) == 1:
        own.append(
            f'{", ".join(breaks)}: begins before or long after the file before it ends; these'
            ' files look like recordings of their own: give them one by one'
        )
    found['problems'] = [
        *dict.fromkeys([*own, *what_looks_wrong(found, samples.unreadable, index)])
    ]
    return found


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


def gap_count(stamps_ns: Ints) -> int:
    """Return how many intervals between (N,) stamps [ns] are out of line with the rest.

    Stamps 0, 10, 20, 500, 510 ms: one gap (480 ms against a median of 10 ms).
    """
    return len(gaps_ns(stamps_ns))


def gaps_ns(stamps_ns: Ints) -> Ints:
    """Return the intervals between (N,) stamps that are out of line with the rest, (G,) [ns]."""
    intervals = np.diff(np.sort(stamps_ns))
    intervals = intervals[intervals > 0]
    if len(intervals) < 2:
        return intervals[:0]
    return intervals[intervals > max(GAP_FACTOR * float(np.median(intervals)), GAP_LEAST_NS)]


class _Samples:
    """A few messages of each topic, decoded: the first, the last, one in the middle.

    unreadable: {topic: why none of its messages can be decoded}
    """

    def __init__(self, bag: BagReader, index: Index) -> None:
        self.problems: list[str] = []
        self.messages: dict[str, list[Any]] = {}
        self.unreadable = {
            name: reason for name, info in bag.topics.items() if (reason := why_unreadable(info))
        }
        self._kinds = {name: info.type for name, info in bag.topics.items()}
        places: list[int] = []
        for name, each in index.items():
            if name not in self.unreadable:
                at = np.linspace(0, len(each) - 1, SAMPLES).astype(int)
                places += [int(ordinal) for ordinal in each.ordinals[np.unique(at)]]
        for topic, _, data, _ in bag.fetch(places):
            try:
                message = deserialize(bag.topics[topic], data, topic)
            except QtRosError as exc:
                self.problems.append(str(exc))
                continue
            self.messages.setdefault(topic, []).append(message)

    def pictures(self) -> dict[str, Picture]:
        """Return a decoded image of each camera; images that do not decode go to the problems."""
        found: dict[str, Picture] = {}
        for name in sorted(self.messages):
            kind = self._kinds[name]
            for message in self.messages[name] if kind in CAMERA_TYPES else ():
                read = read_raw if kind == IMAGE else read_compressed
                try:
                    found.setdefault(name, read(message, False))
                except QtRosError as exc:
                    self.problems.append(f'{name}: an image does not decode: {exc}')
        return found


def _topic(bag: BagReader, name: str, index: TopicIndex | None) -> dict[str, Any]:
    info = bag.topics[name]
    entry: dict[str, Any] = {
        'type': info.type,
        'count': info.count,
        'rate_hz': None,
        'header_minus_log_ms': None,
        'gaps': 0,
        'backwards': 0,
        'zero_stamps': 0,
        'decodes': False,
        'encoding': info.encoding,
        'repeated_stamps': 0,
        'longest_gap_s': None,
    }
    if index is None:
        return entry
    stamped = index.stamped
    if stamped.any():
        offset_ms = (index.header_ns[stamped] - index.log_ns[stamped]) / 1e6
        low, middle, high = np.percentile(offset_ms, (0, 50, 100))
        entry['header_minus_log_ms'] = {
            'min': round(float(low), 3),
            'median': round(float(middle), 3),
            'max': round(float(high), 3),
        }
        far = abs(middle) > FAR_MS
        # On another clock than the log's, the log time cannot stand in for a missing stamp.
        stamps = index.header_ns[stamped] if far else index.stamps_ns('header')
        entry['repeated_stamps'] = int((np.diff(np.sort(index.header_ns[stamped])) == 0).sum())
    else:
        stamps = index.log_ns
    spans_ns = [int(times.max()) - int(times.min()) for times in (index.log_ns, stamps)]
    span_ns = spans_ns[0] or spans_ns[1]
    if len(index) > 1 and span_ns > 0:
        entry['rate_hz'] = round((len(index) - 1) / span_ns * 1e9, 3)
    gaps = gaps_ns(stamps)
    entry['gaps'] = len(gaps)
    entry['longest_gap_s'] = round(int(gaps.max()) / 1e9, 3) if len(gaps) else None
    entry['backwards'] = int((np.diff(stamps) < 0).sum())
    entry['zero_stamps'] = int((index.header_ns[index.header_ns != NO_STAMP] == 0).sum())
    return entry


def _near_far(picture: Picture) -> list[float] | None:
    """Return between which depths nearly all of an image lies [m], None if it shows none."""
    known = picture.pixels[np.isfinite(picture.pixels) & (picture.pixels > 0)]
    if not known.size:
        return None
    near, far = (float(f'{each:.2g}') for each in np.percentile(known, (1, 99)))
    return [near, far] if near < far else None


def _duration_s(index: Index) -> float:
    """Return the time between the first and the last message [s], by log time."""
    if not index:
        return 0.0
    low = min(int(each.log_ns.min()) for each in index.values())
    high = max(int(each.log_ns.max()) for each in index.values())
    return (high - low) / 1e9
