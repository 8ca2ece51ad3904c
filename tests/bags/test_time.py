"""Exactness of time, by streams whose right answer is worked out beside them. ms after T0."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bags import ARRAY, EVENT, JOINTS, MS, T0, Bag, header, make

from qt_ros.bags.episodes import BagConversion
from qt_ros.bags.reader import BagReader
from qt_ros.contract import Contract
from qt_ros.episode import Episode
from qt_ros.errors import BagError

TWIST = 'geometry_msgs/msg/TwistStamped'

# Two streams of numbers, commands with a header and commands without.
TEXT = """
name: clocks
rate_hz: 10.0
clock: header
max_gap_s: 1.0
state:
  - {name: a, topic: /a, type: sensor_msgs/msg/JointState, fields: [position.j], max_age_s: 0.25}
  - {name: b, topic: /b, type: sensor_msgs/msg/JointState, fields: [position.j], max_age_s: 0.5}
action:
  - topic: /speed
    type: geometry_msgs/msg/TwistStamped
    dims: [{name: speed, field: linear.x, mode: velocity, low: -1, high: 1, bins: 3}]
  - topic: /grip
    type: std_msgs/msg/Float64MultiArray
    dims: [{name: grip, field: "0", mode: velocity, low: 0, high: 1, bins: 2}]
episodes: {events: /episode/events}
"""


def contract(**changes: str) -> Contract:
    text = TEXT
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return Contract.parse(text)


class Clocks(Bag):
    """A bag whose messages say their header's stamp [ns] and their log time [ns] each."""

    def at_ns(self, topic: str, kind: str, message: Any, log_ns: int) -> None:
        self.add(topic, kind, message, 0)
        self.rows[-1] = (log_ns, *self.rows[-1][1:])

    def joint(self, topic: str, value: float, stamp_ns: int, log_ns: int | None = None) -> None:
        message = make(JOINTS, header=header(stamp_ns), name=['j'], position=[value])
        self.at_ns(topic, JOINTS, message, stamp_ns if log_ns is None else log_ns)

    def speed(self, value: float, stamp_ns: int, log_ns: int | None = None) -> None:
        message = make(TWIST, header=header(stamp_ns))
        message.twist.linear.x = value
        self.at_ns('/speed', TWIST, message, stamp_ns if log_ns is None else log_ns)

    def grip_at(self, value: float, log_ns: int) -> None:
        self.at_ns('/grip', ARRAY, make(ARRAY, data=[value]), log_ns)

    def bounds(self, start_ns: int, stop_ns: int, log_from_stamp: int = 0) -> None:
        for kind, stamp_ns in ((0, start_ns), (1, stop_ns)):
            message = make(EVENT, header=header(stamp_ns), kind=kind, episode_id='e',
                           outcome='success')  # fmt: skip
            self.at_ns('/episode/events', EVENT, message, stamp_ns + log_from_stamp)


def convert(bag: Bag, path: Path, spec: Contract | None = None) -> tuple[list[Episode], list[str]]:
    """Return the episodes and what the conversion says about them."""
    with BagReader(bag.write(path / 'bag')) as reader:
        conversion = BagConversion(contract() if spec is None else spec, reader)
        episodes = [b.episode for s in conversion.segments for b in conversion.convert(s).built]
    return episodes, conversion.problems


def steady(until_ms: int = 1000, commands: bool = True) -> Clocks:
    """Streams a and b every 20 ms, both equal to their time in ms; commands 50 ms after ticks."""
    bag = Clocks()
    for ms in range(0, until_ms + 1, 20):
        bag.joint('/a', ms, T0 + ms * MS)
        bag.joint('/b', ms, T0 + ms * MS)
    for ms in range(50, until_ms if commands else 0, 100):
        bag.speed(ms / 1000, T0 + ms * MS)
        bag.grip_at(ms / 1000, T0 + ms * MS)
    bag.bounds(T0, T0 + until_ms * MS)
    return bag


