"""Observations at ticks: sample every stream of a contract, then decode.

The live node and the bag converter call the same three functions here, `stamp_of`,
`ObservationSampler.sample` and `build_observation`, so that an observation rebuilt from a
recording equals, bit for bit, the one that the policy saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros.contract import Camera, Contract, StateStream
from qt_ros.decoding import decode_image, decode_state, holds
from qt_ros.streams import Sample, Stream


@dataclass(frozen=True, eq=False)
class Observation:
    """What the policy sees at one tick."""

    t_ns: int
    images: dict[str, NDArray[np.uint8]]  # {camera: (H, W, 3) RGB}
    state: NDArray[np.float32]  # (S,) in the order of contract.state_names
    stamps_ns: dict[str, int]  # {stream: stamp of the sample used}
    valid: dict[str, bool]  # {stream: False if held for too long, or not a finite number}

    @property
    def newest_stamp_ns(self) -> int:
        """Stamp of the newest sample used [ns]."""
        return max(self.stamps_ns.values())


class ObservationSampler:
    """One `Stream` per observation stream of a contract, filled by topic, sampled by time."""

    def __init__(self, contract: Contract, keep_ns: int | None = None) -> None:
        self.streams: dict[str, Stream] = {}
        self.partial: dict[str, int] = {}  # {state stream: messages without all of its fields}
        self._by_topic: dict[str, list[Camera | StateStream]] = {}
        for source in contract.observed:
            stream = Stream(source.stream, round(source.max_age_s * 1e9), keep_ns)
            self.streams[source.stream] = stream
            self._by_topic.setdefault(source.topic, []).append(source)

    def add(self, topic: str, stamp_ns: int, item: Any, message: Any = None) -> None:
        """Put an item into every stream that `topic` feeds; KeyError if it feeds none.

        Arm and gripper drivers often share one /joint_states topic, each with its own joints.
        Given the `message`, a state stream passes over (and counts in `partial`) those that lack
        one of its fields.
        """
        for source in self._by_topic[topic]:
            if message is None or isinstance(source, Camera) or _complete(source, message):
                self.streams[source.stream].add(stamp_ns, item)
            else:
                self.partial[source.stream] = self.partial.get(source.stream, 0) + 1

    def missing(self, t_ns: int) -> tuple[str, ...]:
        """Return the names of streams that have nothing at or before `t_ns`."""
        return tuple(name for name, s in self.streams.items() if s.at(t_ns) is None)

    def sample(self, t_ns: int) -> dict[str, Sample] | None:
        """Return {stream: newest sample at or before `t_ns`}, None while a stream has nothing."""
        found: dict[str, Sample] = {}
        for name, stream in self.streams.items():
            sample = stream.at(t_ns)
            if sample is None:
                return None
            found[name] = sample
        return found

    def sample_at(
        self, stamps_ns: Mapping[str, int], t_ns: int | None = None
    ) -> dict[str, Sample] | None:
        """Return the samples with the declared stamps, None where one of them is not there.

        `stamps_ns` is what a PolicyStep declares that it used, `t_ns` the tick at which ages and
        validity are counted (without it the newest declared stamp).
        """
        if set(stamps_ns) != set(self.streams):
            return None
        at_ns = max(stamps_ns.values()) if t_ns is None else t_ns
        found: dict[str, Sample] = {}
        for name, stream in self.streams.items():
            sample = stream.exactly(stamps_ns[name], at_ns)
            if sample is None:
                return None
            found[name] = sample
        return found


def build_observation(
    contract: Contract,
    t_ns: int,
    samples: Mapping[str, Sample],
    resolve: Callable[[Any], Any] = lambda item: item,
    picture: Callable[[Any, Camera], NDArray[np.uint8]] = decode_image,
) -> Observation:
    """Decode the samples of one tick; `resolve` turns a sample's item into its message.

    `picture` decodes an image message, or knows what `decode_image` made of it.

    A state stream with a NaN or infinite value keeps that value and is marked invalid.
    Raises DecodeError where a message does not hold what the contract names.
    """
    images: dict[str, NDArray[np.uint8]] = {}
    parts: list[NDArray[np.float32]] = []
    valid = {name: sample.valid for name, sample in samples.items()}
    for camera in contract.cameras:
        message = resolve(samples[camera.stream].item)
        images[camera.name] = picture(message, camera)
    for stream in contract.state:
        message = resolve(samples[stream.stream].item)
        decoded = decode_state(message, stream.type, stream.fields, stream.by_index)
        with np.errstate(over='ignore'):
            values = decoded.astype(np.float32)
        if not np.isfinite(values).all():
            valid[stream.stream] = False
        parts.append(values)
    state = np.concatenate([np.zeros(0, np.float32), *parts])
    stamps_ns = {name: sample.stamp_ns for name, sample in samples.items()}
    return Observation(int(t_ns), images, state, stamps_ns, valid)


def _complete(source: StateStream, message: Any) -> bool:
    return holds(message, source.type, source.fields, source.by_index)


def stamp_of(contract: Contract, msg: Any, type: str, receive_ns: int) -> int:
    """Return the time of a message [ns] on the contract's clock.

    The header's stamp where the clock is `header` and the message has one that is not zero; else
    `receive_ns`: the time of arrival when live, the log time in a bag.
    """
    header = getattr(msg, 'header', None) if contract.clock == 'header' else None
    if header is None:
        return int(receive_ns)
    stamp_ns = int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)
    return stamp_ns if stamp_ns != 0 else int(receive_ns)
