"""The plan of an episode: which sample of each stream every tick uses. Nothing is decoded here.

    t_k = t_0 + k / rate            computed from START, or
    t_k = PolicyStep.tick           declared: the policy wrote down what it used, and when

At a computed tick every stream gives its newest sample with stamp <= t_k. At a declared one it
gives exactly the sample that the policy saw, so images that arrived late are late here too.
Ticks before every stream has a sample are left out at the front. Where a stream is silent for
longer than `max_gap_s` the episode is cut into parts.

A plan holds columns, one entry a tick, and looks samples up in sorted arrays: the same answers as
`observation.ObservationSampler` gives live, at a fraction of its time and memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.segments import Segment
from qt_ros.contract import Contract
from qt_ros.errors import BagError

MOST_TICKS = 5_000_000  # of an episode: 46 hours at 30 Hz
Ints = NDArray[np.int64]
Times = tuple[Ints, Ints]  # of a stream: stamps [ns], each once and rising, and what carries them


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
class Ticks:
    """T rows to be: (T,) columns in the order of time.

    The command of a tick is stamped in (t_ns, end_ns]. Samples are given per stream: the ordinal
    of the message in the bag, its stamp, and whether it was recent enough.
    """

    numbers: Ints
    t_ns: Ints
    end_ns: Ints
    ordinals: Mapping[str, Ints] = field(default_factory=dict)
    stamps_ns: Mapping[str, Ints] = field(default_factory=dict)
    valid: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    steps: Mapping[int, Step] = field(default_factory=dict)  # {row: what the policy declared}

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: slice) -> Ticks:
        """Return consecutive rows."""
        start, stop, _ = rows.indices(len(self))
        kept = slice(start, stop)
        return Ticks(
            self.numbers[kept],
            self.t_ns[kept],
            self.end_ns[kept],
            {name: column[kept] for name, column in self.ordinals.items()},
            {name: column[kept] for name, column in self.stamps_ns.items()},
            {name: column[kept] for name, column in self.valid.items()},
            {row - start: step for row, step in self.steps.items() if start <= row < stop},
        )

    def ages_ns(self, stream: str) -> Ints:
        """Return how old the samples of a stream are at their ticks, (T,) [ns]."""
        return self.t_ns - self.stamps_ns[stream]


@dataclass(frozen=True)
class Part:
    """Consecutive ticks without a gap; `complete` if it runs to the end of the episode."""

    ticks: Ticks
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
    streams: Mapping[str, Times],
    covered: Ints,
    segment: Segment,
    steps: Sequence[Step] = (),
) -> TickPlan:
    """Plan the ticks of one episode.

    streams: every usable sample of each stream of the contract, stamps and ordinals.
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
    t_ns = tick_times(contract, t0_ns, numbers)
    next_ns = tick_times(contract, t0_ns, numbers + 1)
    for times, first_number in ((t_ns, numbers), (next_ns, numbers + 1)):
        rows, found = _rows_of(first_number, declared)
        times[rows] = [step.tick_ns for step in found]
    bare = Ticks(numbers, t_ns, np.minimum(next_ns, segment.stop_ns))
    ticks, undeclared = _sampled(contract, streams, bare, declared)
    leading = int(ticks.numbers[0]) if len(ticks) else total
    in_gaps = total - leading - len(ticks)
    return TickPlan(_parts(ticks, total), total, leading, in_gaps, undeclared)


def tick_times(contract: Contract, t0_ns: int, numbers: Ints) -> Ints:
    """Return `contract.tick_ns` of each number: exact for any rate, and without fractions."""
    rate = Fraction(contract.rate_hz)
    scale, divisor = 10**9 * rate.denominator, rate.numerator
    times = []
    for number in numbers.tolist():
        whole, rest = divmod(number * scale, divisor)
        up = 2 * rest > divisor or (2 * rest == divisor and whole % 2)  # half to even
        times.append(t0_ns + whole + up)
    return np.array(times, dtype=np.int64)


def coverage(stamps_ns: Sequence[Ints], max_gap_s: float) -> Ints:
    """Return the times [ns] at which every stream has a sample not older than `max_gap_s`.

    `stamps_ns` holds the sorted stamps of each stream. Returns (N, 2): from, to, both included.
    One stream with samples at 0, 1, 5 s and a gap of 2 s: [[0, 3], [5, 7]] s.
    """
    gap_ns = round(max_gap_s * 1e9)
    common: Ints | None = None
    for stamps in stamps_ns:
        if not len(stamps):
            return np.zeros((0, 2), np.int64)
        breaks = np.flatnonzero(np.diff(stamps) > gap_ns)
        starts = stamps[np.concatenate(([0], breaks + 1))]
        stops = stamps[np.concatenate((breaks, [len(stamps) - 1]))] + gap_ns
        spans = np.stack([starts, stops], axis=1)
        common = spans if common is None else _intersect(common, spans)
    return np.zeros((0, 2), np.int64) if common is None else common


