"""Account for every message of a bag: used by a row, or passed over for a stated reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.segments import Segment
from qt_ros.bags.sources import BagSources

NOT_IN_CONTRACT = 'not in the contract'
UNREADABLE = 'unreadable in the storage'
NOT_CONVERTED = 'the recording was not converted'
DUPLICATE = 'same stamp as a later message'
OUTSIDE = 'outside every episode'
STORED = 'episode is in the dataset already'
LEFT_OUT = 'episode left out'
DROPPED = 'only at ticks that were left out'
NOT_NEWEST = 'not the newest at any tick'

_BLOCK = 1 << 16  # messages looked at in one go
Ints = NDArray[np.int64]


class Ledger:
    """What became of the messages of one bag; ordinals are the bag's. 8 bytes a used message."""

    def __init__(self, sources: BagSources) -> None:
        self.damaged: dict[int, str] = {}  # commands that do not decode
        self.stored: list[Segment] = []
        self.left_out: list[Segment] = []
        self.converted: list[Segment] = []
        self._sources = sources
        self._used: list[Ints] = []
        self._dropped: list[Ints] = []

    def use(self, ordinals: Ints) -> None:
        """Note that rows, or their bounds, come from these messages."""
        self._used.append(np.unique(ordinals))

    def drop(self, ordinals: Ints) -> None:
        """Note that ticks which were left out would have used these messages."""
        if len(ordinals):
            self._dropped.append(np.unique(ordinals))

    def topics(self) -> dict[str, dict[str, Any]]:
        """Return {topic: {read, used, skipped: {reason: count}}}; used and skipped add up to read.

        `read` is the number of messages that the storage states.
        """
        sources = self._sources
        wanted = {*sources.names.values(), *sources.step_topics}
        found = {}
        for name, info in sources.bag.topics.items():
            if name not in wanted:
                found[name] = _entry(info.count, 0, {NOT_IN_CONTRACT: info.count})
                continue
            reasons = self._reasons(name)
            used = reasons.pop('', 0)
            missing = info.count - used - sum(reasons.values())
            if missing > 0:
                reasons[UNREADABLE] = missing
            found[name] = _entry(used + sum(reasons.values()), used, reasons)
        return found

    def _reasons(self, topic: str) -> Counter[str]:
        """Count the messages of a topic by reason; '' is for those that were used."""
        counts: Counter[str] = Counter()
        found = self._sources.arrivals.get(topic)
        if found is None:
            return counts
        self._used, self._dropped = [_together(self._used)], [_together(self._dropped)]
        excluded = {**self.damaged, **self._sources.excluded_of(topic)}
        for start in range(0, len(found.ordinals), _BLOCK):
            block = slice(start, start + _BLOCK)
            self._count(found.stamps_ns[block], found.ordinals[block], excluded, '', counts)
        self._count(found.repeated_ns, found.repeated, excluded, DUPLICATE, counts)
        return counts

    def _count(
        self,
        stamps: Ints,
        ordinals: Ints,
        excluded: dict[int, str],
        duplicate: str,
        counts: Counter[str],
    ) -> None:
        """Count some messages by the first reason that applies; `duplicate`: they all are one."""
        left = np.ones(len(ordinals), bool)

        def count(reason: str, applies: NDArray[np.bool_]) -> None:
            counts[reason] += int(np.count_nonzero(left & applies))
            left[applies] = False

        count('', _is_among(ordinals, self._used[0]))
        if excluded:
            for row in np.flatnonzero(left & np.isin(ordinals, list(excluded))).tolist():
                counts[_short(excluded[int(ordinals[row])])] += 1
                left[row] = False
        if duplicate:
            count(duplicate, left.copy())
        count(DROPPED, _is_among(ordinals, self._dropped[0]))
        for reason, segments in (
            (STORED, self.stored),
            (LEFT_OUT, self.left_out),
            (NOT_NEWEST, self.converted),
        ):
            count(reason, _inside(stamps, segments))
        count(OUTSIDE, left.copy())


def nothing_used(topics: dict[str, Any], reason: str = NOT_CONVERTED) -> dict[str, dict[str, Any]]:
    """Return the account of a bag of which nothing was converted; `topics` is the reader's."""
    return {name: _entry(info.count, 0, {reason: info.count}) for name, info in topics.items()}


def add_up(accounts: Iterable[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Add up the accounts of several bags."""
    found: dict[str, dict[str, Any]] = {}
    for account in accounts:
        for name, entry in account.items():
            total = found.setdefault(name, _entry(0, 0, {}))
            total['read'] += entry['read']
            total['used'] += entry['used']
            for reason, count in entry['skipped'].items():
                total['skipped'][reason] = total['skipped'].get(reason, 0) + count
    return found


def _entry(read: int, used: int, skipped: dict[str, int]) -> dict[str, Any]:
    return {
        'read': read,
        'used': used,
        'skipped': {reason: count for reason, count in sorted(skipped.items()) if count},
    }


def _together(parts: Sequence[Ints]) -> Ints:
    return np.unique(np.concatenate([np.zeros(0, np.int64), *parts]))


def _is_among(values: Ints, known: Ints) -> NDArray[np.bool_]:
    """Return (N,) whether each value is one of the `known` ones, which rise."""
    if not len(known):
        return np.zeros(len(values), bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values


def _inside(stamps: Ints, segments: Sequence[Segment]) -> NDArray[np.bool_]:
    """Return (N,) True where a stamp lies within one of the segments."""
    if not segments:
        return np.zeros(len(stamps), bool)
    bounds = np.array(sorted((each.start_ns, each.stop_ns) for each in segments), np.int64)
    begun = np.searchsorted(bounds[:, 0], stamps, side='right')  # how many segments before it
    latest = np.concatenate([[np.iinfo(np.int64).min], np.maximum.accumulate(bounds[:, 1])])
    return stamps <= latest[begun]


def _short(reason: str) -> str:
    """Keep the part of a reason that does not differ from message to message."""
    return reason.split(';')[0].split(': message ')[0]
