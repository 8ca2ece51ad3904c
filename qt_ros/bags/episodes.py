"""One bag and a contract make episodes; a message that cannot be used is passed over and told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.accounting import Ledger
from qt_ros.bags.actions import Commands, columns_of, departures
from qt_ros.bags.events import first_message_ns, read_events, read_steps
from qt_ros.bags.labelling import apply_labels
from qt_ros.bags.labels import Label
from qt_ros.bags.observing import (
    Numbers,
    Unusable,
    read_numbers,
    state_numbers,
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
from qt_ros.bags.ticks import Step, TickPlan, Ticks, plan_ticks
from qt_ros.commands import decode_command
from qt_ros.contract import ActionTopic, Contract, Episodes
from qt_ros.episode import Episode
from qt_ros.errors import BagError, QtRosError
from qt_ros.spelling import spelled

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Built:
    """An episode with what its report needs."""

    episode: Episode
    ticks: Ticks  # one a row


@dataclass
class SegmentResult:
    """What became of one segment: episodes, and ticks that were left out."""

    segment: Segment
    built: list[Built] = field(default_factory=list)
    used: list[Ints] = field(default_factory=list)  # ordinals, of rows and of their commands
    planned: list[Ints] = field(default_factory=list)  # of all ticks, also those without a row
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
        self.uri = spelled(self.path)
        self._stem = spelled(self.path.stem)
        self.problems: list[str] = []
        labels = [label for label in labels if label.about(self.path)]
        self.sources = BagSources(_with_events_if_needed(contract, bag, labels), bag)
        self.problems += self.sources.problems
        self.ledger = Ledger(self.sources)
        self._streams = self.sources.stream_times()
        self._covered = self.sources.covered()
        self._steps: dict[str, list[tuple[int, Step]]] = {}  # {episode: what the policy declared}
        for name, ordinal, step in read_steps(self.sources, self.problems):
            self._steps.setdefault(name, []).append((ordinal, step))
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
            self._streams,
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
        result = self.rehearse(segment, handle)
        self._note(result)
        return result

    def rehearse(
        self, segment: Segment, handle: Callable[[Episode], None] | None = None
    ) -> SegmentResult:
        """Build the episodes of a segment as `convert` does, but enter nothing as used."""
        while True:
            try:
                result = self._build(segment)
                if handle is not None:
                    for built in result.built:
                        handle(built.episode)
                return result
            except Unusable as exc:
                self._exclude(exc)

    def _segmentation(self, labels: Sequence[Label]) -> Segmentation:
        mode = self.contract.episodes.mode
        stamps = [stamps for stamps, _ in self._streams.values()]
        end_ns = max(int(each[-1]) for each in stamps)
        if mode == 'events':
            events = read_events(self.sources, self.problems)
            self.ledger.use(_ordinals(events))
            found = by_events([event for _, event in events], end_ns)
        elif mode == 'time_gap':
            found = by_time_gap(self._stem, stamps, float(self.contract.episodes.gap_s or 0))
        else:
            found = one_per_bag(self._stem, stamps)
        if not labels:
            return found
        return apply_labels(found, labels, self.path, first_message_ns(self.sources), end_ns)

    def _steps_of(self, segment: Segment) -> list[tuple[int, Step]]:
        """Return (ordinal, step) of the segment: by episode id, by time where they have none."""
        inside = range(segment.start_ns, segment.stop_ns + 1)
        names = {'', segment.episode_id.partition('#')[0], segment.episode_id}
        found = [
            pair
            for name in names
            for pair in self._steps.get(name, ())
            if pair[1].tick_ns in inside
        ]
        return sorted(found, key=lambda pair: pair[0])

    def _exclude(self, damage: Unusable) -> None:
        """Find every unusable message of that stream, so that one more plan is enough."""
        known = self.sources.excluded[damage.stream]
        _, ordinals = self.sources.times(self.sources.topic_of(damage.stream), known)
        found = unusable_messages(self.bag, self.contract, damage.stream, ordinals)
        found.setdefault(damage.ordinal, damage.reason)
        known.update(found)
        self.problems.append(
            f'{damage.stream}: {len(found)} of {len(ordinals)} messages cannot be used'
            f' ({damage.reason})'
        )
        self._streams = self.sources.stream_times()
        self._covered = self.sources.covered()

    def _note(self, result: SegmentResult) -> None:
        """Enter what was used into the ledger, and what was lost into the problems."""
        who = f'episode {result.segment.episode_id!r}'
        ledger = self.ledger
        used = np.unique(np.concatenate([np.zeros(0, np.int64), *result.used]))
        ledger.use(used)
        for ordinals in result.planned:
            ledger.drop(np.setdiff1d(ordinals, used))
        (ledger.converted if result.built else ledger.left_out).append(result.segment)
        if result.built:
            ledger.use(_ordinals(self._steps_of(result.segment)))
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
        elif result.built[0].episode.outcome != result.segment.outcome:
            self.problems.append(
                f'{who} goes on for longer than its samples do; whether it ended as'
                f' {result.segment.outcome!r} is not to be seen, so its outcome is unknown'
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
        states, commands = self._read(segment, [part.ticks for part in plan.parts])
        for name, part, measured in zip(
            self.names(segment, plan), plan.parts, states, strict=False
        ):
            rows = Rows(self.contract, part.ticks, measured, commands, segment)
            result.planned += part.ticks.ordinals.values()
            result.without_command += len(part.ticks) - len(rows.ticks)
            if not len(rows.ticks):
                continue
            result.used += [rows.used, *rows.ticks.ordinals.values()]
            episode = rows.episode(name, self.uri, part.complete, self.bag)
            result.built.append(Built(episode, rows.ticks))
        return result

    def _read(
        self, segment: Segment, parts: Sequence[Ticks]
    ) -> tuple[list[NDArray[np.float32]], list[Commands]]:
        """Return the states (T, S) of each part, and the commands of the segment, in one pass."""
        spans = self._command_times(segment)
        wanted = [
            state_numbers(
                stream,
                self.sources.topic_of(stream.stream),
                np.concatenate(
                    [np.zeros(0, np.int64), *(part.ordinals[stream.stream] for part in parts)]
                ),
            )
            for stream in self.contract.state
        ]
        wanted += [self._command_numbers(*span) for span in spans]
        found = read_numbers(self.bag, wanted)
        cuts = np.cumsum([len(part) for part in parts])
        measured = np.concatenate(
            [np.zeros((int(cuts[-1]) if parts else 0, 0)), *found[: len(self.contract.state)]], 1
        ).astype(np.float32)
        states = np.split(measured, cuts[:-1]) if parts else []
        commands = []
        for (action, stamps, ordinals), targets in zip(
            spans, found[len(self.contract.state) :], strict=True
        ):
            some = np.isfinite(targets).any(axis=1)
            columns = next(where for topic, where in columns_of(self.contract) if topic is action)
            commands.append(Commands(stamps[some], ordinals[some], targets[some], columns))
        return states, commands

    def _command_numbers(self, action: ActionTopic, stamps: Ints, ordinals: Ints) -> Numbers:
        """Return how to read the commands of a topic; those that do not decode are reported."""

        def refuse(ordinal: int, error: QtRosError) -> None:
            self.problems.append(str(error))
            self.ledger.damaged[ordinal] = str(error)

        def decode(message: Any) -> NDArray[np.float64]:
            return decode_command(action, message)

        name = self.sources.names[action.topic or '']
        return Numbers(name, ordinals, len(action.dims), decode, refuse)

    def _command_times(self, segment: Segment) -> list[tuple[ActionTopic, Ints, Ints]]:
        """Return the stamps and ordinals of a segment's commands, per topic that the bag has."""
        found = []
        sent_ns = sorted(s.command_ns for _, s in self._steps_of(segment) if s.command_ns)
        for action in self.contract.action:
            name = self.sources.names.get(action.topic or '')
            if name is None:
                continue
            stamps, ordinals = self.sources.times(name)
            low = np.searchsorted(stamps, segment.start_ns, side='left')
            high = np.searchsorted(stamps, segment.stop_ns, side='right')
            stamps, ordinals = stamps[low:high], ordinals[low:high]
            if self.sources.by_arrival(name):
                stamps = departures(stamps, sent_ns, self.contract.period_ns // 2)
            found.append((action, stamps, ordinals))
        return found


def _ordinals(pairs: Sequence[tuple[int, Any]]) -> Ints:
    return np.array([ordinal for ordinal, _ in pairs], dtype=np.int64)


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
        'declared_ticks': len(built.ticks.steps),
    }


def light(episode: Episode) -> Episode:
    """Return the episode without access to its images, small enough to hand between processes."""
    images = {camera: _no_frames for camera in episode.images}
    return replace(episode, images=images, together=None)


def _no_frames() -> Iterator[NDArray[np.uint8]]:
    raise BagError('the images of this episode were encoded already')
