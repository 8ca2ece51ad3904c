"""What the PolicySteps of a recording show, episode by episode, and what its cameras saw."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags import BagReader, deserialize
from qt_ros.bags.index import index_bag
from qt_ros.cadence import StepRow, read_messages, row_of
from qt_ros.contract import Camera
from qt_ros.decoding import DecodeError
from qt_ros.errors import BagError
from qt_ros.images.compressed import read_compressed
from qt_ros.images.decoding import fit_picture
from qt_ros.images.raw import read_raw
from qt_ros.message_types import COMPRESSED_IMAGE, IMAGE

EVENT_TYPE = 'q_transformer_ros/msg/EpisodeEvent'
START, STOP, LABEL = 0, 1, 2  # kinds of an EpisodeEvent
WIDTH = 160  # [px] of the frames of a film strip


@dataclass
class DrivenEpisode:
    """The ticks of one episode, in order; lists have an entry for each PolicyStep."""

    bag: Path
    episode_id: str
    rows: list[StepRow] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)  # of the ticks, from the first one on
    q_values: list[NDArray[np.float32]] = field(default_factory=list)  # (bins of all dims,) or ()
    bins: list[NDArray[np.int64]] = field(default_factory=list)  # (A,) chosen, or ()
    counts: tuple[int, ...] = ()  # bins of each dimension
    reasons: list[tuple[str, ...]] = field(default_factory=list)  # why each dimension was limited
    stamps_ns: list[dict[str, int]] = field(default_factory=list)  # stream -> sample that was used
    instruction: str = ''
    outcome: str = ''

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the action dimensions."""
        return next((row.dims for row in self.rows if row.dims), ())

    def add(self, row: StepRow, message: Any) -> None:
        """Take in a tick."""
        start_ns = self.rows[0].tick_ns if self.rows else row.tick_ns
        self.rows.append(row)
        self.times_s.append((row.tick_ns - start_ns) / 1e9)
        self.q_values.append(np.asarray(message.q_values, np.float32))
        self.bins.append(np.asarray(message.bins, np.int64))
        self.counts = tuple(int(count) for count in message.bin_counts) or self.counts
        self.reasons.append(tuple(str(reason) for reason in message.limit_reasons))
        stamps = (stamp.sec * 10**9 + stamp.nanosec for stamp in message.stream_stamps)
        self.stamps_ns.append(dict(zip(map(str, message.streams), stamps, strict=False)))

    def q_of(self, dim: int) -> NDArray[np.float32]:
        """Return Q (T, bins) of a dimension; NaN at ticks without a decision."""
        first, count = sum(self.counts[:dim]), self.counts[dim]
        found = np.full((len(self.rows), count), np.nan, np.float32)
        for tick, values in enumerate(self.q_values):
            if len(values) == sum(self.counts):
                found[tick] = values[first : first + count]
        return found

    def chosen(self, dim: int) -> NDArray[np.float64]:
        """Return the chosen bin (T,) of a dimension; NaN at ticks without a decision."""
        return np.array([float(b[dim]) if len(b) > dim else np.nan for b in self.bins])


def read_episodes(bags: Sequence[Path], problems: list[str]) -> list[DrivenEpisode]:
    """Return the episodes that policies drove in some recordings, in recorded order."""
    found: dict[tuple[str, str], DrivenEpisode] = {}
    for bag in bags:
        for source, message in read_messages(bag, problems):
            row = row_of(message, source)
            key = (source, row.episode_id)
            found.setdefault(key, DrivenEpisode(bag, row.episode_id)).add(row, message)
    episodes = list(found.values())
    for bag in dict.fromkeys(episode.bag for episode in episodes):
        _label([episode for episode in episodes if episode.bag == bag], bag)
    return episodes


def _label(episodes: Sequence[DrivenEpisode], path: Path) -> None:
    """Tell the episodes of a recording what they were asked and how they ended."""
    with BagReader(path) as bag:
        topics = [name for name, info in bag.topics.items() if info.type == EVENT_TYPE]
        for record in bag.messages(topics):
            try:
                event = deserialize(bag.topics[record.topic], record.data, record.topic)
            except BagError:  # the report is about the steps; `qt-ros convert` tells of events
                continue
            for episode in episodes:
                if episode.episode_id == getattr(event, 'episode_id', None):
                    episode.instruction = event.instruction or episode.instruction
                    if event.kind in (STOP, LABEL):
                        episode.outcome = event.outcome or episode.outcome


def film_frames(
    episode: DrivenEpisode, moments: int
) -> tuple[dict[str, NDArray[np.uint8]], float, list[str]]:
    """Return {camera: (M, H, W, 3)} that the policy saw at evenly spaced ticks, how many of them
    there are per second, and in sentences what could not be shown.
    """
    count = min(moments, len(episode.rows))
    ticks = np.unique(np.linspace(0, len(episode.rows) - 1, count).round().astype(int))
    seconds = episode.times_s[ticks[-1]] - episode.times_s[ticks[0]]
    rate_hz = (len(ticks) - 1) / seconds if seconds > 0 else 1.0
    frames: dict[str, NDArray[np.uint8]] = {}
    problems: list[str] = []
    with BagReader(episode.bag) as bag:
        kinds = {name: info.type for name, info in bag.topics.items()}
        images = [name for name, kind in kinds.items() if kind in (IMAGE, COMPRESSED_IMAGE)]
        for topic, index in index_bag(bag, images).items():
            stream = _stream_of(episode, topic, set(index.header_ns.tolist()), frames)
            if stream is None:
                continue
            at = dict(zip(index.header_ns.tolist(), index.ordinals.tolist(), strict=True))
            wanted = [at.get(episode.stamps_ns[tick].get(stream, -1)) for tick in ticks]
            try:
                clip = _fetch(bag, topic, kinds[topic], [o for o in wanted if o is not None])
            except (BagError, DecodeError) as error:
                problems.append(f'{topic}: {error}')
                continue
            if len(clip) == len(ticks):
                frames[stream] = clip
            else:
                problems.append(f'{topic}: images that the policy saw are not in the recording')
    return frames, rate_hz, problems


def _stream_of(
    episode: DrivenEpisode, topic: str, stamps_ns: set[int], taken: Collection[str]
) -> str | None:
    """Return the stream whose samples are the messages of a topic, which have these stamps.

    Cameras that one clock triggers share their stamps: of these the one named in the topic.
    """
    used: dict[str, set[int]] = {}
    for tick in episode.stamps_ns:
        for name, stamp_ns in tick.items():
            used.setdefault(name, set()).add(stamp_ns)
    scores = {
        name: (len(each & stamps_ns) / len(each), name in topic)
        for name, each in used.items()
        if name not in taken
    }
    best = max(scores, key=scores.__getitem__, default=None)
    return best if best is not None and scores[best][0] > 0.5 else None


def _fetch(bag: BagReader, topic: str, kind: str, ordinals: Sequence[int]) -> NDArray[np.uint8]:
    """Return the messages with these ordinals as frames (N, H, W, 3), in the order asked for."""
    found = {}
    for record in bag.fetch(ordinals):
        message = deserialize(bag.topics[topic], record.data, topic)
        picture = (read_raw if kind == IMAGE else read_compressed)(message, False)
        height, width = picture.pixels.shape[:2]
        size = (max(round(WIDTH * height / width), 1), WIDTH)
        found[record.ordinal] = fit_picture(picture, Camera(topic, topic, kind, size))
    return np.array([found[ordinal] for ordinal in ordinals if ordinal in found])
