"""What a dataset has of a recording already: here, under another path, or as it was before.

An episode is known by its bag and its id. Besides, its fingerprint names the content of its
recording, so that a bag that was moved or copied is not taken for a new one.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qt_ros.bags.episodes import BagConversion
from qt_ros.bags.segments import Segment
from qt_ros.contract import Contract
from qt_ros.dataset import EpisodeMeta
from qt_ros.episode import Episode

Start = tuple[int, str, str]  # start [ns], fingerprint and bag of an episode


@dataclass(frozen=True)
class Known:
    """What a dataset holds that one bag may hold too; small enough to hand to a worker."""

    bag: str
    here: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # id: (start [ns], rows)
    starts: tuple[Start, ...] = ()  # of the whole dataset, sorted

    def may_hold(self, segment: Segment) -> bool:
        """Return False if nothing known lies within the bounds of a segment of the bag."""
        name = segment.episode_id
        if any(known == name or known.startswith(f'{name}.part') for known in self.here):
            return True
        low = bisect_left(self.starts, (segment.start_ns,))
        return low < bisect_left(self.starts, (segment.stop_ns + 1,))

    def twin(self, episode: Episode) -> str:
        """Return another bag in which the same stretch was recorded, or ''."""
        return _twin(self.starts, episode, self.bag)


@dataclass(frozen=True)
class Standing:
    """How the episodes of a segment stand to those of the dataset, in words where it is odd."""

    there: bool  # all of them are in the dataset
    episodes: int = 0
    moved: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


class Recordings:
    """Every recording of a dataset that is being written; `add` what was appended."""

    def __init__(self, episodes: Iterable[EpisodeMeta] = ()) -> None:
        self._by_bag: dict[str, dict[str, tuple[int, int]]] = {}
        self._starts: list[Start] = []
        self._shared: tuple[Start, ...] | None = None  # one for the tasks of all bags
        for episode in episodes:
            self._enter(episode, episode.length)

    def add(self, episode: Episode) -> None:
        """Enter an episode that was just appended."""
        self._enter(episode, len(episode))

    def _enter(self, episode: Episode | EpisodeMeta, rows: int) -> None:
        known = self._by_bag.setdefault(episode.bag_uri, {})
        known[episode.episode_id] = (episode.start_stamp_ns, rows)
        if episode.fingerprint:
            insort(self._starts, (episode.start_stamp_ns, episode.fingerprint, episode.bag_uri))
            self._shared = None

    def of(self, bag: str) -> Known:
        """Return what may be known of one bag, as it is now."""
        if self._shared is None:
            self._shared = tuple(self._starts)
        return Known(bag, dict(self._by_bag.get(bag, {})), self._shared)

    def twin(self, episode: Episode) -> str:
        """Return another bag in which the same stretch was recorded, or ''."""
        return _twin(self._starts, episode, episode.bag_uri)


def _twin(starts: Sequence[Start], episode: Episode, bag: str) -> str:
    at = bisect_left(starts, (episode.start_stamp_ns, episode.fingerprint))
    while at < len(starts) and starts[at][:2] == (episode.start_stamp_ns, episode.fingerprint):
        if starts[at][2] != bag:
            return starts[at][2]
        at += 1
    return ''


def fingerprint(episode: Episode, contract: Contract) -> str:
    """Return a sha256 (hex) of what was recorded: times, states, commands, the first pictures.

    It does not depend on path, id, outcome or the encoder. The first pictures tell apart attempts
    in simulation time that start alike and run without looking.
    """
    found = hashlib.sha256(str(episode.start_stamp_ns).encode())
    for stream in sorted(episode.stamps_ns):
        found.update(np.ascontiguousarray(episode.stamps_ns[stream]).data)
    found.update(np.ascontiguousarray(episode.state).data)
    # Whether the policy was done follows from the outcome where nobody said it.
    moves = episode.action if contract.terminate_bins is None else episode.action[:, :-1]
    found.update(np.ascontiguousarray(moves).data)
    for camera in sorted(episode.images):
        found.update(np.ascontiguousarray(next(episode.images[camera]())).data)
    return found.hexdigest()


def standing(conversion: BagConversion, segment: Segment, known: Known) -> Standing:
    """Compare a segment with what is known; pictures are looked at only where that is needed."""
    if not known.may_hold(segment):
        return Standing(False)
    names: dict[str, str] = {}

    def note(episode: Episode) -> None:
        names[episode.episode_id] = fingerprint(episode, conversion.contract)

    def look_at_all(episode: Episode) -> None:
        for frames in episode.images.values():
            for _ in frames():
                pass

    found = _compare(conversion, segment, known, names, note)
    if found.changed:  # a damaged picture moves the ticks, and shows only when it is decoded
        found = _compare(conversion, segment, known, names, look_at_all)
    return found


def _compare(
    conversion: BagConversion,
    segment: Segment,
    known: Known,
    names: dict[str, str],
    handle: Callable[[Episode], None],
) -> Standing:
    there, moved, changed = 0, [], []
    built = conversion.rehearse(segment, handle).built
    for episode in (each.episode for each in built):
        name = episode.episode_id
        before = known.here.get(name)
        now = (episode.start_stamp_ns, len(episode))
        if before == now:
            there += 1
        elif before is not None:
            changed.append(
                f'episode {name!r} has changed since it was converted: {before[1]} rows from'
                f' {before[0]} ns then, {now[1]} rows from {now[0]} ns now; use --replace to'
                ' convert the recording anew'
            )
        elif twin := known.twin(replace(episode, fingerprint=names.get(name, ''))):
            there += 1
            moved.append(passed_over(name, twin))
    whole = there == len(built) > 0
    return Standing(whole, there, tuple(moved) if whole else (), tuple(changed))


def passed_over(episode_id: str, twin: str) -> str:
    """Return the sentence about an episode that lies in the dataset from another path."""
    return (
        f'episode {episode_id!r} is in the dataset already, from {twin}: the same recording under'
        ' another path; it is not added again'
    )
