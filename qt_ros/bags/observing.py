"""The second pass: fetch the messages that ticks use, once each, and decode them.

Numbers first (`read_numbers`), since they decide which rows there are; then the frames of all
cameras together (`BagImages`), so that a chunk of the bag is read and unpacked once for them all.
Messages are forgotten after their last use: memory holds no more than what arrived out of order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.reader import BagReader
from qt_ros.bags.records import Record
from qt_ros.bags.types import deserialize
from qt_ros.contract import Camera, Contract, StateStream
from qt_ros.decoding import LARGEST, decode_image, decode_state
from qt_ros.errors import BagError, QtRosError

NOT_FINITE = 'not a finite number'
Ints = NDArray[np.int64]
Frame = NDArray[np.uint8]


class Unusable(BagError):
    """A message that a tick wants to use but that cannot be: the plan must do without it."""

    def __init__(self, stream: str, ordinal: int, reason: str) -> None:
        super().__init__(f'{stream}: message {ordinal}: {reason}')
        self.stream = stream
        self.ordinal = ordinal
        self.reason = reason


@dataclass(frozen=True)
class Numbers:
    """What to read from the messages of one topic.

    `decode` turns a message into (n,) numbers; where it cannot, `refuse` gets the ordinal and the
    reason, and may raise.
    """

    topic: str  # as the bag names it
    ordinals: Ints  # (N,) in any order, repeated or not
    width: int  # n
    decode: Callable[[Any], NDArray]
    refuse: Callable[[int, QtRosError], None]


def state_numbers(stream: StateStream, topic: str, ordinals: Ints) -> Numbers:
    """Return how to read a state stream; a message that does not serve it raises `Unusable`."""

    def refuse(ordinal: int, error: QtRosError) -> None:
        raise Unusable(stream.stream, ordinal, str(error)) from error

    def decode(message: Any) -> NDArray:
        return finite_state(message, stream)

    return Numbers(topic, ordinals, len(stream.fields), decode, refuse)


def finite_state(message: Any, stream: StateStream) -> NDArray[np.float32]:
    """Decode the fields of a state stream, (n,) as an observation holds them.

    Raises `QtRosError` where the message lacks one, or holds NaN, infinity or more than `LARGEST`.
    """
    decoded = decode_state(message, stream.type, stream.fields, stream.by_index)
    if not (np.abs(decoded) < LARGEST).all():
        raise BagError(NOT_FINITE)
    return decoded.astype(np.float32)


def read_numbers(bag: BagReader, wanted: Sequence[Numbers]) -> list[NDArray[np.float64]]:
    """Read several topics in one pass; return (N, n) of each, NaN where `refuse` came back."""
    queues = [_Queue(each.ordinals) for each in wanted]
    values = [
        np.full((len(queue), each.width), np.nan)
        for queue, each in zip(queues, wanted, strict=True)
    ]
    takers: dict[str, list[int]] = {}
    for number, each in enumerate(wanted):
        takers.setdefault(each.topic, []).append(number)
    for record in bag.fetch(_all_of(queues)):
        message, problem = _message(bag, record)
        for number in takers[record.topic]:
            row = queues[number].take(record.ordinal)
            if row is None:
                continue
            try:
                if problem is not None:
                    raise problem
                values[number][row] = wanted[number].decode(message)
            except QtRosError as exc:
                wanted[number].refuse(record.ordinal, exc)
    for queue in queues:
        queue.check_empty(bag)
    return [rows[queue.place] for rows, queue in zip(values, queues, strict=True)]


class BagImages(Mapping[str, Callable[[], Iterator[Frame]]]):
    """The frames of an episode, {camera: iterator over T frames}, decoded when they are asked for.

    `ordinals` {camera: (T,)} says which message each row shows. The bag is opened anew if it is
    closed. Iterators raise `Unusable` at a frame that does not decode.
    """

    def __init__(
        self, bag: BagReader, cameras: Sequence[Camera], ordinals: Mapping[str, Ints]
    ) -> None:
        self._bag = bag
        self._topics = {camera.name: bag.resolve(camera.topic) or '' for camera in cameras}
        self._cameras = {camera.name: camera for camera in cameras}
        self._ordinals = dict(ordinals)

    def __len__(self) -> int:
        return len(self._cameras)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cameras)

    def __getitem__(self, camera: str) -> Callable[[], Iterator[Frame]]:
        """Return a function that yields the T frames (H, W, 3) uint8 RGB of one camera."""
        self._cameras[camera]
        return lambda: (frame for _, frame in self._read([camera]))

    def together(self) -> Iterator[tuple[str, Frame]]:
        """Yield (camera, frame) of all cameras in one pass, each camera's in the order of rows."""
        yield from self._read(list(self._cameras))

    def _read(self, names: Sequence[str]) -> Iterator[tuple[str, Frame]]:
        if self._bag.storages:
            yield from self._frames(self._bag, names)
            return
        with BagReader(*self._bag.paths) as bag:
            yield from self._frames(bag, names)

    def _frames(self, bag: BagReader, names: Sequence[str]) -> Iterator[tuple[str, Frame]]:
        rows = {name: _Rows(self._ordinals[name]) for name in names}
        for record in bag.fetch(_all_of([each.queue for each in rows.values()])):
            message, problem = _message(bag, record)
            for name, waiting in rows.items():
                if self._topics[name] != record.topic:
                    continue
                index = waiting.queue.take(record.ordinal)
                if index is None:
                    continue
                camera = self._cameras[name]
                try:
                    if problem is not None:
                        raise problem
                    frame = decode_image(message, camera)
                except QtRosError as exc:
                    raise Unusable(camera.stream, record.ordinal, str(exc)) from exc
                for ready in waiting.put(index, frame):
                    yield name, ready
        for waiting in rows.values():
            waiting.queue.check_empty(bag)


