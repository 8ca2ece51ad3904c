"""Account for every message of a bag: used by a row, or passed over for a stated reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

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


@dataclass
class Ledger:
    """What became of the messages of one bag; ordinals are the bag's."""

    used: set[int] = field(default_factory=set)
    at_dropped_ticks: set[int] = field(default_factory=set)
    damaged: dict[int, str] = field(default_factory=dict)  # commands that do not decode
    stored: list[Segment] = field(default_factory=list)
    left_out: list[Segment] = field(default_factory=list)
    converted: list[Segment] = field(default_factory=list)

    def topics(self, sources: BagSources) -> dict[str, dict[str, Any]]:
        """Return {topic: {read, used, skipped: {reason: count}}}; used and skipped add up to read.

        `read` is the number of messages that the storage states.
        """
        wanted = {*sources.names.values(), *sources.step_topics}
        found = {}
        for name, info in sources.bag.topics.items():
            if name not in wanted:
                found[name] = _entry(info.count, 0, {NOT_IN_CONTRACT: info.count})
                continue
            reasons = self._reasons(sources, name)
            used = reasons.pop('', 0)
            missing = info.count - used - sum(reasons.values())
            if missing > 0:
                reasons[UNREADABLE] = missing
            found[name] = _entry(used + sum(reasons.values()), used, reasons)
        return found

    def _reasons(self, sources: BagSources, topic: str) -> Counter[str]:
        """Count the messages of a topic by reason; '' is for those that were used."""
        index = sources.index.get(topic)
        if index is None:
            return Counter()
        excluded = dict(self.damaged)
        for stream, ordinals in sources.excluded.items():
            if sources.topic_of(stream) == topic:
                excluded.update(ordinals)
        stamps = index.stamps_ns(sources.contract.clock)
        kept = set(sources.times(topic)[1].tolist())
        spans = (
            (STORED, _inside(stamps, self.stored)),
            (LEFT_OUT, _inside(stamps, self.left_out)),
            (NOT_NEWEST, _inside(stamps, self.converted)),
        )
        counts: Counter[str] = Counter()
        for row, ordinal in enumerate(index.ordinals.tolist()):
            if ordinal in self.used:
                reason = ''
            elif ordinal in excluded:
                reason = _short(excluded[ordinal])
            elif ordinal not in kept:
                reason = DUPLICATE
            elif ordinal in self.at_dropped_ticks:
                reason = DROPPED
            else:
                reason = next((text for text, inside in spans if inside[row]), OUTSIDE)
            counts[reason] += 1
        return counts


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


def _inside(stamps: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
    """Return (N,) True where a stamp lies within one of the segments."""
    inside = np.zeros(len(stamps), bool)
    for segment in segments:
        inside |= (stamps >= segment.start_ns) & (stamps <= segment.stop_ns)
    return inside


def _short(reason: str) -> str:
    """Keep the part of a reason that does not differ from message to message."""
    return reason.split(';')[0].split(': message ')[0]
