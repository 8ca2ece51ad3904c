"""The contract: which topics a policy sees, which fields it commands, and within which limits.

One contract serves the bag converter, the training cache, the checkpoint and the live node. It is
written as YAML (`config/robots/`), read once, and never changes: everything here is frozen. Two
contracts with the same content have the same `hash`, whatever their comments and layout.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from qt_ros.errors import ContractError
from qt_ros.message_types import EPISODE_EVENT
from qt_ros.small_files import read_small

CLOCKS = ('header', 'log')
MODES = ('absolute', 'delta', 'velocity')
SOURCES = ('command', 'next_state')
FALLBACKS = ('hold', 'zero', 'none')
EPISODE_MODES = ('events', 'one_per_bag', 'time_gap')
TERMINATE = 'terminate'


@dataclass(frozen=True)
class Camera:
    """One image stream."""

    name: str
    topic: str
    type: str
    size: tuple[int, int]  # (height, width) [px] that images are resized to
    max_age_s: float = 0.25  # an older image is still used, but marked invalid
    crop: tuple[int, int, int, int] | None = None  # (top, left, height, width) [px], cut out first
    depth_m: tuple[float, float] | None = None  # depth images: (near, far) [m] become grey 1..255

    @property
    def stream(self) -> str:
        """Name of the stream that carries this camera."""
        return self.name


@dataclass(frozen=True)
class StateStream:
    """Some numbers of one topic, in the order of `fields`."""

    name: str
    topic: str
    type: str
    fields: tuple[str, ...]  # as written for the type, e.g. 'position.waist'
    max_age_s: float = 0.25
    by_index: bool = False  # JointState without names: fields are 'position.0', ...

    @property
    def stream(self) -> str:
        """Name of this stream."""
        return self.name


@dataclass(frozen=True)
class ActionDim:
    """One dimension of the action: a number that the policy chooses among `bins` values."""

    name: str
    field: str
    mode: str  # absolute | delta (from the last commanded value) | velocity
    low: float
    high: float
    bins: int
    unit: str = ''
    base: str = ''  # state field that measures it, where that is not position.FIELD


@dataclass(frozen=True)
class ActionTopic:
    """Dimensions that travel in one command message, or are derived from the next state.

    Goals of an action cannot be recorded, so what is commanded by one is told on a topic beside
    it: `topic` is then ACTION/sent and `type` the type of the `command` in the goal.
    """

    topic: str | None
    type: str | None
    source: str = 'command'  # command | next_state (then topic and type are None)
    dims: tuple[ActionDim, ...] = ()
    by_index: bool = False  # JointState without names: fields are 'position.0', ...
    frame_id: str = ''  # of the header of stamped commands
    max_effort: float | None = None  # sent along with every gripper command
    action: str = ''  # ROS action that takes each new command as its goal; `topic` tells all
    action_type: str = ''


@dataclass(frozen=True)
class JointLimit:
    """What the limiter allows for one dimension; None: no limit of that kind."""

    position: tuple[float, float] | None = None  # range of the commanded value
    velocity: float | None = None  # largest change per second
    step: float | None = None  # largest change from one command to the next
    acceleration: float | None = None  # largest change of that speed per second


@dataclass(frozen=True)
class Safety:
    """Limits by name of dimension, and what to do when decisions stop coming."""

    limits: Mapping[str, JointLimit] = field(default_factory=dict, hash=False)
    watchdog_s: float = 0.3
    fallback: str = 'hold'  # hold | zero | none
    ramp_s: float = 0.0  # an episode's first commands grow to their full size in this time
    # {state field: (low, high)}: where the robot must be for an episode to begin
    start: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Episodes:
    """How a recording is cut into episodes."""

    mode: str = 'events'  # events | one_per_bag | time_gap
    topic: str | None = None  # of the EpisodeEvent messages, for events
    gap_s: float | None = None  # silence that ends an episode, for time_gap


@dataclass(frozen=True)
class Contract:
    """Everything that a robot, its recordings, a dataset and a policy have to agree on."""

    name: str
    rate_hz: float
    clock: str  # header | log: one clock for a whole bag
    cameras: tuple[Camera, ...]
    state: tuple[StateStream, ...]
    action: tuple[ActionTopic, ...]
    terminate_bins: int | None
    episodes: Episodes
    safety: Safety
    max_gap_s: float = 1.0  # a stream that is silent for longer cuts the episode

    @property
    def period_ns(self) -> int:
        """Time between two ticks [ns], rounded; use `tick_ns` for the time of a tick."""
        return round(Fraction(10**9) / Fraction(self.rate_hz))

    def tick_ns(self, t0_ns: int, k: int) -> int:
        """Return the time of tick `k` [ns]: t0 + k / rate, rounded once, so errors never add up.

        At 30 Hz from 0: 0, 33333333, 66666667, 100000000.
        """
        return int(t0_ns) + round(Fraction(int(k) * 10**9) / Fraction(self.rate_hz))

    @property
    def action_dims(self) -> tuple[ActionDim, ...]:
        """The dimensions that are commanded, in order: `dims` without terminate."""
        return tuple(dim for topic in self.action for dim in topic.dims)

    @property
    def dims(self) -> tuple[ActionDim, ...]:
        """Every dimension the policy decides, in order; terminate last where declared."""
        if self.terminate_bins is None:
            return self.action_dims
        end = ActionDim(TERMINATE, TERMINATE, 'absolute', 0.0, 1.0, self.terminate_bins)
        return (*self.action_dims, end)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the entries of the state vector, 'STREAM.FIELD', (S,)."""
        return tuple(f'{s.name}.{name}' for s in self.state for name in s.fields)

    @property
    def observed(self) -> tuple[Camera | StateStream, ...]:
        """All observation streams: cameras, then state."""
        return (*self.cameras, *self.state)

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of all observation streams: cameras, then state."""
        return tuple(item.stream for item in self.observed)

    @property
    def topics(self) -> dict[str, str]:
        """{topic: type} of everything that a recording needs: observations, commands, events."""
        found = {item.topic: item.type for item in self.observed}
        for action in self.action:
            if action.topic is not None and action.type is not None:
                found[action.topic] = action.type
        if self.episodes.topic is not None:
            found[self.episodes.topic] = EPISODE_EVENT
        return found

    def state_index(self, name: str) -> int | None:
        """Return where 'STREAM.FIELD' or 'FIELD' stands in the state vector, None if nowhere.

        A bare FIELD that several streams hold means the first of them in the contract.
        """
        names = self.state_names
        if name in names:
            return names.index(name)
        bare = [item for stream in self.state for item in stream.fields]
        return bare.index(name) if name in bare else None

    def base_index(self, dim: ActionDim) -> int | None:
        """Return where the state measures what `dim` commands, None where it does not.

        `base` where the contract gives one, else the state field 'position.FIELD', else FIELD
        itself (Cartesian commands); never FIELD where that is only an index.
        """
        if dim.base:
            return self.state_index(dim.base)
        if any(topic.by_index and dim in topic.dims for topic in self.action):
            return None
        found = self.state_index(f'position.{dim.field}')
        if found is None and not dim.field.isdigit() and dim.field != 'data':
            found = self.state_index(dim.field)
        return found

    @cached_property
    def hash(self) -> str:
        """sha256 of the content (hex): equal for contracts that differ in comments only."""
        content = self.to_dict()
        # Cameras keep their order in the model; a JSON object would lose it when sorted.
        content['cameras'] = list(content.get('cameras', {}).items())
        plain = _plain(content)
        text = json.dumps(plain, sort_keys=True, separators=(',', ':'), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the contract as plain values under the keys of the YAML file."""
        content: dict[str, Any] = {
            'name': self.name,
            'rate_hz': self.rate_hz,
            'clock': self.clock,
            'max_gap_s': self.max_gap_s,
            'cameras': {camera.name: _camera_dict(camera) for camera in self.cameras},
            'state': [_state_dict(stream) for stream in self.state],
            'action': [_action_dict(action) for action in self.action],
        }
        if self.terminate_bins is not None:
            content['terminate'] = {'bins': self.terminate_bins}
        content['episodes'] = _episodes_value(self.episodes)
        content['safety'] = _safety_dict(self.safety)
        return content

    def to_yaml(self) -> str:
        """Return YAML that `parse` turns into an equal contract."""
        # Escapes only: YAML would read some unicode blanks as line breaks.
        return yaml.safe_dump(self.to_dict(), sort_keys=False, width=4096)

    @classmethod
    def parse(cls, text: str, origin: str = '<text>') -> Contract:
        """Read a contract from YAML text; ContractError lists every problem with its line."""
        from qt_ros.contract_text.parse import parse_contract

        return parse_contract(text, origin)

    @classmethod
    def load(cls, path: str | Path) -> Contract:
        """Read a contract from a file; ContractError lists every problem with its line."""
        try:
            text = read_small(path).decode('utf-8')
        except OSError as error:
            raise ContractError(
                f'{path}: cannot read the contract: {error.strerror}; give the path of a YAML '
                'file such as config/robots/block_arm.yaml'
            ) from error
        except UnicodeDecodeError as error:
            raise ContractError(f'{path}: not UTF-8 text; a contract is a YAML file') from error
        return cls.parse(text, origin=str(path))


