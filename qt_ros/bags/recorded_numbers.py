"""The numbers that a topic held during a recording, at the ticks of a contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros import message_types as types
from qt_ros.bags.index import TopicIndex
from qt_ros.bags.reader import BagReader
from qt_ros.bags.types import deserialize
from qt_ros.decoding import LARGEST, fields_of, read_fields
from qt_ros.errors import QtRosError

MOST_TICKS = 12_000  # that are looked at: a long recording is looked at in several places
_PLACES = 12
_LEAST_SHARE = 0.05  # of a topic's messages must hold the same fields for these to be told

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Numbers:
    """What a topic held: fields, and their values at ticks, (T, n).

    `values` are held between messages; a row of NaN separates places of a long recording, so that
    differences of rows never reach across. `share` of the topic's messages hold these fields.
    """

    topic: str
    type: str
    fields: tuple[str, ...]
    values: Floats
    share: float = 1.0
    by_index: bool = False

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the joints, in order; () where the message names none."""
        if self.by_index or self.type not in (types.JOINT_STATE, types.JOINT_TRAJECTORY):
            return ()
        if self.type == types.JOINT_TRAJECTORY:
            return self.fields
        return tuple(dict.fromkeys(field.partition('.')[2] for field in self.fields))


def read_numbers(bag: BagReader, topic: str, index: TopicIndex, rate_hz: float) -> list[Numbers]:
    """Return what a topic held at ticks, once for each set of fields that its messages hold.

    Some robots publish the joints of arm and gripper in messages of their own on one topic; those
    with the most fields come first.
    """
    info = bag.topics[topic]
    order = np.argsort(index.log_ns, kind='stable')
    log_ns, ordinals = index.log_ns[order], index.ordinals[order]
    ticks = _ticks(int(log_ns[0]), int(log_ns[-1]), rate_hz)
    # The message of each tick and the one after it: two parts of a robot take turns.
    at = np.searchsorted(log_ns, ticks, side='right') - 1
    chosen = np.unique(np.concatenate([at, np.minimum(at + 1, len(log_ns) - 1)]))
    times = dict(zip(ordinals[chosen].tolist(), log_ns[chosen].tolist(), strict=True))
    rows: dict[tuple[str, ...], tuple[list[int], list[list[float]]]] = {}
    nameless: set[tuple[str, ...]] = set()
    for _, _, data, ordinal in bag.fetch(times):
        try:
            message = deserialize(info, data, topic)
            fields, values, by_index = _read(message, info.type)
        except QtRosError:
            continue  # told by inspect
        if not fields or not all(abs(value) < LARGEST for value in values):
            continue
        if by_index:
            nameless.add(fields)
        stamps, kept = rows.setdefault(fields, ([], []))
        stamps.append(times[ordinal])
        kept.append(values)
    total = sum(len(stamps) for stamps, _ in rows.values())
    return [
        Numbers(
            topic,
            info.type,
            fields,
            _hold(stamps, kept, ticks),
            len(stamps) / total,
            fields in nameless,
        )
        for fields, (stamps, kept) in sorted(rows.items(), key=lambda item: -len(item[0]))
        if len(stamps) >= _LEAST_SHARE * total
    ]


def _read(message: Any, kind: str) -> tuple[tuple[str, ...], list[float], bool]:
    """Return the useful fields, their values, and whether they are told by index."""
    names = types.unwrap(message, kind)[0].name if kind in types.JOINT_STATES else ()
    by_index = kind in types.JOINT_STATES and not len(names)
    fields = _useful(fields_of(message, kind, by_index))
    values = read_fields(message, kind, fields, by_index)
    return fields, [np.nan if value is None else value for value in values], by_index


def _ticks(first_ns: int, last_ns: int, rate_hz: float) -> Ints:
    """Return times of ticks [ns]; those of a long recording lie in `_PLACES` places."""
    period_ns = 1e9 / rate_hz
    count = min(int((last_ns - first_ns) / period_ns) + 1, 1 << 40)
    if count <= MOST_TICKS:
        numbers = np.arange(count)
    else:
        starts = np.linspace(0, count - MOST_TICKS // _PLACES, _PLACES).astype(np.int64)
        numbers = (starts[:, None] + np.arange(MOST_TICKS // _PLACES)).ravel()
        numbers = np.unique(numbers)
    return first_ns + np.rint(numbers * period_ns).astype(np.int64)


def _hold(stamps: Sequence[int], rows: Sequence[Sequence[float]], ticks: Ints) -> Floats:
    """Return the newest row at each tick, (T, n), a row of NaN where ticks leave out a time."""
    order = np.argsort(stamps, kind='stable')
    times = np.asarray(stamps, np.int64)[order]
    values = np.asarray(rows, np.float64)[order]
    ticks = ticks[ticks >= times[0]]
    if not len(ticks):
        return values[-1:]
    held = values[np.searchsorted(times, ticks, side='right') - 1]
    steps = np.diff(ticks)
    breaks = np.flatnonzero(steps > 1.5 * np.median(steps)) + 1 if len(steps) else steps
    return np.insert(held, breaks, np.nan, axis=0)


def _useful(fields: Sequence[str]) -> tuple[str, ...]:
    """Keep positions where there are any: velocities and efforts rarely help a first policy.

    Damaged messages name a joint twice, or by what is no text.
    """
    fields = [name for name in dict.fromkeys(fields) if name.isprintable()]
    positions = tuple(name for name in fields if name.startswith('position.'))
    return positions or tuple(fields)
