"""Cut a bag into episodes: by events, by silence, or the whole bag as one; then label them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.labels import Label
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
    """The episodes of a bag in order of time, and what was odd, in sentences."""

    segments: tuple[Segment, ...]
    problems: tuple[str, ...] = ()


def by_events(events: Sequence[Event], end_ns: int) -> Segmentation:
    """Pair START with STOP; `end_ns` is the time of the bag's last sample.

    An episode that is still open when the next one starts, or when the bag ends, is closed there
    with outcome 'unknown', and reported. A STOP without START is reported and ignored.
    """
    cutter = _Cutter()
    # Events of one time are taken in the order in which they were recorded.
    for event in sorted(events, key=lambda each: each.stamp_ns):
        cutter.take(event)
    cutter.close(max(end_ns, cutter.newest_ns), 'the recording ended')
    return Segmentation(tuple(cutter.labelled()), tuple(cutter.problems))


class _Cutter:
    """Walks through the events of a bag."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.newest_ns = 0
        self._done: list[Segment] = []
        self._open: Segment | None = None
        self._open_name = ''  # as the events spell it; the segment's own is unique
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
            kind = _KINDS[event.kind] if event.kind < len(_KINDS) else f'kind {event.kind}'
            self.problems.append(f'{kind} event outside of an episode was ignored')

    def close(self, stop_ns: int, why: str) -> None:
        """End an episode that has no STOP."""
        if self._open is None:
            return
        self.problems.append(
            f'episode {self._open.episode_id!r} has no STOP: it is closed where {why}, with'
            " outcome 'unknown'"
        )
        self._finish(stop_ns, 'unknown')

    def labelled(self) -> list[Segment]:
        """Apply the LABEL events, which may come at any time after; the newest wins."""
        segments = self._done
        for event in self._labels:
            wanted = event.episode_id or (segments[-1].episode_id if segments else '')
            if wanted not in [segment.episode_id for segment in segments]:
                self.problems.append(f'LABEL for unknown episode {wanted!r} was ignored')
            elif event.outcome not in OUTCOMES:
                self.problems.append(
                    f'LABEL for episode {wanted!r} with outcome {event.outcome!r} was ignored;'
                    f' allowed: {", ".join(OUTCOMES)}'
                )
            else:
                segments = [
                    relabel(each, event.outcome, event.instruction)
                    if each.episode_id == wanted
                    else each
                    for each in segments
                ]
        return segments

    def _start(self, event: Event) -> None:
        name = event.episode_id or f'episode_{len(self._done)}'
        taken = {segment.episode_id for segment in self._done}
        unique, number = name, 2
        while unique in taken:
            unique, number = f'{name}#{number}', number + 1
        if unique != name:
            self.problems.append(f'episode id {name!r} is used twice; the second is {unique!r}')
        source = event.source
        if source not in SOURCES:
            source = 'policy' if event.policy_id else 'teleop'
            if event.source:
                self.problems.append(f'source {event.source!r} of {unique!r} is taken as {source}')
        self._open_name = event.episode_id
        self._open = Segment(
            unique,
            event.stamp_ns,
            event.stamp_ns,
            event.instruction,
            'unknown',
            source,
            event.policy_id,
        )

    def _stop(self, event: Event) -> None:
        running = self._open
        if running is None or event.episode_id not in ('', self._open_name):
            self.problems.append(
                f'STOP of episode {event.episode_id!r} without its START was ignored'
            )
            return
        outcome = event.outcome
        if outcome not in OUTCOMES:
            self.problems.append(
                f'outcome {outcome!r} of {running.episode_id!r} is taken as unknown; allowed:'
                f' {", ".join(OUTCOMES)}'
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


def relabel(segment: Segment, outcome: str, instruction: str = '', source: str = '') -> Segment:
    """Return the segment with a later word about it; the earlier outcome stays on record."""
    return replace(
        segment,
        outcome=outcome,
        instruction=instruction or segment.instruction,
        source=source or segment.source,
        earlier_outcomes=(*segment.earlier_outcomes, segment.outcome),
    )


def apply_labels(
    found: Segmentation, labels: Sequence[Label], bag: Path, first_ns: int
) -> Segmentation:
    """Apply the rows of a label file that speak of this bag.

    Rows with bounds replace the segmentation of the bag: its episodes are then exactly these.
    `first_ns` is the time that `start_s` counts from.
    """
    mine = [label for label in labels if label.about(bag)]
    bounded = [label for label in mine if label.bounds_s and (label.bag or label.episode_id)]
    segments = list(found.segments)
    problems = list(found.problems)
    if bounded:
        segments = [
            Segment(
                label.episode_id or f'{bag.stem}/{number}',
                first_ns + round(label.bounds_s[0] * 1e9),
                first_ns + round(label.bounds_s[1] * 1e9),
                label.instruction,
                label.outcome,
                label.source or 'teleop',
            )
            for number, label in enumerate(bounded)
            if label.bounds_s is not None
        ]
        segments.sort(key=lambda each: each.start_ns)
        for before, after in pairwise(segments):
            if after.start_ns < before.stop_ns:
                problems.append(
                    f'labels: episodes {before.episode_id!r} and {after.episode_id!r} overlap'
                )
    for label in mine:
        if label.bounds_s is None:
            segments = _relabel_all(segments, label, problems)
    return Segmentation(tuple(segments), tuple(problems))


def _relabel_all(segments: list[Segment], label: Label, problems: list[str]) -> list[Segment]:
    if label.episode_id:
        targets = [each.episode_id for each in segments if each.episode_id == label.episode_id]
        missing = label.bag and not targets
    else:
        targets = [each.episode_id for each in segments]
        missing = len(targets) > 1
    if missing:
        known = ', '.join(each.episode_id for each in segments) or 'none'
        problems.append(
            f'labels: row for bag {label.bag!r}, episode {label.episode_id!r} fits no single'
            f' episode and was ignored; its episodes: {known}'
        )
        return segments
    return [
        relabel(each, label.outcome, label.instruction, label.source)
        if each.episode_id in targets
        else each
        for each in segments
    ]