def _plain(value: Any) -> Any:
    """Write equal numbers alike (10 and 10.0, 0.0 and -0.0): equal contracts hash alike."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) + 0.0
    return value


def _camera_dict(camera: Camera) -> dict[str, Any]:
    content: dict[str, Any] = {
        'topic': camera.topic,
        'type': camera.type,
        'size': list(camera.size),
        'max_age_s': camera.max_age_s,
    }
    # Only where given: contracts from before these keys keep their hash.
    if camera.crop is not None:
        content['crop'] = list(camera.crop)
    if camera.depth_m is not None:
        content['depth_m'] = list(camera.depth_m)
    return content


def _state_dict(stream: StateStream) -> dict[str, Any]:
    return {
        'name': stream.name,
        'topic': stream.topic,
        'type': stream.type,
        'fields': list(stream.fields),
        'max_age_s': stream.max_age_s,
        'by_index': stream.by_index,
    }


def _action_dict(action: ActionTopic) -> dict[str, Any]:
    if action.source == 'next_state':
        head: dict[str, Any] = {'from': 'next_state'}
    else:
        head = {
            'topic': action.action or action.topic,
            'type': action.action_type or action.type,
        }
    # Only where given: contracts from before these keys keep their hash.
    if action.by_index:
        head['by_index'] = True
    if action.frame_id:
        head['frame_id'] = action.frame_id
    if action.max_effort is not None:
        head['max_effort'] = action.max_effort
    return {**head, 'dims': [_dim_dict(dim) for dim in action.dims]}


def _dim_dict(dim: ActionDim) -> dict[str, Any]:
    content: dict[str, Any] = {
        'name': dim.name,
        'field': dim.field,
        'mode': dim.mode,
        'low': dim.low,
        'high': dim.high,
        'bins': dim.bins,
    }
    if dim.unit:
        content['unit'] = dim.unit
    if dim.base:
        content['base'] = dim.base
    return content


def _limit_dict(limit: JointLimit) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if limit.position is not None:
        content['position'] = list(limit.position)
    if limit.velocity is not None:
        content['velocity'] = limit.velocity
    if limit.step is not None:
        content['step'] = limit.step
    if limit.acceleration is not None:
        content['acceleration'] = limit.acceleration
    return content


def _safety_dict(safety: Safety) -> dict[str, Any]:
    content: dict[str, Any] = {
        'limits': {name: _limit_dict(limit) for name, limit in safety.limits.items()},
        'watchdog_s': safety.watchdog_s,
        'fallback': safety.fallback,
    }
    # Only where given: contracts from before these keys keep their hash.
    if safety.ramp_s:
        content['ramp_s'] = safety.ramp_s
    if safety.start:
        content['start'] = {name: list(bounds) for name, bounds in safety.start.items()}
    return content


def _episodes_value(episodes: Episodes) -> Any:
    if episodes.mode == 'events':
        return {'events': episodes.topic}
    if episodes.mode == 'time_gap':
        return {'time_gap': episodes.gap_s}
    return episodes.mode
