"""Decode the messages that describe episodes: EpisodeEvent and PolicyStep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.index import index_bag
from qt_ros.bags.segments import Event
from qt_ros.bags.sources import BagSources
from qt_ros.bags.ticks import Step
from qt_ros.bags.types import deserialize
from qt_ros.errors import BagError

DECLARED = ('step', 'tick', 'streams', 'stream_stamps', 'stream_valid')
TEXTS = ('episode_id', 'instruction', 'outcome', 'source', 'policy_id')
FAR_NS = (
    10_000_000_000  # an event so far from all data was stamped by another clock, or not at all
)
NEAR = 25  # samples that say how far the contract's clock is from the recorder's


def read_events(sources: BagSources, problems: list[str]) -> list[tuple[int, Event]]:
    """Return (ordinal, event) of the bag in recorded order; damaged ones are reported.

    An event whose stamp lies far outside of the data, though it was recorded among them, is placed
    where it was recorded: zero stamps, another machine's clock, wall time in a simulation.
    """
    topic = sources.names.get(sources.contract.episodes.topic or '')
    if topic is None or topic not in sources.telling:
        return []
    index = sources.telling[topic]
    stamps = dict(
        zip(
            index.ordinals.tolist(),
            index.stamps_ns(sources.contract.clock).tolist(),
            strict=True,
        )
    )
    events = []
    for ordinal, message in _messages(sources, topic, problems):
        # Recordings from before a field was added do not have it.
        texts = [str(getattr(message, name, '')) for name in TEXTS]
        if hasattr(message, 'kind'):
            events.append((ordinal, Event(stamps[ordinal], int(message.kind), *texts)))
        else:
            problems.append(f'{topic}: an event without kind was ignored')
    logs = dict(zip(index.ordinals.tolist(), index.log_ns.tolist(), strict=True))
    return _placed(sources, events, logs, problems)


def first_message_ns(sources: BagSources) -> int:
    """Return the time of the bag's first message on the contract's clock [ns].

    Other topics than the contract's count too, as in the duration that tools show for a recording.
    """
    recorded = RecordedTimes(sources)
    first = next(iter(sources.bag.messages()), None)
    log_ns = int(recorded.log_ns.min())
    log_ns = log_ns if first is None else min(log_ns, first.log_ns)
    return recorded.expected_ns(-1, log_ns)


class RecordedTimes:
    """What the samples of a bag tell about log time and the contract's clock, as recorded.

    ordinals, stamps_ns, log_ns: (N,) of all usable samples of all streams, in recorded order.
    """

    def __init__(self, sources: BagSources) -> None:
        parts = []
        times = sources.stream_times()
        # Log times are not kept, for they are hardly ever asked for.
        read = index_bag(sources.bag, {sources.topic_of(stream) for stream in times})
        for stream, (stamps, ordinals) in times.items():
            index = read[sources.topic_of(stream)]
            order = np.argsort(index.ordinals)
            at = order[np.searchsorted(index.ordinals, ordinals, sorter=order)]
            parts.append(np.stack([ordinals, stamps, index.log_ns[at]]))
        columns: NDArray[np.int64] = np.concatenate(parts, axis=1)
        columns = columns[:, np.argsort(columns[0], kind='stable')]
        self.ordinals, self.stamps_ns, self.log_ns = columns

    def expected_ns(self, ordinal: int, log_ns: int) -> int:
        """Return the time on the contract's clock at which that message was recorded."""
        at = int(np.searchsorted(self.ordinals, ordinal))
        low = min(max(at - NEAR // 2, 0), max(len(self.ordinals) - NEAR, 0))
        near = slice(low, low + NEAR)
        ahead_ns = np.sort(self.stamps_ns[near] - self.log_ns[near])
        # The middle one of some, so that a single odd stamp does not move an episode.
        return log_ns + int(ahead_ns[len(ahead_ns) // 2])


def _placed(
    sources: BagSources,
    events: list[tuple[int, Event]],
    log_ns: dict[int, int],
    problems: list[str],
) -> list[tuple[int, Event]]:
    bounds = [(stamps[0], stamps[-1]) for stamps, _ in sources.stream_times().values()]
    low, high = int(min(first for first, _ in bounds)), int(max(last for _, last in bounds))
    recorded: RecordedTimes | None = None  # takes memory and is hardly ever needed
    found, moved = [], 0
    for ordinal, event in events:
        if not low - FAR_NS <= event.stamp_ns <= high + FAR_NS:
            recorded = recorded or RecordedTimes(sources)
            expected = recorded.expected_ns(ordinal, log_ns[ordinal])
            if abs(event.stamp_ns - expected) > FAR_NS:
                event, moved = replace(event, stamp_ns=expected), moved + 1
        found.append((ordinal, event))
    if moved:
        problems.append(
            f'{moved} of {len(events)} episode events are stamped more than {FAR_NS / 1e9:g} s'
            ' away from all data; they are placed where they were recorded'
        )
    return found


def read_steps(sources: BagSources, problems: list[str]) -> list[tuple[str, int, Step]]:
    """Return (episode id, ordinal, step) of every PolicyStep that declares a tick."""
    found = []
    for topic in sources.step_topics:
        for ordinal, message in _messages(sources, topic, problems):
            step = _step(message)
            if step is None:
                problems.append(f'{topic}: a PolicyStep without tick or stamps was ignored')
            else:
                found.append((str(getattr(message, 'episode_id', '')), ordinal, step))
    return found


def _step(message: Any) -> Step | None:
    """Return what a PolicyStep declares, None if it lacks the tick or the samples."""
    if not all(hasattr(message, name) for name in DECLARED):
        return None
    tick_ns = _time_ns(message.tick)
    names = list(message.streams)
    if tick_ns <= 0 or not len(names) == len(message.stream_stamps) == len(message.stream_valid):
        return None
    dims = list(getattr(message, 'dims', ()))
    requested = [float(value) for value in getattr(message, 'requested', ())]
    return Step(
        number=int(message.step),
        tick_ns=tick_ns,
        stamps_ns=dict(zip(names, map(_time_ns, message.stream_stamps), strict=True)),
        valid=dict(zip(names, map(bool, message.stream_valid), strict=True)),
        requested=dict(zip(dims, requested, strict=True)) if len(dims) == len(requested) else {},
        late=bool(getattr(message, 'late', False)),
        command_ns=_time_ns(message.command_stamp) if hasattr(message, 'command_stamp') else 0,
    )


def _time_ns(time: Any) -> int:
    return int(time.sec) * 10**9 + int(time.nanosec)


def _messages(sources: BagSources, topic: str, problems: list[str]):
    """Yield (ordinal, message) of a topic; damaged ones are reported, not raised."""
    index = sources.telling.get(topic)
    if index is None:
        return
    info = sources.bag.topics[topic]
    for _, _, data, ordinal in sources.bag.fetch(index.ordinals.tolist()):
        try:
            yield ordinal, deserialize(info, data, topic)
        except BagError as exc:
            problems.append(str(exc))
