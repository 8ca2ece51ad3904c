"""Cut a bag into episodes: by events, by silence, or the whole bag as one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from qt_ros.episode import OUTCOMES, SOURCES

START, STOP, LABEL, INTERVENTION_START, INTERVENTION_STOP = range(5)
_KINDS = ('START', 'STOP', 'LABEL', 'INTERVENTION_START', 'INTERVENTION_STOP')


@dataclass(frozen=True)
class Event:
    """An EpisodeEvent with its time on the contract's clock [ns]."""

    stamp_ns: int
    kind: int
    episode_id: str = ''
    instruction: str = ''
    outcome: str = ''
    source: str = ''
    policy_id: str = ''


@dataclass(frozen=True)
class Segment:
    """The bounds of an episode and what is known about it.

    Ticks t_k with start_ns <= t_k < stop_ns belong to it. `interventions` are [from, to) times
    [ns] during which a person had control. `earlier_outcomes` are those that a label replaced.
    """

    episode_id: str
    start_ns: int
    stop_ns: int
    instruction: str = ''
    outcome: str = 'unknown'
    source: str = 'teleop'
    policy_id: str = ''
    interventions: tuple[tuple[int, int], ...] = ()
    earlier_outcomes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Segmentation:
    """The episodes of a bag in order of time, and what was odd, in sentences.

    `applied` are the lines of the label file that meant something for this bag.
    """

    segments: tuple[Segment, ...]
    problems: tuple[str, ...] = ()
    applied: frozenset[int] = frozenset()


def unique(name: str, taken: Collection[str]) -> str:
    """Return `name`, or NAME#2, NAME#3, ... where it is taken."""
    found, number = name, 2
    while found in taken:
        found, number = f'{name}#{number}', number + 1
    return found


def relabel(segment: Segment, outcome: str, instruction: str, source: str) -> Segment:
    """Return the segment with a later word about it; the earlier outcome stays on record."""
    earlier = segment.earlier_outcomes
    return replace(
        segment,
        outcome=outcome or segment.outcome,
        instruction=instruction or segment.instruction,
        source=source or segment.source,
        earlier_outcomes=(*earlier, segment.outcome) if outcome else earlier,
    )


def by_events(events: Sequence[Event], end_ns: int) -> Segmentation:
    """Pair START with STOP; `end_ns` is the time of the bag's last sample.

    Episodes never overlap: one that is still open when the next one starts, or when the bag ends,
    is closed there with outcome 'unknown', and reported. So where two recorders ran at once, each
    episode ends at the start of the other's. A STOP without START is reported and ignored, and so
    is an event that was recorded twice.
    """
    cutter = _Cutter()
    # Events of one time are taken in the order in which they were recorded.
    ordered = sorted(events, key=lambda each: each.stamp_ns)
    for event in dict.fromkeys(ordered):
        cutter.take(event)
    if len(set(ordered)) < len(ordered):
        cutter.problems.append(
            f'{len(ordered) - len(set(ordered))} events were recorded twice and count once'
        )
    cutter.close(max(end_ns, cutter.newest_ns), 'the recording ended')
    return Segmentation(tuple(cutter.labelled()), tuple(cutter.problems))


