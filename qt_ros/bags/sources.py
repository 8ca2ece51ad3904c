"""What a contract finds in a bag: which topics feed it, at which times, and what is unusable."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.arrivals import Arrivals
from qt_ros.bags.clocks import disagreement, place_unstamped
from qt_ros.bags.index import TopicIndex, index_bag
from qt_ros.bags.reader import BagReader
from qt_ros.bags.records import CDR
from qt_ros.bags.ticks import Times, coverage
from qt_ros.bags.types import why_unreadable
from qt_ros.contract import Contract
from qt_ros.errors import BagError

POLICY_STEP = 'q_transformer_ros/msg/PolicyStep'


class BagSources:
    """The messages of a bag that a contract can use.

    `arrivals` {topic: when its messages were}; `telling` is the index of those topics that tell
    about episodes; `span_ns` the first and the last log time [ns].
    `names` {contract's topic: the bag's name for it}; `excluded` {stream: {ordinal: reason}} are
    messages that turned out to be unusable and are passed over as if they had not been recorded.
    """

    def __init__(self, contract: Contract, bag: BagReader) -> None:
        self.contract = contract
        self.bag = bag
        self.names = check_topics(contract, bag)
        self.step_topics = [n for n, info in bag.topics.items() if info.type == POLICY_STEP]
        index = index_bag(bag, [*self.names.values(), *self.step_topics])
        self.excluded: dict[str, dict[int, str]] = {name: {} for name in contract.streams}
        self._topic_of = {s.stream: self.names[s.topic] for s in contract.observed}
        logs = [each.log_ns for each in index.values() if len(each)]
        self.span_ns = (
            min((int(each.min()) for each in logs), default=0),
            max((int(each.max()) for each in logs), default=0),
        )
        self.problems, index = self._on_one_clock(index)
        telling = {self.names.get(contract.episodes.topic or ''), *self.step_topics}
        self.telling = {name: each for name, each in index.items() if name in telling}
        self.arrivals: dict[str, Arrivals] = {}
        for name in list(index):
            self.arrivals[name] = Arrivals.of(index.pop(name), contract.clock)
        feeding = dict.fromkeys(self._topic_of.values())
        silent = [name for name in feeding if name not in self.arrivals]
        if silent:
            raise BagError(_no_messages(bag, silent))

    def _on_one_clock(
        self, index: dict[str, TopicIndex]
    ) -> tuple[list[str], dict[str, TopicIndex]]:
        """Bring every message onto the contract's clock; say what was odd about the clocks."""
        if self.contract.clock == 'log':
            self._by_arrival = set(index)
            return [], index
        self._by_arrival = {name for name, each in index.items() if not each.stamped.any()}
        observed = dict.fromkeys(self._topic_of.values())
        commanded = [self.names.get(action.topic or '', '') for action in self.contract.action]
        apart = disagreement(index, [*observed, *commanded])
        index, placed = place_unstamped(index, [*observed, *commanded])
        return [*apart, *placed], index

    def topic_of(self, stream: str) -> str:
        """Return the bag's name of the topic that feeds a stream."""
        return self._topic_of[stream]

    def excluded_of(self, topic: str) -> dict[int, str]:
        """Return {ordinal: reason} of the unusable messages of a topic."""
        found: dict[int, str] = {}
        for stream, ordinals in self.excluded.items():
            if self._topic_of[stream] == topic:
                found.update(ordinals)
        return found

    def times(self, topic: str, without: Collection[int] = ()) -> Times:
        """Return stamps, rising, and ordinals of a topic; of equal stamps the later arrival's."""
        found = self.arrivals.get(topic)
        if found is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return found.without(without).times

    def by_arrival(self, topic: str) -> bool:
        """Say whether a topic's messages are known by their log times, for want of a header."""
        return topic in self._by_arrival

    def stream_times(self) -> dict[str, Times]:
        """Return the usable samples of each observation stream."""
        return {
            stream: self.times(topic, self.excluded[stream])
            for stream, topic in self._topic_of.items()
        }

    def disorder(self) -> dict[str, dict[str, int]]:
        """Return {stream: {backwards, duplicates}}, counted as `streams.Stream` does live."""
        found = {}
        for stream, topic in self._topic_of.items():
            usable = self.arrivals[topic].without(self.excluded[stream])
            found[stream] = {'backwards': usable.backwards, 'duplicates': len(usable.repeated)}
        return found

    def covered(self) -> NDArray[np.int64]:
        """Return the times at which every stream has a sample within `max_gap_s`, (N, 2) [ns]."""
        stamps = [stamps for stamps, _ in self.stream_times().values()]
        return coverage(stamps, self.contract.max_gap_s)


def check_topics(contract: Contract, bag: BagReader) -> dict[str, str]:
    """Return {contract's topic: the bag's name}; raise `BagError` with everything that is missing.

    A command topic may be missing as long as another one is there: what it would command is held.
    """
    if not bag.count:
        raise BagError('the recording holds no messages; nothing to convert')
    observed = [stream.topic for stream in contract.observed]
    commanded = {a.topic: a.type for a in contract.action if a.topic is not None and a.type}
    names = {topic: bag.resolve(topic) for topic in contract.topics}
    problems = []
    for topic in dict.fromkeys(observed):
        if names[topic] is None:
            problems.append(f'observation topic {topic} is not in the recording')
    if commanded and not any(names[topic] for topic in commanded):
        problems.append(
            f'command topic {" and ".join(commanded)} is not in the recording; if its commands'
            ' were not recorded, derive the action with {from: next_state} in the contract'
        )
    events = contract.episodes.topic
    if events is not None and names[events] is None:
        problems.append(
            f'{events} with the episode events is not in the recording; without events write'
            ' episodes: one_per_bag, or {time_gap: SECONDS}, in the contract, or give the times of'
            ' the episodes in a label file (columns bag, start_s, stop_s, outcome)'
        )
    for topic, kind in contract.topics.items():
        name = names[topic]
        info = bag.topics.get(name) if name else None
        if info is None:
            continue
        reason = why_unreadable(info)
        if reason:
            problems.append(f'{name}: {reason}')
        elif info.type != kind:
            problems.append(f'{name} is {info.type} in the recording, {kind} in the contract')
    if problems:
        foreign = sorted({i.encoding for i in bag.topics.values() if not i.readable})
        if foreign and not any(CDR in text for text in problems):
            problems.append(f'its messages are encoded as {", ".join(foreign)}, expected {CDR}')
        raise BagError([*problems, f'the recording holds: {listing(bag)}'])
    return {topic: name for topic, name in names.items() if name is not None}


def listing(bag: BagReader) -> str:
    """Name the topics of a bag, their types and counts, in one line."""
    return (
        ', '.join(
            f'{name} ({info.type or "?"}, {info.count})'
            for name, info in sorted(bag.topics.items())
        )
        or 'no topics'
    )


def _no_messages(bag: BagReader, silent: list[str]) -> list[str]:
    problems = [f'{name} has no readable messages' for name in silent]
    return [*problems, f'the recording holds: {listing(bag)}']