def _intersect(left: Ints, right: Ints) -> Ints:
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


def _covered_numbers(contract: Contract, t0_ns: int, total: int, covered: Ints) -> Ints:
    """Return the numbers of the ticks that lie in covered times; cost grows with these only."""
    pieces = [np.zeros(0, np.int64)]
    left, last_ns = MOST_TICKS, contract.tick_ns(t0_ns, max(total - 1, 0))
    for low, high in covered.tolist():
        if high < t0_ns or low > last_ns:
            continue
        first = _count_before(contract, t0_ns, low)
        stop = min(_count_before(contract, t0_ns, high + 1), total)
        left -= max(stop - first, 0)
        if left < 0:
            raise BagError(
                f'an episode has more than {MOST_TICKS} ticks; either stamps are damaged, or'
                f' max_gap_s {contract.max_gap_s:g} of the contract is too long to tell'
            )
        pieces.append(np.arange(first, max(first, stop), dtype=np.int64))
    return np.concatenate(pieces)


def _rows_of(numbers: Ints, declared: Mapping[int, Step]) -> tuple[Ints, list[Step]]:
    """Return the rows whose number the policy declared, and its steps; numbers (T,) rise."""
    wanted = np.array(sorted(declared), dtype=np.int64)
    rows = np.searchsorted(numbers, wanted)
    there = rows < len(numbers)
    there[there] = numbers[rows[there]] == wanted[there]
    return rows[there], [declared[number] for number in wanted[there].tolist()]


def _sampled(
    contract: Contract, streams: Mapping[str, Times], bare: Ticks, declared: Mapping[int, Step]
) -> tuple[Ticks, int]:
    """Sample the streams at each tick, by declaration where there is one and its samples are in
    the bag; ticks without a sample fall out. Returns the count of the others as well.
    """
    newest = {
        name: np.searchsorted(stamps, bare.t_ns, side='right') - 1
        for name, (stamps, _) in streams.items()
    }
    rows, steps = _rows_of(bare.numbers, declared)
    seen, exact = _declared_samples(streams, steps)
    for name, index in newest.items():
        index[rows[exact]] = seen[name][exact]
    kept = np.ones(len(bare), bool)
    for index in newest.values():
        kept &= index >= 0
    ordinals, stamps_ns, valid = {}, {}, {}
    place = np.cumsum(kept) - 1  # where a row stands among those that are kept
    of_row = {
        int(place[row]): step
        for row, step, is_exact in zip(rows.tolist(), steps, exact.tolist(), strict=True)
        if is_exact
    }
    for source in contract.observed:
        name = source.stream
        index = newest[name][kept]
        stamps, items = streams[name]
        ordinals[name], stamps_ns[name] = items[index], stamps[index]
        valid[name] = bare.t_ns[kept] - stamps_ns[name] <= round(source.max_age_s * 1e9)
        for row, step in of_row.items():
            valid[name][row] = step.valid.get(name, valid[name][row])
    times = (bare.numbers[kept], bare.t_ns[kept], bare.end_ns[kept])
    undeclared = int(np.count_nonzero(kept[rows[~exact]]))
    return Ticks(*times, ordinals, stamps_ns, valid, of_row), undeclared


def _declared_samples(
    streams: Mapping[str, Times], steps: Sequence[Step]
) -> tuple[dict[str, Ints], NDArray[np.bool_]]:
    """Return {stream: (N,) which sample each step used}, and (N,) whether they are all there."""
    there = np.array([set(step.stamps_ns) == set(streams) for step in steps], dtype=bool)
    found = {}
    for name, (stamps, _) in streams.items():
        wanted = np.array([step.stamps_ns.get(name, 0) for step in steps], dtype=np.int64)
        index = np.searchsorted(stamps, wanted)
        inside = index < len(stamps)
        there &= inside
        there[inside] &= stamps[index[inside]] == wanted[inside]
        found[name] = index
    return found, there


def _parts(ticks: Ticks, total: int) -> tuple[Part, ...]:
    """Cut where a tick number is missing."""
    if not len(ticks):
        return ()
    cuts = (np.flatnonzero(np.diff(ticks.numbers) != 1) + 1).tolist()
    bounds = zip([0, *cuts], [*cuts, len(ticks)], strict=True)
    return tuple(
        Part(ticks[start:stop], int(ticks.numbers[stop - 1]) == total - 1)
        for start, stop in bounds
    )
