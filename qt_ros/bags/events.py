"""Decode the messages that describe episodes: EpisodeEvent and PolicyStep."""

from __future__ import annotations

from typing import Any

from qt_ros.bags.segments import Event
from qt_ros.bags.sources import BagSources
from qt_ros.bags.ticks import Step
from qt_ros.bags.types import deserialize
from qt_ros.errors import BagError

DECLARED = ('step', 'tick', 'streams', 'stream_stamps', 'stream_valid')
TEXTS = ('episode_id', 'instruction', 'outcome', 'source', 'policy_id')


def read_events(sources: BagSources, problems: list[str]) -> list[tuple[int, Event]]:
    """Return (ordinal, event) of the bag in recorded order; damaged ones are reported."""
    topic = sources.names.get(sources.contract.episodes.topic or '')
    if topic is None or topic not in sources.index:
        return []
    index = sources.index[topic]
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
    return events


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
    index = sources.index.get(topic)
    if index is None:
        return
    info = sources.bag.topics[topic]
    for _, _, data, ordinal in sources.bag.fetch(index.ordinals.tolist()):
        try:
            yield ordinal, deserialize(info, data, topic)
        except BagError as exc:
            problems.append(str(exc))
