"""The converter looks samples up in arrays; the live node asks its sampler. They always agree."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from made_bags import MS, T0, Bag, contract

from qt_ros.bags.actions import commanded_actions
from qt_ros.bags.index import index_bag
from qt_ros.bags.reader import BagReader
from qt_ros.bags.segments import Segment
from qt_ros.bags.sources import BagSources
from qt_ros.bags.ticks import Step, Ticks, coverage, plan_ticks, tick_times
from qt_ros.commands import action_from_targets
from qt_ros.contract import Contract
from qt_ros.observation import ObservationSampler

rates = st.one_of(
    st.sampled_from([10.0, 30.0, 7.5, 29.97, 1 / 3, 1000.0, 12.345]), st.floats(0.01, 2000.0)
)


class Row(NamedTuple):
    """One tick, in plain values."""

    number: int
    t_ns: int
    end_ns: int
    samples: dict[str, tuple[int, int, bool]]  # {stream: ordinal, stamp, valid}
    declared: bool


def with_rate(rate_hz: float) -> Contract:
    return replace(contract(), rate_hz=rate_hz)


@given(
    rates,
    st.integers(-(2**61), 2**61),
    st.lists(st.integers(0, 10**7), max_size=20),
)
def test_times_of_ticks_are_the_contracts(rate: float, t0_ns: int, numbers: list[int]) -> None:
    spec = with_rate(rate)
    found = tick_times(spec, t0_ns, np.array(numbers, np.int64))
    assert found.tolist() == [spec.tick_ns(t0_ns, number) for number in numbers]


def test_a_time_between_two_nanoseconds_goes_to_the_even_one() -> None:
    rate = 10**9 / 2.5  # tick 1 at 2.5 ns, tick 3 at 7.5 ns
    assert Fraction(rate) == Fraction(10**9, 1) / Fraction(5, 2)
    assert tick_times(with_rate(rate), 0, np.arange(5)).tolist() == [0, 2, 5, 8, 10]


def live_rows(
    spec: Contract, sampler: ObservationSampler, segment: Segment, steps: list[Step]
) -> tuple[list[Row], int]:
    """Walk through the ticks one by one, as the live node does; return the rows and how many
    declared ones fell back to the rule.
    """
    declared = {step.number: step for step in steps}
    t0_ns = segment.start_ns
    if declared:
        first = min(declared)
        t0_ns = declared[first].tick_ns - spec.tick_ns(0, first)
    gap_ns = round(spec.max_gap_s * 1e9)
    rows, undeclared, number = [], 0, 0
    while (planned_ns := spec.tick_ns(t0_ns, number)) < segment.stop_ns:
        if declared and number > max(declared):
            break
        recent = sampler.sample(planned_ns)
        step = declared.get(number)
        t_ns = step.tick_ns if step else planned_ns
        following = declared.get(number + 1)
        next_ns = following.tick_ns if following else spec.tick_ns(t0_ns, number + 1)
        samples = step and sampler.sample_at(step.stamps_ns, t_ns)
        fits = samples is not None
        samples = samples or sampler.sample(t_ns)
        if recent and samples and all(each.age_ns <= gap_ns for each in recent.values()):
            undeclared += step is not None and not fits
            valid = step.valid if step is not None and fits else {}
            rows.append(
                Row(
                    number,
                    t_ns,
                    min(next_ns, segment.stop_ns),
                    {
                        name: (each.item, each.stamp_ns, valid.get(name, each.valid))
                        for name, each in samples.items()
                    },
                    fits,
                )
            )
        number += 1
    return rows, undeclared


def rows_of(ticks: Ticks) -> list[Row]:
    return [
        Row(
            int(ticks.numbers[row]),
            int(ticks.t_ns[row]),
            int(ticks.end_ns[row]),
            {
                name: (
                    int(ticks.ordinals[name][row]),
                    int(ticks.stamps_ns[name][row]),
                    bool(ticks.valid[name][row]),
                )
                for name in ticks.ordinals
            },
            row in ticks.steps,
        )
        for row in range(len(ticks))
    ]


times_ms = st.integers(-300, 3000)
arrivals = st.lists(st.tuples(times_ms, times_ms), min_size=1, max_size=25)  # stamp, log time


@st.composite
def declarations(draw: st.DrawFn, known: dict[str, list[int]]) -> list[Step]:
    """Steps that name recorded samples, or, now and then, one that is not there."""
    steps = []
    for number in draw(st.sets(st.integers(0, 12), max_size=6)):
        stamps = {
            name: T0 + MS * (draw(st.sampled_from(values)) + draw(st.sampled_from([0, 0, 0, 7])))
            for name, values in known.items()
        }
        if draw(st.integers(0, 9)) == 0:
            stamps.pop('front')
        valid = draw(st.sampled_from([{}, {'front': False}, {'front': True, 'joints': False}]))
        tick_ns = T0 + MS * (100 * number + draw(st.integers(-20, 20)))
        steps.append(Step(number, tick_ns, stamps, valid, {}))
    return steps


@settings(max_examples=60, deadline=None)
@given(st.data(), arrivals, arrivals, st.integers(-100, 1500), st.integers(1, 2500))
def test_the_plan_is_what_the_live_sampler_gives(
    tmp_path_factory, data, images, joints, start_ms, length_ms
) -> None:
    """Stamps out of order, repeated and far apart; some ticks declared by a policy."""
    bag = Bag()
    for stamp_ms, log_ms in images:
        bag.image(stamp_ms, 100, log_ms=log_ms)
    for stamp_ms, log_ms in joints:
        bag.joints(stamp_ms, 0.0, log_ms=log_ms)
    bag.event(0, 0)
    bag.arm(0, 0.0)
    spec = with_rate(data.draw(st.sampled_from([10.0, 7.5])))
    known = {'front': [each for each, _ in images], 'joints': [each for each, _ in joints]}
    steps = data.draw(declarations(known))
    start_ns = T0 + start_ms * MS
    segment = Segment('e', start_ns, start_ns + length_ms * MS)
    sampler = ObservationSampler(spec)
    with BagReader(bag.write(tmp_path_factory.mktemp('bag') / 'bag')) as reader:
        sources = BagSources(spec, reader)
        for topic in ('/front', '/joint_states'):
            index = index_bag(reader)[topic]
            for stamp_ns, ordinal in zip(index.stamps_ns('header'), index.ordinals, strict=True):
                sampler.add(topic, int(stamp_ns), int(ordinal))
    plan = plan_ticks(spec, sources.stream_times(), sources.covered(), segment, steps)
    expected, undeclared = live_rows(spec, sampler, segment, steps)
    assert [row for part in plan.parts for row in rows_of(part.ticks)] == expected
    assert plan.undeclared == undeclared
    assert plan.total == plan.leading + plan.in_gaps + len(expected)
    for part in plan.parts:
        assert (np.diff(part.ticks.numbers) == 1).all()
    assert sources.disorder() == {
        name: {'backwards': stream.backwards, 'duplicates': stream.duplicates}
        for name, stream in sampler.streams.items()
    }


@given(
    st.lists(
        st.lists(st.floats(allow_nan=True, allow_infinity=False), min_size=2, max_size=2),
        min_size=1,
        max_size=8,
    )
)
def test_actions_are_those_of_each_pair_of_targets(rows: list[list[float]]) -> None:
    spec = contract()  # one delta, one absolute
    targets = np.array(rows)
    found = commanded_actions(spec, targets)
    assert found.shape == (len(rows) - 1, 2)
    for row, action in enumerate(found):
        wanted = action_from_targets(spec, targets[row + 1], targets[row])
        np.testing.assert_array_equal(action, wanted)


def test_a_stretch_of_ticks_keeps_its_steps() -> None:
    spec = contract()
    stamps = np.arange(0, 2000, 100, dtype=np.int64) * MS
    streams = {name: (stamps, np.arange(len(stamps))) for name in spec.streams}
    covered = coverage([stamps], 1.0)
    seen = {'front': 300 * MS, 'joints': 300 * MS}
    steps = [Step(3, 310 * MS, seen, {}, {}), Step(5, 510 * MS, seen, {}, {})]
    (part,) = plan_ticks(spec, streams, covered, Segment('e', 0, 1000 * MS), steps).parts
    assert part.ticks.numbers.tolist() == [0, 1, 2, 3, 4, 5]  # up to the last declared one
    assert sorted(part.ticks.steps) == [3, 5]
    later = part.ticks[4:]
    assert len(later) == 2
    assert later.steps == {1: steps[1]}
    assert later.t_ns.tolist() == [410 * MS, 510 * MS]  # t_0 is 310 - 3 periods
    assert later.ages_ns('front').tolist() == [10 * MS, 210 * MS]
