"""Hand-made recordings whose right answer is worked out beside them. Times are ms after T0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_bags import MS, T0, Bag, contract, jpeg, steady

from qt_ros.bags.actions import departures
from qt_ros.bags.episodes import BagConversion, episodes_of
from qt_ros.bags.reader import BagReader
from qt_ros.episode import Episode
from qt_ros.errors import BagError


def one(bag: Bag, path: Path, storage: str = 'mcap', **changes: str) -> Episode:
    (episode,) = episodes_of(bag.write(path / 'bag', storage), contract(**changes))
    return episode


def stamps_ms(episode: Episode, stream: str) -> list[float]:
    return ((episode.stamps_ns[stream] - T0) / MS).tolist()


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_healthy_episode(tmp_path: Path, storage: str) -> None:
    episode = one(steady(), tmp_path, storage)
    # START 0, STOP 1000: ticks 0, 100 .. 900, each with a command 40 ms after it.
    assert len(episode) == 10
    assert episode.problems() == []
    assert (episode.outcome, episode.source, episode.instruction) == ('success', 'teleop', 'push')
    assert episode.start_stamp_ns == T0
    assert stamps_ms(episode, 'joints') == [100.0 * k for k in range(10)]
    assert stamps_ms(episode, 'front') == [100.0 * k for k in range(10)]
    assert episode.state[:, 0] == pytest.approx([0.1 * k for k in range(10)])
    # Command of tick k asks for 0.1 k + 0.04. Row 0 starts from the measured 0, later rows from
    # the command before.
    assert episode.action[:, 0] == pytest.approx([0.04] + [0.1] * 9, abs=1e-6)
    # The gripper closes at 541, in the tick that starts at 500.
    assert episode.action[:, 1].tolist() == [0.0] * 5 + [1.0] * 5
    assert (episode.requested == episode.action).all()
    assert all(flags.all() for flags in episode.valid.values())
    frames = list(episode.images['front']())
    # Images come every 50 ms from -50: the one of 100 k is number 1 + 2 k, of brightness 10 + 5 n.
    assert [int(frame.mean().round()) for frame in frames] == pytest.approx(
        [10 + 5 * (1 + 2 * k) for k in range(10)], abs=2
    )
    assert all(frame.shape == (16, 16, 3) for frame in frames)


def test_a_tick_never_sees_what_was_stamped_after_it(tmp_path: Path) -> None:
    bag = steady()
    bag.joints(100.000001, 77.0)  # 1 ns late for tick 1
    episode = one(bag, tmp_path)
    assert stamps_ms(episode, 'joints')[1] == 100.0
    assert 77.0 not in episode.state


def test_a_late_message_still_counts_at_its_stamp(tmp_path: Path) -> None:
    bag = steady()
    bag.rows = [row for row in bag.rows if row[1] != '/front']
    for ms in range(-50, 1001, 50):
        bag.image(ms, 100, log_ms=ms + 400)
    assert stamps_ms(one(bag, tmp_path), 'front') == [100.0 * k for k in range(10)]


def test_a_stale_stream_is_held_and_marked(tmp_path: Path) -> None:
    bag = steady()
    # Images of 350 to 850 are lost: the one of 300 is held. It is 250 ms old (max_age) at 550.
    bag.rows = [r for r in bag.rows if not (r[1] == '/front' and 350 <= (r[0] - T0) / MS <= 850)]
    episode = one(bag, tmp_path)
    assert len(episode) == 10  # a silence of 600 ms is no gap, max_gap_s is 1
    assert stamps_ms(episode, 'front') == [0, 100, 200, 300, 300, 300, 300, 300, 300, 900]
    assert episode.valid['front'].tolist() == [True] * 6 + [False] * 3 + [True]
    assert episode.valid['joints'].all()


def test_a_gap_cuts_the_episode_and_only_its_end_keeps_the_outcome(tmp_path: Path) -> None:
    bag = steady(4.0)
    # Joints are silent from 1000 to 2500: at 2000 their age is 1 s (allowed), at 2100 no more.
    bag.rows = [
        r for r in bag.rows if not (r[1] == '/joint_states' and 1000 < (r[0] - T0) / MS < 2500)
    ]
    first, second = episodes_of(bag.write(tmp_path / 'bag'), contract())
    assert (first.episode_id, second.episode_id) == ('e.part1', 'e.part2')
    assert (first.outcome, second.outcome) == ('unknown', 'success')
    assert len(first) == 21  # ticks 0 .. 2000
    assert len(second) == 15  # ticks 2500 .. 3900
    assert second.start_stamp_ns == T0 + 2500 * MS
    # Its first delta starts from the measured 2.5, not from the command before the gap.
    assert second.action[0, 0] == pytest.approx(0.04, abs=1e-6)


def test_ticks_before_every_stream_has_a_sample_are_dropped(tmp_path: Path) -> None:
    bag = steady()
    bag.rows = [r for r in bag.rows if not (r[1] == '/front' and r[0] < T0 + 250 * MS)]
    with BagReader(bag.write(tmp_path / 'bag')) as reader:
        conversion = BagConversion(contract(), reader)
        result = conversion.convert(conversion.segments[0])
        assert (result.leading, result.total) == (3, 10)  # 0, 100, 200
        (built,) = result.built
        assert built.episode.start_stamp_ns == T0 + 300 * MS
        assert len(built.episode) == 7
        # Commands before the new start never count: the base is the measured 0.3.
        assert built.episode.action[0, 0] == pytest.approx(0.04, abs=1e-6)


def test_the_last_tick_needs_a_command(tmp_path: Path) -> None:
    bag = steady()
    bag.rows = [r for r in bag.rows if not (r[1] in ('/arm', '/gripper') and r[0] > T0 + 900 * MS)]
    with BagReader(bag.write(tmp_path / 'bag')) as reader:
        conversion = BagConversion(contract(), reader)
        result = conversion.convert(conversion.segments[0])
    assert result.without_command == 1
    assert len(result.built[0].episode) == 9


def test_a_command_on_the_edge_belongs_to_the_tick_that_it_ends(tmp_path: Path) -> None:
    bag = steady()
    bag.arm(200, 5.0)  # (t_1, t_2] holds 200
    episode = one(bag, tmp_path)
    # Row 1: 5 after 0.04. Row 2: 0.24 after 5.
    assert episode.action[:3, 0] == pytest.approx([0.04, 4.96, -4.76], abs=1e-5)


def test_stop_between_ticks_ends_the_last_row(tmp_path: Path) -> None:
    bag = steady(events=False)
    bag.event(0, 0)
    bag.event(730, 1, outcome='failure')  # the command of 740 comes after it
    episode = one(bag, tmp_path)
    # Ticks 0 .. 700 start before 730; the last has no command in (700, 730].
    assert len(episode) == 7
    assert episode.outcome == 'failure'


def test_commands_before_the_start_do_not_count(tmp_path: Path) -> None:
    bag = steady()
    bag.arm(-500, 9.0)
    assert one(bag, tmp_path).action[0, 0] == pytest.approx(0.04, abs=1e-6)


def test_an_unmeasured_dimension_has_no_row_before_its_first_command(tmp_path: Path) -> None:
    bag = steady()
    bag.rows = [r for r in bag.rows if not (r[1] == '/gripper' and r[0] < T0 + 300 * MS)]
    episode = one(bag, tmp_path)
    assert episode.start_stamp_ns == T0 + 300 * MS  # the gripper is first told at 341
    assert len(episode) == 7
    assert episode.action[:, 1].tolist() == [0, 0, 1, 1, 1, 1, 1]


def test_a_gripper_without_header_goes_by_log_time(tmp_path: Path) -> None:
    bag = steady()
    bag.rows = [r for r in bag.rows if r[1] != '/gripper']
    bag.grip(10, 0.0)
    bag.grip(300.5, 1.0)  # recorded in the tick of 300, whenever it was sent
    assert one(bag, tmp_path).action[:, 1].tolist() == [0] * 3 + [1] * 7


def test_zero_stamps_go_by_log_time(tmp_path: Path) -> None:
    bag = steady()
    bag.rows = [r for r in bag.rows if r[1] != '/joint_states']
    for ms in range(-40, 1001, 20):
        bag.joints(0, 0.001 * ms, stamp_ns=0, log_ms=ms)
    episode = one(bag, tmp_path)
    assert stamps_ms(episode, 'joints') == [100.0 * k for k in range(10)]
    assert episode.state[:, 0] == pytest.approx([0.1 * k for k in range(10)])


def test_the_log_clock_ignores_headers(tmp_path: Path) -> None:
    bag = steady()
    bag.rows = [r for r in bag.rows if r[1] != '/joint_states']
    for ms in range(-40, 1001, 20):
        bag.joints(ms + 540_000, 0.001 * ms, log_ms=ms)  # stamps 9 minutes ahead
    episode = one(bag, tmp_path, **{'clock: header': 'clock: log'})
    assert stamps_ms(episode, 'joints') == [100.0 * k for k in range(10)]


def test_of_two_equal_stamps_the_later_arrival_counts(tmp_path: Path) -> None:
    bag = steady()
    bag.joints(300, 42.0, log_ms=305)
    bag.joints(280, 43.0, log_ms=306)  # backwards, and not the newest at any tick
    with BagReader(bag.write(tmp_path / 'bag')) as reader:
        conversion = BagConversion(contract(), reader)
        result = conversion.convert(conversion.segments[0])
        assert conversion.sources.disorder()['joints'] == {'backwards': 1, 'duplicates': 2}
        account = conversion.ledger.topics()['/joint_states']
    assert result.built[0].episode.state[3, 0] == 42.0
    assert account['skipped']['same stamp as a later message'] == 2
    assert account['read'] == account['used'] + sum(account['skipped'].values())


def test_damaged_and_partial_messages_are_passed_over(tmp_path: Path) -> None:
    bag = steady()
    bag.joints(500.5, 3.0, names=('a',))  # newest at no tick
    bag.joints(599.0, 3.0, names=('a',))  # newest at 600 if 600 were not there
    bag.rows = [r for r in bag.rows if not (r[1] == '/joint_states' and r[0] == T0 + 600 * MS)]
    bag.joints(699.0, float('nan'))
    bag.rows = [r for r in bag.rows if not (r[1] == '/joint_states' and r[0] == T0 + 700 * MS)]
    bag.image(799, 0, data=b'\xff\xd8 this is no image')
    bag.rows = [r for r in bag.rows if not (r[1] == '/front' and r[0] == T0 + 800 * MS)]
    path = bag.write(tmp_path / 'bag')
    with BagReader(path) as reader:
        conversion = BagConversion(contract(), reader)
        frames = {}
        result = conversion.convert(
            conversion.segments[0], lambda e: frames.update(front=list(e.images['front']()))
        )
        account = conversion.ledger.topics()
    episode = result.built[0].episode
    assert len(episode) == len(frames['front']) == 10
    assert stamps_ms(episode, 'joints')[6:8] == [580, 680]
    assert stamps_ms(episode, 'front')[8] == 750
    assert np.isfinite(episode.state).all()
    skipped = account['/joint_states']['skipped']
    assert sum(n for reason, n in skipped.items() if 'has no position.b' in reason) == 2
    assert skipped['not a finite number'] == 1
    assert account['/front']['read'] == account['/front']['used'] + sum(
        account['/front']['skipped'].values()
    )


def test_declared_ticks_use_what_the_policy_saw(tmp_path: Path) -> None:
    bag = steady(events=False)
    bag.event(0, 0, source='policy', policy_id='p')
    bag.event(1000, 1, outcome='timeout')
    # The policy ticked 7 ms late and did not have the image of 200 yet; step 4 was overrun.
    for k in (2, 3, 5):
        seen = {'front': 100.0 * k - 50, 'joints': 100.0 * k}
        bag.step(k, 100 * k + 7, seen, dims=['a', 'grip'], requested=[0.5, 1.0])
    episode = one(bag, tmp_path)
    # t_0 is the first declared tick minus 2 periods: 7.
    assert episode.start_stamp_ns == T0 + 7 * MS
    # Ticks 6 to 9 were never the policy's: what it sent after its last tick is its fallback.
    assert stamps_ms(episode, 'front') == [0, 100, 150, 250, 400, 450]
    assert episode.requested[2].tolist() == [0.5, 1.0]
    assert episode.requested[4].tolist() == episode.action[4].tolist()
    assert (episode.source, episode.policy_id) == ('policy', 'p')


def test_declared_samples_that_were_not_recorded_fall_back_to_the_rule(tmp_path: Path) -> None:
    bag = steady()
    bag.step(3, 300, {'front': 213.0, 'joints': 300.0})
    with BagReader(bag.write(tmp_path / 'bag')) as reader:
        conversion = BagConversion(contract(), reader)
        result = conversion.convert(conversion.segments[0])
    assert result.undeclared == 1
    assert stamps_ms(result.built[0].episode, 'front')[3] == 300


def test_intervention_makes_a_policy_episode_mixed(tmp_path: Path) -> None:
    bag = steady(events=False)
    bag.event(0, 0, source='policy', policy_id='p')
    bag.event(250, 3)
    bag.event(500, 4)
    bag.event(1000, 1, outcome='success')
    episode = one(bag, tmp_path)
    assert episode.source == 'mixed'
    assert episode.intervention.tolist() == [False] * 3 + [True] * 2 + [False] * 5


def test_terminate_is_one_where_a_success_ends(tmp_path: Path) -> None:
    bag = steady()
    episode = one(bag, tmp_path, **{'episodes:': 'terminate: {bins: 2}\nepisodes:'})
    assert episode.action.shape == (10, 3)
    assert episode.action[:, 2].tolist() == [0.0] * 9 + [1.0]


def test_actions_from_the_next_state(tmp_path: Path) -> None:
    text = contract().to_yaml()
    start, stop = text.index('action:'), text.index('episodes:')
    dims = (
        'action:\n- from: next_state\n  dims:\n'
        '  - {name: a, field: position.a, mode: delta, low: -1, high: 1, bins: 5}\n'
        '  - {name: b, field: position.b, mode: absolute, low: -1, high: 1, bins: 5}\n'
    )
    from qt_ros.contract import Contract

    spec = Contract.parse(text[:start] + dims + text[stop:])
    (episode,) = episodes_of(steady().write(tmp_path / 'bag'), spec)
    assert len(episode) == 9  # the last tick has no next state
    assert episode.action[:, 0] == pytest.approx([0.1] * 9, abs=1e-6)
    assert episode.action[:, 1] == pytest.approx([-0.1 * (k + 1) for k in range(9)], abs=1e-6)


def test_one_per_bag_and_time_gap(tmp_path: Path) -> None:
    bag = steady(1.0, events=False)
    bag.rows += steady(1.0, events=False, start_ms=5000).rows
    path = bag.write(tmp_path / 'run')
    gap = contract(**{'{events: /episode/events}': '{time_gap: 2.0}'})
    first, second = episodes_of(path, gap)
    assert (first.episode_id, second.episode_id) == ('run/0', 'run/1')
    # From the first sample (the image of -50) to the last (1000): joints start at -40, so the
    # first of the ticks -50, 50, 150 .. 950 has no joints; 950 has no command before 1000 ... 940.
    assert first.start_stamp_ns == T0 + 50 * MS
    assert len(first) == 9
    whole = contract(
        **{'{events: /episode/events}': 'one_per_bag', 'max_gap_s: 1.0': 'max_gap_s: 9'}
    )
    (episode,) = episodes_of(path, whole)
    assert episode.episode_id == 'run'
    assert episode.outcome == 'unknown'


def test_a_recording_without_the_contracts_topics_says_what_it_has(tmp_path: Path) -> None:
    bag = Bag()
    bag.joints(0, 1.0)
    with pytest.raises(BagError) as caught:
        list(episodes_of(bag.write(tmp_path / 'bag'), contract()))
    said = str(caught.value)
    for word in (
        '/front',
        '/arm',
        '/episode/events',
        '/joint_states (sensor_msgs/msg/JointState, 1)',
    ):
        assert word in said


def test_a_type_that_differs_from_the_contract_is_named(tmp_path: Path) -> None:
    path = steady().write(tmp_path / 'bag')
    other = contract(**{'type: sensor_msgs/msg/CompressedImage': 'type: sensor_msgs/msg/Image'})
    with pytest.raises(BagError, match=r'/front is sensor_msgs/msg/CompressedImage in the rec'):
        list(episodes_of(path, other))


def test_a_stray_stamp_years_away_costs_nothing(tmp_path: Path) -> None:
    bag = steady(events=False)
    bag.joints(-1.5e12, 0.0, log_ms=0)  # 47 years before
    whole = contract(**{'{events: /episode/events}': 'one_per_bag'})
    episodes = list(episodes_of(bag.write(tmp_path / 'bag'), whole))
    assert sum(len(each) for each in episodes) == pytest.approx(10, abs=1)


def test_images_can_be_read_after_the_bag_was_closed(tmp_path: Path) -> None:
    episode = one(steady(), tmp_path)
    assert len(list(episode.images['front']())) == len(list(episode.images['front']())) == 10
    assert jpeg(1) != jpeg(200)


def test_commands_without_a_header_count_from_when_they_were_sent() -> None:
    arrivals = np.array([11, 23, 24, 70, 95])
    # The third of 20's and the one of 95 are nobody's; what was sent at 40 never arrived.
    assert departures(arrivals, [10, 20, 40, 69], 10).tolist() == [10, 20, 24, 69, 95]
    assert departures(arrivals[:0], [10], 10).tolist() == []
