"""Turn YAML into a Contract, and find everything that is wrong with it in one go."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qt_ros.contract import (
    CLOCKS,
    EPISODE_MODES,
    FALLBACKS,
    MODES,
    SOURCES,
    TERMINATE,
    ActionDim,
    ActionTopic,
    Camera,
    Contract,
    Episodes,
    JointLimit,
    Safety,
    StateStream,
)
from qt_ros.contract_text.checks import (
    check_fallback,
    check_limit,
    check_start,
    check_state_references,
)
from qt_ros.contract_text.values import (
    bad_name,
    check_complete,
    check_field,
    read_by_index,
    read_crop,
    read_depth_range,
    read_frame_id,
    read_limit,
    read_max_age,
    read_max_effort,
    read_range,
    read_seconds,
    read_size,
)
from qt_ros.contract_text.yaml_reader import Problems, Value, nearest, read_yaml
from qt_ros.message_types import (
    ACTIONS,
    CAMERA_TYPES,
    COMMAND_TYPES,
    EPISODE_EVENT,
    JOINT_TRAJECTORY,
    STATE_TYPES,
    WITHOUT_NUMBERS,
)

_TOPIC = re.compile(r'(/[A-Za-z_][A-Za-z0-9_]*)+')
_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')
_DEFAULT_EVENTS = '/episode/events'
_MAX_BINS = 65535  # PolicyStep carries bins as uint16


def parse_contract(text: str, origin: str = '<text>') -> Contract:
    """Read a contract; ContractError with 'ORIGIN:LINE: KEY: what is wrong; allowed: ...'."""
    problems = Problems(origin)
    contract = _Parser().contract(read_yaml(text, problems))
    problems.raise_if_any()
    return contract


class _Parser:
    """Reads section after section and remembers what was named where, for the cross-checks.

    Values that could not be read stand as '' or 0 and are left out of the cross-checks; the
    contract built from them is never handed out.
    """

    def __init__(self) -> None:
        self._topics: dict[str, tuple[str, Value]] = {}  # topic: (type, where first named)
        self._command_topics: dict[str, Value] = {}
        self._streams: dict[str, Value] = {}
        self._dims: list[tuple[ActionDim, str, Value]] = []  # dim, source, where
        self._dim_names: dict[str, Value] = {}

    def contract(self, root: Value) -> Contract:
        known = ('name', 'rate_hz', 'clock', 'cameras', 'state', 'action', 'terminate',
                 'episodes', 'safety', 'max_gap_s')  # fmt: skip
        keys = root.mapping(known, required=('name', 'rate_hz', 'clock', 'state', 'action'))
        name = self._safe_name(keys['name']) if 'name' in keys else ''
        rate_hz = keys['rate_hz'].number(None, 1000.0, 0.001) if 'rate_hz' in keys else None
        clock = keys['clock'].choice(CLOCKS, 'clock') if 'clock' in keys else None
        gap_s = read_seconds(keys, 'max_gap_s', 1.0)
        contract = Contract(
            name=name,
            rate_hz=rate_hz or 1.0,
            clock=clock or 'header',
            cameras=self._cameras(keys['cameras']) if 'cameras' in keys else (),
            state=self._state(keys['state']) if 'state' in keys else (),
            action=self._action(keys['action']) if 'action' in keys else (),
            terminate_bins=self._terminate(keys['terminate']) if 'terminate' in keys else None,
            episodes=self._episodes(keys.get('episodes')),
            safety=self._safety(keys['safety']) if 'safety' in keys else Safety(),
            max_gap_s=gap_s or 1.0,
        )
        check_state_references(self._dims, contract)
        if 'safety' in keys:
            check_fallback(self._dims, keys['safety'], contract)
            check_start(keys['safety'], contract)
        return contract

    # --- observations -------------------------------------------------------------------------

    def _cameras(self, section: Value) -> tuple[Camera, ...]:
        found = []
        for name, value in section.entries():
            if not _NAME.fullmatch(name):
                value.problem(bad_name('camera', name))
            keys = value.mapping(
                ('topic', 'type', 'size', 'max_age_s', 'crop', 'depth_m'),
                required=('topic', 'type', 'size'),
            )
            self._new_stream(name, value)
            type = self._type(keys, CAMERA_TYPES, 'image')
            found.append(
                Camera(
                    name,
                    self._topic(keys, type, value),
                    type,
                    read_size(keys['size']) if 'size' in keys else (0, 0),
                    read_max_age(keys),
                    read_crop(keys['crop']) if 'crop' in keys else None,
                    read_depth_range(keys['depth_m']) if 'depth_m' in keys else None,
                )
            )
        return tuple(found)

    def _state(self, section: Value) -> tuple[StateStream, ...]:
        known = ('name', 'topic', 'type', 'fields', 'max_age_s', 'by_index')
        found = []
        for value in section.items():
            keys = value.mapping(known, required=('topic', 'type', 'fields'))
            type = self._type(keys, STATE_TYPES, 'state')
            topic = self._topic(keys, type, value)
            if 'name' in keys:
                name = self._safe_name(keys['name'])
            else:
                name = topic.strip('/').replace('/', '_')
            self._new_stream(name, keys.get('name', value))
            by_index = read_by_index(keys, type)
            fields = self._fields(keys['fields'], type, by_index) if 'fields' in keys else ()
            found.append(StateStream(name, topic, type, fields, read_max_age(keys), by_index))
        return tuple(found)

    def _fields(self, section: Value, type: str, by_index: bool) -> tuple[str, ...]:
        found: list[str] = []
        for value in section.items():
            text = value.text()
            if text is None:
                continue
            if text in found:
                value.problem(f'field {text} is listed twice')
            check_field(value, text, type, by_index)
            found.append(text)
        return tuple(found)

    def _new_stream(self, name: str, value: Value) -> None:
        if not name:
            return
        first = self._streams.setdefault(name.lower(), value)
        if first is not value:
            value.problem(
                f'stream {name!r} exists already (line {first.line}); names of cameras and state '
                'streams must differ, give this one a name of its own'
            )

    # --- actions ------------------------------------------------------------------------------

    def _action(self, section: Value) -> tuple[ActionTopic, ...]:
        return tuple(self._action_topic(value) for value in section.items())

    def _action_topic(self, value: Value) -> ActionTopic:
        known = ('topic', 'type', 'from', 'by_index', 'frame_id', 'max_effort', 'dims')
        keys = value.mapping(known, required=('dims',))
        source = (keys['from'].choice(SOURCES, 'source') if 'from' in keys else None) or 'command'
        type = topic = None
        written = action = ''
        by_index = False
        if source == 'next_state':
            for key in ('topic', 'type', 'by_index', 'frame_id', 'max_effort'):
                if key in keys:
                    keys[key].problem('is not used with "from: next_state"; leave it out')
        else:
            for key in ('topic', 'type'):
                if key not in keys:
                    value.problem(
                        f'key {key!r} is missing (recordings without commands: from: next_state)'
                    )
            written = self._type(keys, COMMAND_TYPES, 'command')
            type = ACTIONS.get(written, written)
            by_index = read_by_index(keys, type)
            if written in ACTIONS:
                action = self._topic_text(keys['topic']) if 'topic' in keys else ''
                topic = action and f'{action}/sent'
                self._register(topic, type, value)
            else:
                topic = self._topic(keys, type, value)
            first = self._command_topics.setdefault(topic, value) if topic else value
            if first is not value:
                value.problem(f'{topic} is commanded in line {first.line} too; join their dims')
        dims: list[ActionDim] = []
        for item in keys['dims'].items() if 'dims' in keys else []:
            dim = self._dim(item, type, source, by_index)
            if action and dim.mode == 'velocity':
                item.problem('a goal is no velocity; allowed modes: absolute, delta')
            if dim.field and dim.field in [other.field for other in dims]:
                item.problem(f'field {dim.field!r} is commanded twice')
            dims.append(dim)
        fields = [dim.field for dim in dims if dim.field]
        if type and 'dims' in keys:
            check_complete(keys['dims'], type, fields, by_index)
        return ActionTopic(
            topic,
            type,
            source,
            tuple(dims),
            by_index,
            read_frame_id(keys, type or ''),
            read_max_effort(keys, written, fields),
            action,
            written if action else '',
        )

    def _dim(self, value: Value, type: str | None, source: str, by_index: bool) -> ActionDim:
        keys = value.mapping(
            ('name', 'field', 'mode', 'low', 'high', 'bins', 'unit', 'base'),
            required=('name', 'field', 'low', 'high', 'bins'),
        )
        name = self._dim_name(keys['name']) if 'name' in keys else ''
        field = (keys['field'].text() if 'field' in keys else None) or ''
        if field and source == 'command':
            check_field(keys['field'], field, type or '', by_index)
        mode = (keys['mode'].choice(MODES, 'mode') if 'mode' in keys else 'absolute') or ''
        if mode == 'velocity' and type == JOINT_TRAJECTORY:
            keys['mode'].problem('a JointTrajectory carries positions; allowed: absolute, delta')
        if mode == 'velocity' and source == 'next_state':
            keys['mode'].problem('cannot come from the next state; allowed: absolute, delta')
        low = keys['low'].number() if 'low' in keys else None
        high = keys['high'].number() if 'high' in keys else None
        if low is not None and high is not None and low >= high:
            keys['low'].problem(f'low {low:g} must be smaller than high {high:g}')
        bins = keys['bins'].integer(2, _MAX_BINS) if 'bins' in keys else None
        unit = (keys['unit'].text() if 'unit' in keys else None) or ''
        base = (keys['base'].text() if 'base' in keys else None) or ''
        dim = ActionDim(name, field, mode, low or 0.0, high or 0.0, bins or 2, unit, base)
        self._dims.append((dim, source, value))
        return dim

    def _dim_name(self, value: Value) -> str:
        name = self._safe_name(value)
        if name.lower() == TERMINATE:
            value.problem(f'{TERMINATE!r} is kept for the extra dimension; choose another name')
        if name and self._dim_names.setdefault(name.lower(), value) is not value:
            first = self._dim_names[name.lower()]
            value.problem(f'dimension {name!r} exists already (line {first.line})')
        return name

    def _terminate(self, section: Value) -> int | None:
        keys = section.mapping(('bins',), required=('bins',))
        return keys['bins'].integer(2, _MAX_BINS) if 'bins' in keys else None

    # --- episodes and safety ------------------------------------------------------------------

    def _episodes(self, section: Value | None) -> Episodes:
        if section is None:
            return Episodes('events', topic=_DEFAULT_EVENTS)
        hint = 'allowed: {events: TOPIC}, one_per_bag, {time_gap: SECONDS}'
        if not section.is_mapping:
            text = section.text()
            if text == 'one_per_bag':
                return Episodes('one_per_bag')
            if text == 'events':
                return Episodes('events', topic=_DEFAULT_EVENTS)
            if text is not None:
                section.problem(f'cannot be {text!r}; {hint}{nearest(text, EPISODE_MODES)}')
            return Episodes()
        keys = section.mapping(('events', 'time_gap'))
        if len(keys) != 1:
            section.problem(f'needs exactly one way to cut a recording; {hint}')
            return Episodes()
        if 'time_gap' in keys:
            return Episodes('time_gap', gap_s=read_seconds(keys, 'time_gap', 1.0))
        topic = self._topic_text(keys['events'])
        self._register(topic, EPISODE_EVENT, keys['events'])
        return Episodes('events', topic=topic)

    def _safety(self, section: Value) -> Safety:
        keys = section.mapping(('limits', 'watchdog_s', 'fallback', 'ramp_s', 'start'))
        limits: dict[str, JointLimit] = {}
        for name, value in keys['limits'].entries() if 'limits' in keys else []:
            limits[name] = read_limit(value)
            check_limit(self._dims, name, limits[name], value)
        watchdog_s = read_seconds(keys, 'watchdog_s', 0.3)
        fallback = keys['fallback'].choice(FALLBACKS, 'fallback') if 'fallback' in keys else 'hold'
        ramp_s = keys['ramp_s'].number(at_least=0.0, at_most=60.0) if 'ramp_s' in keys else 0.0
        starts = keys['start'].entries() if 'start' in keys else []
        start = {name: read_range(value) or (0.0, 1.0) for name, value in starts}
        return Safety(limits, watchdog_s, fallback or 'hold', ramp_s or 0.0, start)

    # --- small parts --------------------------------------------------------------------------

    def _safe_name(self, value: Value) -> str:
        text = value.text() or ''
        if text and not _NAME.fullmatch(text):
            value.problem(bad_name('name', text))
            return ''
        return text

    def _type(self, keys: dict[str, Value], allowed: Sequence[str], what: str) -> str:
        if 'type' not in keys:
            return ''
        written = keys['type'].written
        if written in WITHOUT_NUMBERS and written not in allowed:
            keys['type'].problem(WITHOUT_NUMBERS[written])
            return ''
        return keys['type'].choice(allowed, f'{what} message type') or ''

    def _topic(self, keys: dict[str, Value], type: str, section: Value) -> str:
        if 'topic' not in keys:
            return ''
        topic = self._topic_text(keys['topic'])
        self._register(topic, type, keys['topic'])
        return topic

    def _topic_text(self, value: Value) -> str:
        text = value.text() or ''
        if text and not _TOPIC.fullmatch(text):
            value.problem(
                f'{text!r} is not an absolute topic name; allowed: /words/of/letters_digits_and_'
                f'underscores{nearest(text, [f"/{text}"]) if _TOPIC.fullmatch("/" + text) else ""}'
            )
            return ''
        return text

    def _register(self, topic: str, type: str, value: Value) -> None:
        if not topic or not type:
            return
        first_type, first = self._topics.setdefault(topic, (type, value))
        if first_type != type:
            value.problem(
                f'{topic} has type {type} here and {first_type} in line {first.line}; '
                'a topic has one type'
            )
