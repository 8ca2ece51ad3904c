"""The second pass: fetch the messages that ticks use, and build observations, tick by tick."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.reader import BagReader
from qt_ros.bags.sources import observation_streams
from qt_ros.bags.ticks import Tick
from qt_ros.bags.types import deserialize
from qt_ros.contract import Camera, Contract
from qt_ros.decoding import decode_image, decode_state
from qt_ros.errors import BagError, QtRosError
from qt_ros.observation import Observation, build_observation

NOT_FINITE = 'not a finite number'


class Unusable(BagError):
    """A message that a tick wants to use but that cannot be: the plan must do without it."""

    def __init__(self, stream: str, ordinal: int, reason: str) -> None:
        super().__init__(f'{stream}: message {ordinal}: {reason}')
        self.stream = stream
        self.ordinal = ordinal
        self.reason = reason


def without_cameras(contract: Contract) -> Contract:
    """Return the contract's state part, for observing vectors only."""
    return replace(contract, cameras=())


def observe(bag: BagReader, contract: Contract, ticks: Sequence[Tick]) -> Iterator[Observation]:
    """Yield the observation of each tick; raise `Unusable` where a message cannot be used.

    Messages are read once, in storage order, and forgotten after their last tick; so memory holds
    no more than what arrived out of order.
    """
    streams = contract.streams
    wanted = [[tick.samples[name].item for name in streams] for tick in ticks]
    last_use = {ordinal: row for row, ordinals in enumerate(wanted) for ordinal in ordinals}
    messages: dict[int, Any] = {}
    row = 0
    for topic, _, data, ordinal in bag.fetch(last_use):
        try:
            messages[ordinal] = deserialize(bag.topics[topic], data, topic)
        except BagError as exc:
            raise Unusable(_stream_of(contract, bag, topic), ordinal, str(exc)) from exc
        while row < len(ticks) and all(each in messages for each in wanted[row]):
            yield _build(contract, ticks[row], messages)
            for each in wanted[row]:
                if last_use[each] == row:
                    messages.pop(each, None)
            row += 1
    if row < len(ticks):
        raise BagError(f'{bag.paths[0]}: messages seen in the first pass are gone in the second')


def unusable_messages(
    bag: BagReader, contract: Contract, stream: str, ordinals: Iterable[int]
) -> dict[int, str]:
    """Try the messages of one stream; return {ordinal: why it cannot be used}."""
    found: dict[int, str] = {}
    for topic, _, data, ordinal in bag.fetch(ordinals):
        try:
            _try(contract, stream, deserialize(bag.topics[topic], data, topic))
        except QtRosError as exc:
            found[ordinal] = str(exc)
    return found


class BagFrames:
    """The frames of one camera of an episode, decoded each time they are asked for.

    `ordinals` (T,) says which message each row shows. The bag is opened anew if it is closed.
    """

    def __init__(self, bag: BagReader, camera: Camera, ordinals: Sequence[int]) -> None:
        self._bag = bag
        self._camera = camera
        self._ordinals = tuple(ordinals)

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield T frames (H, W, 3) uint8 RGB; raise `Unusable` at one that does not decode."""
        if self._bag.storages:
            yield from self._frames(self._bag)
            return
        with BagReader(*self._bag.paths) as bag:
            yield from self._frames(bag)

    def _frames(self, bag: BagReader) -> Iterator[NDArray[np.uint8]]:
        camera, ordinals = self._camera, self._ordinals
        last_use = {ordinal: row for row, ordinal in enumerate(ordinals)}
        held: dict[int, NDArray[np.uint8]] = {}
        row = 0
        for topic, _, data, ordinal in bag.fetch(last_use):
            try:
                message = deserialize(bag.topics[topic], data, topic)
                held[ordinal] = decode_image(message, camera)
            except QtRosError as exc:
                raise Unusable(camera.stream, ordinal, str(exc)) from exc
            while row < len(ordinals) and ordinals[row] in held:
                yield held[ordinals[row]]
                if last_use[ordinals[row]] == row:
                    del held[ordinals[row]]
                row += 1


def _build(contract: Contract, tick: Tick, messages: dict[int, Any]) -> Observation:
    try:
        observation = build_observation(contract, tick.t_ns, tick.samples, messages.__getitem__)
        if np.isfinite(observation.state).all():
            return observation
    except QtRosError:
        pass  # which of the streams it was is found below
    for stream in contract.streams:
        ordinal = tick.samples[stream].item
        try:
            _try(contract, stream, messages[ordinal])
        except QtRosError as exc:
            raise Unusable(stream, ordinal, str(exc)) from exc
    raise BagError(f'the observation at {tick.t_ns} ns cannot be built')


def _try(contract: Contract, stream: str, message: Any) -> None:
    """Raise `QtRosError` if the message does not serve the stream."""
    for camera in contract.cameras:
        if camera.stream == stream:
            decode_image(message, camera)
    for state in contract.state:
        if state.stream == stream:
            values = decode_state(message, state.type, state.fields, state.by_index)
            with np.errstate(over='ignore'):
                finite = np.isfinite(values.astype(np.float32)).all()
            if not finite:
                raise BagError(NOT_FINITE)


def _stream_of(contract: Contract, bag: BagReader, topic: str) -> str:
    for item in observation_streams(contract):
        if bag.resolve(item.topic) == topic:
            return item.stream
    raise BagError(f'{topic} feeds no stream of the contract')