def without(bag: Clocks, topic: str, low_ms: float, high_ms: float) -> None:
    """Lose the messages of a topic from `low_ms` to `high_ms`."""
    inside = range(T0 + round(low_ms * MS), T0 + round(high_ms * MS) + 1)
    bag.rows = [row for row in bag.rows if not (row[1] == topic and row[0] in inside)]


def ms_of(stamps_ns: np.ndarray) -> list[float]:
    return ((stamps_ns - T0) / MS).tolist()


# --- ticks ------------------------------------------------------------------------------------


@pytest.mark.parametrize('rate', ['30.0', '29.97', '7.3', '59.94', '0.3', '1000.0'])
def test_no_error_adds_up_over_an_hour(tmp_path: Path, rate: str) -> None:
    """In the last second of an hour, a sample at each tick's nanosecond and a decoy one later."""
    spec = contract(**{'rate_hz: 10.0': f'rate_hz: {rate}', 'max_gap_s: 1.0': 'max_gap_s: 4.0'})

    def tick_ns(k: int) -> int:
        return T0 + int((Decimal(k) * 10**9 / Decimal(rate)).to_integral_value(ROUND_HALF_EVEN))

    hour = 3600 * 10**9
    total = next(k for k in range(int(3600 * Decimal(rate)) + 2) if tick_ns(k) >= T0 + hour)
    first = total - max(2, int(Decimal(rate)))
    bag = Clocks()
    for k in range(first, total):
        for topic in ('/a', '/b'):
            bag.joint(topic, k - first, tick_ns(k))
            bag.joint(topic, -1, tick_ns(k) + 1)
        # At the very end of the tick: still its own, and 1 ns later the next one's.
        bag.speed(k - first, min(tick_ns(k + 1), T0 + hour))
    bag.bounds(T0, T0 + hour)
    (episode,), _ = convert(bag, tmp_path, spec)
    assert episode.start_stamp_ns == tick_ns(first)
    expected = list(range(total - first))
    assert episode.state[:, 0].tolist() == expected
    assert episode.action[:, 0].tolist() == expected
    assert episode.stamps_ns['b'].tolist() == [tick_ns(first + k) for k in expected]


def test_ticks_count_from_the_start_event_whatever_came_before(tmp_path: Path) -> None:
    bag = steady()
    bag.rows = [row for row in bag.rows if row[1] != '/episode/events']
    bag.bounds(T0 + 333 * MS, T0 + 700 * MS)
    (episode,), _ = convert(bag, tmp_path)
    # Ticks 333, 433, 533, 633; samples every 20 ms.
    assert ms_of(episode.stamps_ns['a']) == [320, 420, 520, 620]
    # Commands of 350, 450, 550, 650: one in each of (333, 433] .. (633, 700].
    assert episode.action[:, 0] == pytest.approx([0.35, 0.45, 0.55, 0.65])


# --- ages, validity and gaps ------------------------------------------------------------------


def test_a_sample_is_valid_up_to_its_very_last_nanosecond(tmp_path: Path) -> None:
    bag = steady()
    without(bag, '/a', 20, 1000)
    without(bag, '/b', 20, 1000)
    # At tick 300 both are exactly 250 ms old; at tick 700 a is 250 ms and 1 ns old, b 500 ms.
    bag.joint('/a', 1, T0 + 50 * MS)
    bag.joint('/b', 2, T0 + 50 * MS)
    bag.joint('/a', 3, T0 + 450 * MS - 1)
    bag.joint('/b', 4, T0 + 200 * MS)
    (episode,), _ = convert(bag, tmp_path)
    ages_ms = [100 * k - stamp for k, stamp in enumerate(ms_of(episode.stamps_ns['a']))]
    assert ages_ms == pytest.approx([0, 50, 150, 250, 350, 50, 150, 250, 350, 450], abs=1e-4)
    assert episode.valid['a'].tolist() == [
        True, True, True, True, False, True, True, False, False, False
    ]  # fmt: skip
    # b: 0, 50, then 200 from tick 2 on, at most 500 ms old up to tick 7.
    assert ms_of(episode.stamps_ns['b']) == [0, 50] + [200] * 8
    assert episode.valid['b'].tolist() == [True] * 8 + [False] * 2


