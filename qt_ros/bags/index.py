"""The first pass over a bag: when each message was, without decoding any.

This pass keeps three numbers, 24 bytes, a message; the plan of ticks then selects the messages
that are used, and only those are fetched and decoded. Memory stays small however long the bag and
large its images: of an hour of two cameras at 30 Hz and joints at 200 Hz 16 MB stay (`arrivals`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.header_stamp import peeker
from qt_ros.bags.reader import BagReader
from qt_ros.bags.types import begins_with_header

NO_STAMP = np.iinfo(np.int64).min


@dataclass(frozen=True)
class TopicIndex:
    """Times of the N messages of a topic, in storage order.

    log_ns: (N,) when the recorder received it [ns].
    header_ns: (N,) stamp of its header [ns]; `NO_STAMP` where there is none or it is unreadable.
    ordinals: (N,) which message of the bag it is.
    """

    log_ns: NDArray[np.int64]
    header_ns: NDArray[np.int64]
    ordinals: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ordinals)

    @property
    def stamped(self) -> NDArray[np.bool_]:
        """(N,) whether a message has a header whose stamp is not zero."""
        return (self.header_ns != NO_STAMP) & (self.header_ns != 0)

    def stamps_ns(self, clock: str) -> NDArray[np.int64]:
        """Return (N,) the time of each message on the contract's clock.

        `header`: the header's stamp, the log time where there is no header or its stamp is zero;
        `log`: the log time. The same rule as `observation.stamp_of`.
        """
        if clock == 'log':
            return self.log_ns
        stamped = self.stamped
        return self.header_ns if stamped.all() else np.where(stamped, self.header_ns, self.log_ns)


def index_bag(bag: BagReader, topics: Iterable[str] | None = None) -> dict[str, TopicIndex]:
    """Read the bag once; return the index of each topic (named as in the bag) that has messages.

    `topics` None indexes every topic. Names match with or without leading '/'.
    """
    columns: dict[str, tuple[array, array, array]] = {}
    peek = {}
    for topic, log_ns, data, ordinal in bag.messages(topics):
        column = columns.get(topic)
        if column is None:
            column = columns[topic] = (array('q'), array('q'), array('q'))
            info = bag.topics[topic]
            peek[topic] = peeker(info.encoding if begins_with_header(info) else '')
        stamp = peek[topic](data)
        column[0].append(log_ns)
        column[1].append(NO_STAMP if stamp is None else stamp)
        column[2].append(ordinal)
    return {
        topic: TopicIndex(*(np.frombuffer(values, dtype=np.int64) for values in column))
        for topic, column in columns.items()
    }
