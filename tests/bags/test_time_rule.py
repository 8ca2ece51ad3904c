"""The rule of ticks, written down once more in the plainest way, against the converter.

Random streams with jitter, drops, late and repeated stamps go through a real bag. Whatever the
converter does to be fast, each row must be what the few lines of `rows_of` say.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_bags import EVENT, JOINTS, MS, T0, Bag, header, make

from qt_ros.bags.episodes import episodes_of
from qt_ros.contract import Contract

TWIST = 'geometry_msgs/msg/TwistStamped'
MAX_AGE_MS = {'/a': 120, '/b': 350}
GAP_MS = 700


@dataclass(frozen=True)
class Sent:
    """A message: its stamp and its number, in the order of arrival."""

    stamp_ns: int
    value: int


def contract(rate: str) -> Contract:
    state = ''.join(
        f'  - {{name: {t[1:]}, topic: {t}, type: {JOINTS}, fields: [position.j],'
        f' max_age_s: {age / 1000}}}\n'
        for t, age in MAX_AGE_MS.items()
    )
    return Contract.parse(
        f'name: rule\nrate_hz: {rate}\nclock: header\nmax_gap_s: {GAP_MS / 1000}\n'
        f'state:\n{state}action:\n  - topic: /speed\n    type: {TWIST}\n    dims:\n'
        '      - {name: v, field: linear.x, mode: velocity, low: 0, high: 9, bins: 2}\n'
        'episodes: {events: /episode/events}\n'
    )


# --- the rule ---------------------------------------------------------------------------------


def newest(sent: list[Sent], t_ns: int) -> Sent | None:
    """The newest stamp at or before t, of equal ones the later arrival."""
    found = None
    for each in sent:
        if each.stamp_ns <= t_ns and (found is None or each.stamp_ns >= found.stamp_ns):
            found = each
    return found


@dataclass(frozen=True)
class Row:
    number: int
    t_ns: int
    samples: dict[str, Sent]
    valid: dict[str, bool]
    action: float


def rows_of(
    streams: dict[str, list[Sent]], commands: list[Sent], stop_ns: int, rate: str
) -> list[list[Row]]:
    """Return the parts of the episode that starts at T0."""

    def tick(k: int) -> int:
        return T0 + round(Fraction(k * 10**9) / Fraction(float(rate)))

    parts: list[list[Row]] = []
    k = 0
    while tick(k) < stop_ns:
        t_ns = tick(k)
        found = {topic: newest(sent, t_ns) for topic, sent in streams.items()}
        k += 1
        if any(f is None or t_ns - f.stamp_ns > GAP_MS * MS for f in found.values()):
            continue
        if not parts or parts[-1][-1].number != k - 2:
            parts.append([])
        samples = {topic: f for topic, f in found.items() if f is not None}
        valid = {t: t_ns - f.stamp_ns <= MAX_AGE_MS[t] * MS for t, f in samples.items()}
        # The newest command since the part began; a velocity starts from 0.
        begin_ns = parts[-1][0].t_ns if parts[-1] else t_ns
        end_ns = min(tick(k), stop_ns)
        since = [c for c in commands if max(begin_ns, T0) <= c.stamp_ns <= end_ns]
        command = newest(since, end_ns)
        parts[-1].append(Row(k - 1, t_ns, samples, valid, command.value if command else 0.0))
    for part in parts:  # the last row needs a command of its own
        end_ns = min(tick(part[-1].number + 1), stop_ns)
        if not any(part[-1].t_ns < c.stamp_ns <= end_ns for c in commands):
            del part[-1]
    return [part for part in parts if part]


# --- random streams ---------------------------------------------------------------------------

STEPS = st.sampled_from([0, 1, 5, 20, 33, 50, 50, 100, 300, 650, 700, 701, 900])
# Stamped before the newest, by jitter or lateness; never far.
BACK = st.sampled_from([0, 0, 0, 0, 7, 40, 120])
EDGE = st.sampled_from([0, 0, 0, 1, -1])  # ns


@st.composite
def stream(draw: st.DrawFn) -> list[Sent]:
    now_ms, sent = draw(st.integers(-300, 300)), []
    for value in range(draw(st.integers(1, 25))):
        now_ms += draw(STEPS)
        stamp_ns = T0 + (now_ms - draw(BACK)) * MS + draw(EDGE)
        sent.append(Sent(stamp_ns, value + 1))
    return sent


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(stream(), stream(), stream(), st.integers(1, 3000), st.sampled_from(['10.0', '7.3', '30']))
def test_the_converter_follows_the_rule(
    a: list[Sent], b: list[Sent], speed: list[Sent], stop_ms: int, rate: str
) -> None:
    bag = Bag()
    log_ns = T0
    queues = {'/a': list(a), '/b': list(b), '/speed': list(speed)}
    while any(queues.values()):  # streams take turns; arrival within each is as drawn
        for topic, queue in queues.items():
            if not queue:
                continue
            sent = queue.pop(0)
            stamp = header(sent.stamp_ns)
            if topic == '/speed':
                kind, message = TWIST, make(TWIST, header=stamp)
                message.twist.linear.x = sent.value
            else:
                kind = JOINTS
                message = make(JOINTS, header=stamp, name=['j'], position=[sent.value])
            bag.add(topic, kind, message, 0)
            log_ns += 1000
            bag.rows[-1] = (log_ns, *bag.rows[-1][1:])
    stop_ns = T0 + stop_ms * MS
    for kind, at_ns in ((0, T0), (1, stop_ns)):
        event = make(EVENT, header=header(at_ns), kind=kind, episode_id='e', outcome='failure')
        bag.add('/episode/events', EVENT, event, 1)
    streams = {'/a': a, '/b': b}
    expected = rows_of(streams, speed, stop_ns, rate)
    with tempfile.TemporaryDirectory() as folder:
        episodes = list(episodes_of(bag.write(Path(folder) / 'bag'), contract(rate)))
    assert [len(each) for each in episodes] == [len(part) for part in expected]
    for episode, part in zip(episodes, expected, strict=True):
        assert episode.start_stamp_ns == part[0].t_ns
        for column, topic in enumerate(streams):
            name = topic[1:]
            values = [row.samples[topic].value for row in part]
            stamps = [row.samples[topic].stamp_ns for row in part]
            assert episode.state[:, column].tolist() == values
            assert episode.stamps_ns[name].tolist() == stamps
            assert episode.valid[name].tolist() == [row.valid[topic] for row in part]
        np.testing.assert_array_equal(episode.action[:, 0], [row.action for row in part])
