"""The plan of an episode: which sample of each stream every tick uses. Nothing is decoded here.

    t_k = t_0 + k / rate            computed from START, or
    t_k = PolicyStep.tick           declared: the policy wrote down what it used, and when

At a computed tick every stream gives its newest sample with stamp <= t_k. At a declared one it
gives exactly the sample that the policy saw, so images that arrived late are late here too.
Ticks before every stream has a sample are left out at the front. Where a stream is silent for
longer than `max_gap_s` the episode is cut into parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.segments import Segment
from qt_ros.contract import Contract
from qt_ros.observation import ObservationSampler
from qt_ros.streams import Sample

Samples = Mapping[str, Sample]


@dataclass(frozen=True)
class Step:
    """What a PolicyStep declares about its tick."""

    number: int  # k
    tick_ns: int
    stamps_ns: Mapping[str, int]
    valid: Mapping[str, bool]
    requested: Mapping[str, float]  # {dimension: value}
    late: bool = False  # the decision was discarded
    command_ns: int = 0  # when its commands left; 0: none did


@dataclass(frozen=True)
class Tick:
    """One row to be: times [ns] and the sample of each stream; samples carry bag ordinals.

    The command of this tick is stamped in (t_ns, end_ns].
    """

    number: int
    t_ns: int
    end_ns: int
    samples: Samples
    step: Step | None = None

    @property
    def declared(self) -> bool:
        """True if the policy declared this tick and its samples were found."""
        return self.step is not None


@dataclass(frozen=True)
class Part:
    """Consecutive ticks without a gap; `complete` if it runs to the end of the episode."""

    ticks: tuple[Tick, ...]
    complete: bool


@dataclass(frozen=True)
class TickPlan:
    """The ticks of an episode.

    total: ticks between START and STOP (up to the last one the policy declared), of which
    leading: before every stream had a sample, and
    in_gaps: while a stream was silent for longer than max_gap_s
    were left out. `undeclared` ticks have a PolicyStep whose samples are not in the bag.
    """

    parts: tuple[Part, ...]
    total: int = 0
    leading: int = 0
    in_gaps: int = 0
    undeclared: int = 0

    @property
    def cuts(self) -> int:
        """How many times a gap cut the episode."""
        return max(len(self.parts) - 1, 0)


def plan_ticks(
    contract: Contract,
    sampler: ObservationSampler,
    covered: NDArray[np.int64],
    segment: Segment,
    steps: Sequence[Step] = (),
) -> TickPlan:
    """Plan the ticks of one episode.

    sampler: holds every usable sample of the bag, the item being its ordinal.
    covered: (N, 2) from `coverage`, times [ns] at which every stream has a recent sample.
    steps: what the policy declared within the episode, if it drove.
    """
    declared = {step.number: step for step in steps}
    t0_ns = segment.start_ns
    if declared:
        first = min(declared)
        t0_ns = declared[first].tick_ns - contract.tick_ns(0, first)
    total = _count_before(contract, t0_ns, segment.stop_ns)
    if declared:  # what comes after the policy's last tick is the fallback, not a decision
        total = min(total, max(declared) + 1)
    numbers = _covered_numbers(contract, t0_ns, total, covered)
    ticks: list[Tick] = []
    undeclared = 0
    for number in numbers:
        tick = _tick(contract, sampler, segment, t0_ns, int(number), declared)
        if tick is None:
            continue
        undeclared += tick.step is None and tick.number in declared
        ticks.append(tick)
    parts = _parts(ticks, total)
    leading = ticks[0].number if ticks else total
    return TickPlan(parts, total, leading, total - leading - len(ticks), undeclared)


def coverage(stamps_ns: Sequence[NDArray[np.int64]], max_gap_s: float) -> NDArray[np.int64]:
    """Return the times [ns] at which every stream has a sample not older than `max_gap_s`.

    `stamps_ns` holds the sorted stamps of each stream. Returns (N, 2): from, to, both included.
    One stream with samples at 0, 1, 5 s and a gap of 2 s: [[0, 3], [5, 7]] s.
    """
    gap_ns = round(max_gap_s * 1e9)
    common: NDArray[np.int64] | None = None
    for stamps in stamps_ns:
        if not len(stamps):
            return np.zeros((0, 2), np.int64)
        breaks = np.flatnonzero(np.diff(stamps) > gap_ns)
        starts = stamps[np.concatenate(([0], breaks + 1))]
        stops = stamps[np.concatenate((breaks, [len(stamps) - 1]))] + gap_ns
        spans = np.stack([starts, stops], axis=1)
        common = spans if common is None else _intersect(common, spans)
    return np.zeros((0, 2), np.int64) if common is None else common


def _intersect(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Intersect two sorted lists of disjoint intervals."""
    found, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        low, high = max(left[i, 0], right[j, 0]), min(left[i, 1], right[j, 1])
        if low <= high:
            found.append((low, high))
        if left[i, 1] < right[j, 1]:
            i += 1
        else:
            j += 1
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _count_before(contract: Contract, t0_ns: int, stop_ns: int) -> int:
    """Return how many ticks t_k >= t_0 lie before `stop_ns`."""
    count = max(0, int(Fraction(stop_ns - t0_ns) * Fraction(contract.rate_hz) / 10**9))
    while contract.tick_ns(t0_ns, count) < stop_ns:
        count += 1
    while count and contract.tick_ns(t0_ns, count - 1) >= stop_ns:
        count -= 1
    return count


def _covered_numbers(
    contract: Contract, t0_ns: int, total: int, covered: NDArray[np.int64]
) -> list[int]:
    """Return the numbers of the ticks that lie in covered times; cost grows with these only."""
    numbers: list[int] = []
    for low, high in covered.tolist():
        first = _count_before(contract, t0_ns, low)
        stop = min(_count_before(contract, t0_ns, high + 1), total)
        numbers.extend(range(first, stop))
    return numbers


def _tick(
    contract: Contract,
    sampler: ObservationSampler,
    segment: Segment,
    t0_ns: int,
    number: int,
    declared: Mapping[int, Step],
) -> Tick | None:
    """Sample one tick, by declaration where there is one and its samples are in the bag."""
    step = declared.get(number)
    t_ns = step.tick_ns if step else contract.tick_ns(t0_ns, number)
    following = declared.get(number + 1)
    next_ns = following.tick_ns if following else contract.tick_ns(t0_ns, number + 1)
    end_ns = min(next_ns, segment.stop_ns)
    if step is not None:
        exact = sampler.sample_at(step.stamps_ns, t_ns)
        if exact is not None:
            return Tick(number, t_ns, end_ns, _declared_validity(exact, step), step)
    samples = sampler.sample(t_ns)
    return None if samples is None else Tick(number, t_ns, end_ns, samples)


def _declared_validity(samples: Samples, step: Step) -> Samples:
    return {
        name: Sample(each.item, each.stamp_ns, each.age_ns, step.valid.get(name, each.valid))
        for name, each in samples.items()
    }


def _parts(ticks: Sequence[Tick], total: int) -> tuple[Part, ...]:
    """Cut where a tick number is missing."""
    parts: list[Part] = []
    start = 0
    for index in range(1, len(ticks) + 1):
        if index == len(ticks) or ticks[index].number != ticks[index - 1].number + 1:
            complete = ticks[index - 1].number == total - 1
            parts.append(Part(tuple(ticks[start:index]), complete))
            start = index
    return tuple(parts)