class _Cutter:
    """Walks through the events of a bag."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.newest_ns = 0
        self._done: list[Segment] = []
        self._open: Segment | None = None
        self._names: list[str] = []  # as the events spell them; the segments' own are unique
        self._unfinished: set[str] = set()
        self._person_since: int | None = None
        self._labels: list[Event] = []

    def take(self, event: Event) -> None:
        self.newest_ns = max(self.newest_ns, event.stamp_ns)
        if event.kind == START:
            if self._open is not None:
                self.close(event.stamp_ns, f'episode {event.episode_id!r} started')
            self._start(event)
        elif event.kind == STOP:
            self._stop(event)
        elif event.kind == LABEL:
            self._labels.append(event)
        elif event.kind == INTERVENTION_START and self._open is not None:
            if self._person_since is None:
                self._person_since = event.stamp_ns
        elif event.kind == INTERVENTION_STOP and self._open is not None:
            self._end_intervention(event.stamp_ns)
        else:
            known = 0 <= event.kind < len(_KINDS)
            kind = _KINDS[event.kind] if known else f'kind {event.kind}'
            self.problems.append(f'{kind} event outside of an episode was ignored')

    def close(self, stop_ns: int, why: str) -> None:
        """End an episode that has no STOP."""
        if self._open is None:
            return
        self.problems.append(
            f'episode {self._open.episode_id!r} has no STOP: it is closed where {why}, with'
            " outcome 'unknown'"
        )
        self._unfinished.add(self._names[-1])
        self._finish(stop_ns, 'unknown')

    def labelled(self) -> list[Segment]:
        """Apply the LABEL events, which may come at any time after; the newest wins."""
        for event in self._labels:
            at = self._meant(event)
            if at is None:
                self.problems.append(f'LABEL for unknown episode {event.episode_id!r} was ignored')
            elif event.outcome.lower() not in OUTCOMES and (
                event.outcome or not event.instruction
            ):
                self.problems.append(
                    f'LABEL for episode {self._done[at].episode_id!r} with outcome'
                    f' {event.outcome!r} was ignored; allowed: {", ".join(OUTCOMES)}'
                )
            else:
                said = event.outcome.lower(), event.instruction, ''
                self._done[at] = relabel(self._done[at], *said)
        return self._done

    def _meant(self, event: Event) -> int | None:
        """Return which episode a LABEL is about: the last one of that name before it."""
        name = event.episode_id
        fitting = [
            at
            for at, each in enumerate(self._done)
            if name in ('', each.episode_id, self._names[at])
        ]
        before = [at for at in fitting if self._done[at].start_ns <= event.stamp_ns]
        return max(before or fitting, default=None)

    def _start(self, event: Event) -> None:
        name = event.episode_id or f'episode_{len(self._done)}'
        mine = unique(name, {segment.episode_id for segment in self._done})
        if mine != name:
            self.problems.append(f'episode id {name!r} is used twice; the second is {mine!r}')
        source = event.source.lower()
        if source not in SOURCES:
            source = 'policy' if event.policy_id else 'teleop'
            if event.source:
                self.problems.append(f'source {event.source!r} of {mine!r} is taken as {source}')
        self._names.append(name)
        self._open = Segment(
            mine,
            event.stamp_ns,
            event.stamp_ns,
            event.instruction,
            'unknown',
            source,
            event.policy_id,
        )

    def _stop(self, event: Event) -> None:
        running = self._open
        if running is None or event.episode_id not in ('', self._names[-1]):
            closed = event.episode_id in self._unfinished
            self.problems.append(
                f'STOP of episode {event.episode_id!r} came after another episode had started; how'
                ' it ended stays unknown'
                if closed
                else f'STOP of episode {event.episode_id!r} without its START was ignored'
            )
            return
        outcome = event.outcome.lower()
        if outcome not in OUTCOMES:
            self.problems.append(
                f'outcome {event.outcome!r} of {running.episode_id!r} is taken as unknown;'
                f' allowed: {", ".join(OUTCOMES)}'
            )
            outcome = 'unknown'
        self._finish(event.stamp_ns, outcome)

    def _end_intervention(self, stop_ns: int) -> None:
        if self._open is not None and self._person_since is not None:
            span = (self._person_since, stop_ns)
            self._open = replace(self._open, interventions=(*self._open.interventions, span))
        self._person_since = None

    def _finish(self, stop_ns: int, outcome: str) -> None:
        self._end_intervention(stop_ns)
        segment = self._open
        if segment is None:
            return
        mixed = segment.source == 'policy' and segment.interventions
        self._done.append(
            replace(
                segment,
                stop_ns=stop_ns,
                outcome=outcome,
                source='mixed' if mixed else segment.source,
            )
        )
        self._open = None


def one_per_bag(name: str, stamps_ns: Iterable[NDArray[np.int64]]) -> Segmentation:
    """Take the whole bag as one episode, from the first to the last sample of any stream."""
    bounds = [(int(each.min()), int(each.max())) for each in stamps_ns if len(each)]
    if not bounds:
        return Segmentation(())
    start, stop = min(low for low, _ in bounds), max(high for _, high in bounds)
    return Segmentation((Segment(name, start, stop),))


def by_time_gap(name: str, stamps_ns: Iterable[NDArray[np.int64]], gap_s: float) -> Segmentation:
    """Cut where all streams are silent for more than `gap_s`; episodes are NAME/0, NAME/1, ..."""
    parts = [each for each in stamps_ns if len(each)]
    if not parts:
        return Segmentation(())
    stamps = np.sort(np.concatenate(parts))
    cuts = np.flatnonzero(np.diff(stamps) > round(gap_s * 1e9)) + 1
    pieces = np.split(stamps, cuts)
    return Segmentation(
        tuple(
            Segment(f'{name}/{number}', int(piece[0]), int(piece[-1]))
            for number, piece in enumerate(pieces)
        )
    )
