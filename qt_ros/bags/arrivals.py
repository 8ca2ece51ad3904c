"""When the messages of a topic were, on the contract's clock: all that planning needs to know.

    recorded   ordinal  0   1   2   3      arrivals  stamp   10  12  15     ordinal  0  2  3
               stamp   10  12  12  15      repeated  stamp   12             ordinal  1

16 bytes a message, in the order of stamps. Of equal stamps the later arrival stays, as in
`streams.Stream`; the others are kept aside, for the later one may turn out to be unusable.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.index import TopicIndex
from qt_ros.bags.ticks import Times

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Arrivals:
    """The N messages of a topic that count, and R whose stamp a later one has too.

    stamps_ns, ordinals: (N,), stamps rise. repeated_ns, repeated: (R,) stamps and ordinals.
    backwards: how many arrived with a stamp before the newest so far.
    """

    stamps_ns: Ints
    ordinals: Ints
    repeated_ns: Ints
    repeated: Ints
    backwards: int

    @classmethod
    def of(cls, index: TopicIndex, clock: str) -> Arrivals:
        """Put the messages of an index in order; nothing is copied where they are already."""
        return cls._sorted(index.stamps_ns(clock), index.ordinals)

    @classmethod
    def _sorted(cls, stamps: Ints, ordinals: Ints) -> Arrivals:
        """Return the arrivals of messages in the order in which they were recorded."""
        none = np.zeros(0, np.int64)
        if (stamps[1:] > stamps[:-1]).all():
            return cls(stamps, ordinals, none, none, 0)
        backwards = int(np.count_nonzero(stamps[1:] < np.maximum.accumulate(stamps)[:-1]))
        order = np.argsort(stamps, kind='stable')
        stamps, ordinals = stamps[order], ordinals[order]
        last = np.append(stamps[1:] != stamps[:-1], True)
        if last.all():
            return cls(stamps, ordinals, none, none, backwards)
        return cls(stamps[last], ordinals[last], stamps[~last], ordinals[~last], backwards)

    @property
    def times(self) -> Times:
        """Stamps that rise, and the ordinals of the messages that carry them."""
        return self.stamps_ns, self.ordinals

    def without(self, left_out: Collection[int]) -> Arrivals:
        """Return what would be if these messages had not been recorded."""
        if not left_out:
            return self
        stamps = np.concatenate([self.stamps_ns, self.repeated_ns])
        ordinals = np.concatenate([self.ordinals, self.repeated])
        recorded = np.argsort(ordinals)
        recorded = recorded[~np.isin(ordinals[recorded], np.fromiter(left_out, np.int64))]
        return self._sorted(stamps[recorded], ordinals[recorded])