def test_a_silence_of_exactly_the_gap_is_held_and_a_nanosecond_more_cuts(tmp_path: Path) -> None:
    for late_ns, rows in ((0, [20]), (1, [11, 8])):
        bag = steady(2000)
        without(bag, '/a', 20, 2000)
        # The sample of 0 is 1 s old at tick 10, where max_gap_s ends; the next one is at tick 11,
        # or just after it.
        bag.rows = [row for row in bag.rows if row[1] != '/a']
        bag.joint('/a', 0, T0)
        bag.joint('/a', 1, T0 + 1100 * MS + late_ns)
        bag.joint('/a', 2, T0 + 2000 * MS)
        episodes, said = convert(bag, tmp_path / str(late_ns))
        # With 1 ns more tick 11 has nothing recent enough: ticks 0 to 10, then 12 to 19.
        assert [len(each) for each in episodes] == rows
        assert any('cut' in text for text in said) == bool(late_ns)
        if late_ns:
            assert [each.episode_id for each in episodes] == ['e.part1', 'e.part2']
            assert episodes[1].start_stamp_ns == T0 + 1200 * MS
            assert [each.outcome for each in episodes] == ['unknown', 'success']


def test_gaps_of_two_streams_join(tmp_path: Path) -> None:
    bag = steady(6000)
    without(bag, '/a', 1001, 2999)  # a is held to 2000, back at 3000
    without(bag, '/b', 2001, 3999)  # b is held to 3000, back at 4000
    episodes, _ = convert(bag, tmp_path)
    # Left out: 2100 .. 2900 for a. At 3000 both are there, b exactly 1 s old. 3100 .. 3900 for b.
    assert [(each.start_stamp_ns - T0) // MS for each in episodes] == [0, 3000, 4000]
    assert [len(each) for each in episodes] == [21, 1, 20]


# --- order ------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_repeats_a_time(tmp_path: Path) -> None:
    """At 500 ms the clock of a is set back by 200 ms: 300 to 500 come twice, recorded later."""
    bag = steady()
    without(bag, '/a', 0, 1000)
    for ms in range(0, 501, 20):
        bag.joint('/a', ms, T0 + ms * MS)
    for ms in range(310, 801, 20):  # in between the first ones
        bag.joint('/a', 10_000 + ms, T0 + ms * MS, T0 + (ms + 200) * MS)
    with BagReader(bag.write(tmp_path / 'bag')) as reader:
        conversion = BagConversion(contract(), reader)
        (built,) = conversion.convert(conversion.segments[0]).built
        disorder = conversion.sources.disorder()
    # 310 .. 490 are before the newest, 500: ten stamps go backwards.
    assert disorder['a'] == {'backwards': 10, 'duplicates': 0}
    # At 400: of the second run 390, of the first 400. At 600: 590, and after 790 nothing.
    assert built.episode.state[:, 0].tolist() == [
        0, 100, 200, 300, 400, 500, 10590, 10690, 10790, 10790
    ]  # fmt: skip


def test_a_repeated_message_counts_once(tmp_path: Path) -> None:
    """Two recorders wrote the same messages: rows, and the account, are as with one of them."""
    bag = steady()
    once, _ = convert(bag, tmp_path / 'once')
    bag.rows = [row for row in bag.rows for _ in range(2)]
    with BagReader(bag.write(tmp_path / 'bag')) as reader:
        conversion = BagConversion(contract(), reader)
        (built,) = conversion.convert(conversion.segments[0]).built
        account = conversion.ledger.topics()['/a']
    assert built.episode.state.tolist() == once[0].state.tolist()
    assert built.episode.action.tolist() == once[0].action.tolist()
    assert account['skipped']['same stamp as a later message'] == 51
    assert account['read'] == 102


# --- clocks -----------------------------------------------------------------------------------


def drifting(clock_ns: int = 0) -> Clocks:
    """95 s whose headers run 1 % slow against log time, from `clock_ns` at log time T0.

    Streams give their log time in ms. Commands come 50 ms (log) after each second.
    """
    bag = Clocks()

    def stamp(ms: int) -> int:
        return clock_ns + ms * MS * 99 // 100

    for ms in range(100, 95_001, 100):
        bag.joint('/a', ms, stamp(ms), T0 + ms * MS)
        bag.joint('/b', ms, stamp(ms), T0 + ms * MS)
    for ms in range(1050, 95_000, 1000):
        bag.speed(ms / 1000, stamp(ms), T0 + ms * MS)
        bag.grip_at(ms / 1000, T0 + ms * MS)
    bag.bounds(stamp(1000), stamp(94_000))
    bag.rows = [
        (T0 + 50 * MS, *row[1:]) if row[1] == '/episode/events' else row for row in bag.rows
    ]
    return bag


SECOND = {'rate_hz: 10.0': 'rate_hz: 1.0'}


def test_one_clock_for_a_whole_bag_with_drift(tmp_path: Path) -> None:
    by_header = contract(**SECOND)
    (episode,), said = convert(drifting(T0), tmp_path / 'h', by_header)
    assert not said
    # START at header 990 ms, STOP at 93060: ticks 990, 1990, ... By log 1 % more: 1000, 2010.1, ..
    # of which every 100 ms there is a sample.
    logs = [(990 + 1000 * k) * 100 / 99 for k in range(93)]
    assert len(episode) == 93
    assert episode.state[:, 0].tolist() == [int(log / 100 + 1e-9) * 100 for log in logs]
    # Tick k ends at log 1000 + 1010.1 (k + 1); the last command before that, on the same clock.
    ends = [min(log + 1010.101, 94_000) for log in logs]
    expected = [((end - 50) // 1000 * 1000 + 50) / 1000 for end in ends]
    assert episode.action[:, 0] == pytest.approx(expected)


def test_the_log_clock_takes_no_header_into_account(tmp_path: Path) -> None:
    spec = contract(**SECOND, **{'clock: header': 'clock: log'})
    bag = drifting(7 * 10**9)
    bag.rows = [row for row in bag.rows if row[1] != '/episode/events']
    bag.bounds(1, 2)
    start, stop = (i for i, row in enumerate(bag.rows) if row[1] == '/episode/events')
    bag.rows[start] = (T0 + 1000 * MS, *bag.rows[start][1:])
    bag.rows[stop] = (T0 + 94_000 * MS, *bag.rows[stop][1:])
    (episode,), said = convert(bag, tmp_path, spec)
    assert not said
    assert episode.start_stamp_ns == T0 + 1000 * MS
    assert episode.state[:, 0].tolist() == [1000.0 * (k + 1) for k in range(93)]
    assert episode.action[:, 0].tolist() == episode.action[:, 1].tolist()
    assert episode.action[:, 0] == pytest.approx([k + 1.05 for k in range(93)])


def test_simulation_time_with_commands_that_have_no_header(tmp_path: Path) -> None:
    """Headers count from 0 and drift; the gripper's commands are placed where they came."""
    (episode,), said = convert(drifting(0), tmp_path, contract(**SECOND))
    # The tick from 92990 has no command before STOP at 93060: the next ones came at 93109.5.
    assert len(episode) == 92
    assert episode.start_stamp_ns == 990 * MS
    # Speed and grip were sent together, one with a stamp: both count in the same ticks.
    assert episode.action[:, 1].tolist() == episode.action[:, 0].tolist()
    (sentence,) = [text for text in said if 'without a stamp' in text]
    assert sentence.startswith('/grip: 94 messages without a stamp are placed where they were rec')
    assert 'behind log time' in sentence
    assert 'clock: log' in sentence


def test_zero_stamps_in_simulation_time_are_placed_where_they_came(tmp_path: Path) -> None:
    """Before it hears of the clock a driver stamps 0; that is no time to count from."""
    bag = Clocks()
    for ms in range(0, 2001, 20):
        for topic in ('/a', '/b'):
            bag.joint(topic, ms, 0 if ms < 300 else (5000 + ms) * MS, T0 + ms * MS)
    for ms in range(50, 2000, 100):
        bag.speed(ms / 1000, (5000 + ms) * MS, T0 + ms * MS)
    whole = contract(**{'{events: /episode/events}': 'one_per_bag'})
    (episode,), said = convert(bag, tmp_path, whole)
    assert episode.episode_id == 'bag'
    assert episode.start_stamp_ns == 5000 * MS
    assert episode.state[:, 0].tolist() == [100.0 * k for k in range(20)]
    assert any(text.startswith('/a, /b: 30 messages without a stamp') for text in said)


def test_the_clock_of_another_machine(tmp_path: Path) -> None:
    """All headers are 3 s ahead of the recorder; commands without header keep their place."""
    bag = steady()
    topics = ('/a', '/b', '/speed', '/episode/events')
    bag.rows = [(row[0] - 3000 * MS, *row[1:]) if row[1] in topics else row for row in bag.rows]
    bag.rows = [(row[0] - 3000 * MS, *row[1:]) if row[1] == '/grip' else row for row in bag.rows]
    (episode,), said = convert(bag, tmp_path)
    assert episode.action[:, 1].tolist() == episode.action[:, 0].tolist()
    assert any('3 s ahead of log time' in text for text in said)


def test_latency_is_no_other_clock(tmp_path: Path) -> None:
    """Stamped at capture and 300 ms under way: what has no header goes by its log time."""
    bag = steady()
    bag.rows = [
        (row[0] + 300 * MS, *row[1:]) if row[1] in ('/a', '/b') else row for row in bag.rows
    ]
    (episode,), said = convert(bag, tmp_path)
    assert not said
    assert episode.state[:, 0].tolist() == [100.0 * k for k in range(10)]
    assert episode.action[:, 1] == pytest.approx([0.05 + 0.1 * k for k in range(10)])


def test_headers_of_different_clocks_are_told_apart(tmp_path: Path) -> None:
    bag = steady()
    without(bag, '/b', 0, 1000)
    for ms in range(0, 1001, 20):
        bag.joint('/b', ms, T0 + (540_000 + ms) * MS, T0 + ms * MS)
    episodes, said = convert(bag, tmp_path / 'header')
    assert not episodes
    (sentence,) = [text for text in said if 'header stamps are apart' in text]
    assert '/b is 9 min ahead of it' in sentence
    assert sentence.endswith('use clock: log')
    (episode,), said = convert(bag, tmp_path / 'log', contract(**{'clock: header': 'clock: log'}))
    assert not said
    assert episode.state[:, 0].tolist() == episode.state[:, 1].tolist()


def test_a_bag_without_any_header_goes_by_log_time(tmp_path: Path) -> None:
    spec = contract(
        **{
            '{name: a, topic: /a, type: sensor_msgs/msg/JointState, fields: [position.j]': (
                '{name: a, topic: /grip, type: std_msgs/msg/Float64MultiArray, fields: ["0"]'
            ),
            '{name: b, topic: /b, type: sensor_msgs/msg/JointState, fields: [position.j]': (
                '{name: b, topic: /other, type: std_msgs/msg/Float64MultiArray, fields: ["0"]'
            ),
            '{events: /episode/events}': 'one_per_bag',
        }
    )
    bag = Clocks()
    for ms in range(0, 1001, 50):
        bag.grip_at(ms, T0 + ms * MS)
        bag.at_ns('/other', ARRAY, make(ARRAY, data=[-ms]), T0 + ms * MS)
    bag.speed(0.5, 0, T0 + 950 * MS)
    (episode,), said = convert(bag, tmp_path, spec)
    assert not said
    assert episode.state[:, 0].tolist() == [100.0 * k for k in range(10)]


def test_a_recording_whose_streams_never_meet_is_refused_with_a_reason(tmp_path: Path) -> None:
    bag = steady()
    without(bag, '/b', 0, 1000)
    with pytest.raises(BagError, match='/b'):
        convert(bag, tmp_path)