def unusable_messages(
    bag: BagReader, contract: Contract, stream: str, ordinals: Iterable[int]
) -> dict[int, str]:
    """Try the messages of one stream; return {ordinal: why it cannot be used}."""
    found: dict[int, str] = {}
    for record in bag.fetch(ordinals):
        message, problem = _message(bag, record)
        try:
            if problem is not None:
                raise problem
            _try(contract, stream, message)
        except QtRosError as exc:
            found[record.ordinal] = str(exc)
    return found


def _try(contract: Contract, stream: str, message: Any) -> None:
    """Raise `QtRosError` if the message does not serve the stream."""
    for camera in contract.cameras:
        if camera.stream == stream:
            decode_image(message, camera)
    for state in contract.state:
        if state.stream == stream:
            finite_state(message, state)


def _message(bag: BagReader, record: Record) -> tuple[Any, BagError | None]:
    try:
        return deserialize(bag.topics[record.topic], record.data, record.topic), None
    except BagError as exc:
        return None, exc


class _Queue:
    """The messages that somebody waits for; a bag hands them out in the order of ordinals.

    `place` (N,) says where each of the N wanted ordinals stands among the different ones.
    """

    def __init__(self, ordinals: Ints) -> None:
        self.ordinals, place = np.unique(ordinals, return_inverse=True)
        self.place = place.reshape(-1)
        self._next = 0

    def __len__(self) -> int:
        return len(self.ordinals)

    def take(self, ordinal: int) -> int | None:
        """Return the place of this message if it is the next one waited for."""
        place = self._next
        if place == len(self.ordinals) or self.ordinals[place] != ordinal:
            return None
        self._next += 1
        return place

    def check_empty(self, bag: BagReader) -> None:
        """Raise `BagError` if the bag did not hand out everything."""
        if self._next < len(self.ordinals):
            raise BagError(
                f'{bag.paths[0]}: messages seen in the first pass are gone in the second'
            )


class _Rows:
    """Frames of one camera on their way from the order of the bag to the order of rows."""

    def __init__(self, ordinals: Ints) -> None:
        self.queue = _Queue(ordinals)
        self._last_row = np.zeros(len(self.queue), np.int64)
        self._last_row[self.queue.place] = np.arange(len(ordinals))
        self._held: dict[int, Frame] = {}
        self._row = 0

    def put(self, index: int, frame: Frame) -> Iterator[Frame]:
        """Take the frame of a message; yield those of the rows that are complete now."""
        self._held[index] = frame
        place = self.queue.place
        while self._row < len(place) and (shown := int(place[self._row])) in self._held:
            yield self._held[shown]
            if self._last_row[shown] == self._row:
                del self._held[shown]
            self._row += 1


def _all_of(queues: Sequence[_Queue]) -> Ints:
    nothing = np.zeros(0, np.int64)
    return np.unique(np.concatenate([nothing, *(queue.ordinals for queue in queues)]))
