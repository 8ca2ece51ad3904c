"""One bag and a contract make episodes; a message that cannot be used is passed over and told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.accounting import Ledger
from qt_ros.bags.actions import (
    Commands,
    columns_of,
    departures,
)
from qt_ros.bags.events import first_message_ns, read_events, read_steps
from qt_ros.bags.labelling import apply_labels
from qt_ros.bags.labels import Label
from qt_ros.bags.observing import (
    Unusable,
    unusable_messages,
)
from qt_ros.bags.reader import BagReader
from qt_ros.bags.rows import Rows
from qt_ros.bags.segments import (
    Segment,
    Segmentation,
    by_events,
    by_time_gap,
    one_per_bag,
)
from qt_ros.bags.sources import BagSources
from qt_ros.bags.ticks import Step, Tick, TickPlan, plan_ticks
from qt_ros.bags.types import deserialize
from qt_ros.commands import decode_command
from qt_ros.contract import Contract, Episodes
from qt_ros.episode import Episode
from qt_ros.errors import BagError, QtRosError


@dataclass(frozen=True)
class Built:
    """An episode with what its report needs."""

    episode: Episode
    ticks: tuple[Tick, ...]  # one a row
    declared: int  # rows whose samples the policy declared


@dataclass
class SegmentResult:
    """What became of one segment: episodes, and ticks that were left out."""

    segment: Segment
    built: list[Built] = field(default_factory=list)
    used: set[int] = field(default_factory=set)
    planned: set[int] = field(default_factory=set)
    leading: int = 0
    in_gaps: int = 0
    without_command: int = 0  # at the front (nothing to start from) and at the end
    undeclared: int = 0
    total: int = 0


class BagConversion:
    """Episodes of one open bag; use `convert` for one segment after the other.

    Raises `BagError` if the bag lacks what the contract asks for, or holds no episode.
    """

    def __init__(self, contract: Contract, bag: BagReader, labels: Sequence[Label] = ()) -> None:
        self.contract = contract
        self.bag = bag
        self.path = bag.paths[0].resolve()
        self.uri = str(self.path)
        self.problems: list[str] = []
        labels = [label for label in labels if label.about(self.path)]
        self.sources = BagSources(_with_events_if_needed(contract, bag, labels), bag)
        self.ledger = Ledger()
        self._sampler = self.sources.sampler()
        self._covered = self.sources.covered()
        self._steps = read_steps(self.sources, self.problems)
        found = self._segmentation(labels)
        self.problems += found.problems
        self.segments = found.segments
        self.applied = found.applied
        if not self.segments:
            raise BagError([*self.problems, 'the recording holds no episode'])

    def plan(self, segment: Segment) -> TickPlan:
        """Plan the ticks of a segment with what is known to be usable so far."""
        return plan_ticks(
            self.contract,
            self._sampler,
            self._covered,
            segment,
            [step for _, step in self._steps_of(segment)],
        )

    def names(self, segment: Segment, plan: TickPlan) -> list[str]:
        """Return the episode ids of the parts of a segment."""
        if len(plan.parts) < 2:
            return [segment.episode_id]
        return [f'{segment.episode_id}.part{n}' for n in range(1, len(plan.parts) + 1)]

    def convert(
        self, segment: Segment, handle: Callable[[Episode], None] | None = None
    ) -> SegmentResult:
        """Build the episodes of a segment; `handle` may consume each one's images at once.

        When a message turns out to be unusable, the segment is planned again without it.
        """
        while True:
            try:
                result = self._build(segment)
                if handle is not None:
                    for built in result.built:
                        handle(built.episode)
                break
            except Unusable as exc:
                self._exclude(exc)
        self._note(result)
        return result

    def disorder(self) -> dict[str, dict[str, int]]:
        """Return {stream: {backwards, duplicates}}: stamps out of order, and equal ones."""
        return {
            name: {'backwards': stream.backwards, 'duplicates': stream.duplicates}
            for name, stream in self._sampler.streams.items()
        }

    def _segmentation(self, labels: Sequence[Label]) -> Segmentation:
        mode = self.contract.episodes.mode
        stamps = [stamps for stamps, _ in self.sources.stream_times().values()]
        end_ns = max(int(each[-1]) for each in stamps)
        if mode == 'events':
            events = read_events(self.sources, self.problems)
            self.ledger.used.update(ordinal for ordinal, _ in events)
            found = by_events([event for _, event in events], end_ns)
        elif mode == 'time_gap':
            found = by_time_gap(self.path.stem, stamps, float(self.contract.episodes.gap_s or 0))
        else:
            found = one_per_bag(self.path.stem, stamps)
        if not labels:
            return found
        return apply_labels(found, labels, self.path, first_message_ns(self.sources), end_ns)

    def _steps_of(self, segment: Segment) -> list[tuple[int, Step]]:
        """Return (ordinal, step) of the segment: by episode id, by time where they have none."""
        inside = range(segment.start_ns, segment.stop_ns + 1)
        return [
            (ordinal, step)
            for name, ordinal, step in self._steps
            if step.tick_ns in inside
            and name in ('', segment.episode_id.partition('#')[0], segment.episode_id)
        ]

    def _exclude(self, damage: Unusable) -> None:
        """Find every unusable message of that stream, so that one more plan is enough."""
        known = self.sources.excluded[damage.stream]
        _, ordinals = self.sources.times(self.sources.topic_of(damage.stream), known)
        found = unusable_messages(self.bag, self.contract, damage.stream, ordinals.tolist())
        found.setdefault(damage.ordinal, damage.reason)
        known.update(found)
        self.problems.append(
            f'{damage.stream}: {len(found)} of {len(ordinals)} messages cannot be used'
            f' ({damage.reason})'
        )
        self._sampler = self.sources.sampler()
        self._covered = self.sources.covered()

    def _note(self, result: SegmentResult) -> None:
        """Enter what was used into the ledger, and what was lost into the problems."""
        who = f'episode {result.segment.episode_id!r}'
        ledger = self.ledger
        ledger.used |= result.used
        ledger.at_dropped_ticks |= result.planned
        (ledger.converted if result.built else ledger.left_out).append(result.segment)
        if result.built:
            ledger.used.update(ordinal for ordinal, _ in self._steps_of(result.segment))
        if not result.built:
            self.problems.append(
                f'{who} gives no row: {result.total} ticks, of which {result.leading} before every'
                f' stream had a sample, {result.in_gaps} in gaps longer than'
                f' {self.contract.max_gap_s:g} s, {result.without_command} without a command'
            )
        elif len(result.built) > 1:
            self.problems.append(
                f'{who} is cut into {len(result.built)} parts by gaps longer than'
                f' {self.contract.max_gap_s:g} s; only a part that reaches the end keeps the'
                ' outcome'
            )
        if result.undeclared:
            self.problems.append(
                f'{who}: {result.undeclared} ticks of the policy used samples that were not'
                ' recorded; the newest recorded ones are used'
            )

    def _build(self, segment: Segment) -> SegmentResult:
        plan = self.plan(segment)
        result = SegmentResult(
            segment,
            leading=plan.leading,
            in_gaps=plan.in_gaps,
            undeclared=plan.undeclared,
            total=plan.total,
        )
        commands = self._commands(segment)
        for name, part in zip(self.names(segment, plan), plan.parts, strict=False):
            rows = Rows(self.contract, self.bag, part, commands, segment)
            for tick in part.ticks:
                result.planned.update(sample.item for sample in tick.samples.values())
            result.without_command += len(part.ticks) - len(rows.ticks)
            if not rows.ticks:
                continue
            result.used |= rows.used
            episode = rows.episode(name, self.uri, part.complete)
            declared = sum(tick.declared for tick in rows.ticks)
            result.built.append(Built(episode, tuple(rows.ticks), declared))
        return result

    def _commands(self, segment: Segment) -> list[Commands]:
        """Decode the commands of an episode; those that do not decode are reported."""
        found = []
        sent_ns = sorted(s.command_ns for _, s in self._steps_of(segment) if s.command_ns)
        for action, columns in columns_of(self.contract):
            name = self.sources.names.get(action.topic or '')
            if name is None:
                continue
            stamps, ordinals = self.sources.times(name)
            low = np.searchsorted(stamps, segment.start_ns, side='left')
            high = np.searchsorted(stamps, segment.stop_ns, side='right')
            stamps, ordinals = stamps[low:high], ordinals[low:high]
            if self.sources.by_arrival(name):
                stamps = departures(stamps, sent_ns, self.contract.period_ns // 2)
            targets = np.full((len(stamps), columns.stop - columns.start), np.nan)
            row_of = {ordinal: row for row, ordinal in enumerate(ordinals.tolist())}
            for topic, _, data, ordinal in self.bag.fetch(row_of):
                try:
                    message = deserialize(self.bag.topics[topic], data, topic)
                    targets[row_of[ordinal]] = decode_command(action, message)
                except QtRosError as exc:
                    self.problems.append(str(exc))
                    self.ledger.damaged[ordinal] = str(exc)
            some = np.isfinite(targets).any(axis=1)
            found.append(Commands(stamps[some], ordinals[some], targets[some], columns))
        return found


def _with_events_if_needed(
    contract: Contract, bag: BagReader, labels: Sequence[Label]
) -> Contract:
    """Return a contract that does not ask for events which rows with times stand in for."""
    topic = contract.episodes.topic
    if topic is None or bag.resolve(topic) or not any(label.bounded for label in labels):
        return contract
    return replace(contract, episodes=Episodes('one_per_bag'))


def episodes_of(
    bag: Path | str, contract: Contract, labels: Sequence[Label] = ()
) -> Iterator[Episode]:
    """Yield the episodes of one bag; raise `BagError` if it lacks what the contract asks for."""
    with BagReader(bag) as reader:
        conversion = BagConversion(contract, reader, labels)
        for segment in conversion.segments:
            for built in conversion.convert(segment).built:
                yield built.episode


def describe(built: Built) -> dict[str, Any]:
    """Return the report's line about one episode."""
    episode = built.episode
    return {
        'episode_id': episode.episode_id,
        'instruction': episode.instruction,
        'outcome': episode.outcome,
        'source': episode.source,
        'rows': len(episode),
        'declared_ticks': built.declared,
    }


def light(episode: Episode) -> Episode:
    """Return the episode without access to its images, small enough to hand between processes."""
    return replace(episode, images={camera: _no_frames for camera in episode.images})


def _no_frames() -> Iterator[NDArray[np.uint8]]:
    raise BagError('the images of this episode were encoded already')
