"""Which episodes of a dataset the rows of a label file mean, and what would change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from qt_ros.bags.labelling import row_names
from qt_ros.bags.labels import Label
from qt_ros.dataset.catalog import EpisodeMeta

SHOWN = 6  # names in one message


@dataclass(frozen=True)
class Change:
    """What a label changes about an episode; before and after may agree in one of the two."""

    episode: EpisodeMeta
    outcome: str
    instruction: str


@dataclass
class Matching:
    """What a label file means for a dataset.

    `rows` {episode index: the row that counts}; `missing` rows of episodes or recordings that the
    dataset does not hold, and `problems` rows that cannot be right, in sentences.
    """

    rows: dict[int, Label] = field(default_factory=dict)
    repeated: int = 0  # rows that a later one about the same episode replaced
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def changes(self, episodes: Sequence[EpisodeMeta]) -> list[Change]:
        """Return what would change, in the order of the dataset."""
        found = []
        for index in sorted(self.rows):
            episode, row = episodes[index], self.rows[index]
            outcome = row.outcome or episode.outcome
            instruction = row.instruction or episode.instruction
            if (outcome, instruction) != (episode.outcome, episode.instruction):
                found.append(Change(episode, outcome, instruction))
        return found


def not_followed(
    labels: Sequence[Label], episodes: Sequence[EpisodeMeta], new: Iterable[tuple[str, str]]
) -> list[str]:
    """Return a remark about episodes that a dataset had before and that the rows contradict.

    `new` are bag and id of those that were converted with the rows.
    """
    fresh = set(new)
    old = [
        f'{change.episode.episode_id} of {change.episode.bag_uri}'
        for change in match(labels, episodes).changes(episodes)
        if (change.episode.bag_uri, change.episode.episode_id) not in fresh
    ]
    if not old:
        return []
    return [
        f'labels: {len(old)} episodes are in the dataset already and stay as they were labelled'
        f' ({_some(old)}); to correct them run qt-ros label DATASET --csv FILE'
    ]


def match(labels: Sequence[Label], episodes: Sequence[EpisodeMeta]) -> Matching:
    """Find the episode of every row: by episode_index, by episode_id, or the only one of a bag.

    A row with the bounds of an episode but no episode_id means the one that a conversion with the
    same file made of it, so a corrected label file can be given again as it is.
    """
    by_id: dict[str, list[EpisodeMeta]] = defaultdict(list)
    by_bag: dict[str, list[EpisodeMeta]] = defaultdict(list)
    for episode in episodes:
        by_id[episode.episode_id].append(episode)
        by_bag[episode.bag_uri].append(episode)
    names = _names_of_bounds(labels, by_bag)
    found = Matching()
    for label in labels:
        fitting = _fitting(label, episodes, by_id, by_bag, names)
        if label.episode_index is not None and label.episode_index >= len(episodes):
            found.missing.append(
                f'{label}: the dataset has episodes 0 to {len(episodes) - 1}'
                if episodes
                else f'{label}: the dataset has no episodes'
            )
        elif not fitting:
            found.missing.append(f'{label} fits no episode{_hint(label, by_id, by_bag)}')
        elif len(fitting) > 1:
            found.problems.append(
                f'{label} fits {len(fitting)} episodes ({_some(_full(e) for e in fitting)}); give'
                ' episode_id and bag, or episode_index'
            )
        elif label.source and label.source != fitting[0].source:
            found.problems.append(
                f'{label}: source is {fitting[0].source!r} in the dataset, which a label cannot'
                ' change; leave it empty, or convert the recording again with --replace'
            )
        else:
            index = fitting[0].index
            found.repeated += index in found.rows
            found.rows[index] = _later(found.rows.get(index), label)
    return found


def _fitting(
    label: Label,
    episodes: Sequence[EpisodeMeta],
    by_id: Mapping[str, list[EpisodeMeta]],
    by_bag: Mapping[str, list[EpisodeMeta]],
    names: Mapping[tuple[int, str], str],
) -> list[EpisodeMeta]:
    if label.episode_index is not None:
        candidates = list(episodes[label.episode_index : label.episode_index + 1])
    elif label.episode_id:
        candidates = by_id.get(label.episode_id, [])
    else:
        candidates = [
            episode
            for uri, held in by_bag.items()
            if label.about(Path(uri))
            for episode in held
            if names.get((label.line, uri), episode.episode_id) == episode.episode_id
        ]
    return [
        episode
        for episode in candidates
        if label.episode_id in ('', episode.episode_id) and label.about(Path(episode.bag_uri))
    ]


def _names_of_bounds(labels: Sequence[Label], by_bag: Iterable[str]) -> dict[tuple[int, str], str]:
    """Return {(line, bag): id} of the episodes that a conversion made of rows with bounds."""
    bounded = [label for label in labels if label.bounded and label.bag]
    found = {}
    for uri in by_bag if bounded else ():
        mine = [label for label in bounded if label.about(Path(uri))]
        for label, name in zip(mine, row_names(mine, Path(uri)), strict=True):
            found[label.line, uri] = name
    return found


def _later(before: Label | None, label: Label) -> Label:
    """Return the row that counts: the later one; what it leaves out stays as said before."""
    if before is None:
        return label
    return Label(
        outcome=label.outcome or before.outcome,
        instruction=label.instruction or before.instruction,
        line=label.line,
    )


def _hint(
    label: Label, by_id: Mapping[str, list[EpisodeMeta]], by_bag: Mapping[str, object]
) -> str:
    """Say what is there that the row may have meant."""
    if label.episode_id in by_id and label.episode_id:
        bags = _some(dict.fromkeys(episode.bag_uri for episode in by_id[label.episode_id]))
        return f'; {label.episode_id!r} is an episode of {bags}'
    if label.episode_id:
        parts = [name for name in by_id if name.startswith(f'{label.episode_id}.part')]
        near = parts or get_close_matches(label.episode_id, list(by_id), SHOWN, 0.7)
        return f'; near to it are {_some(near)}' if near else ''
    tails = {Path(uri).name: None for uri in by_bag if uri}
    near = get_close_matches(Path(label.bag).name, list(tails), SHOWN, 0.6)
    return f'; recordings of like name: {_some(near)}' if near else ''


def _full(episode: EpisodeMeta) -> str:
    return f'{episode.index}: {episode.episode_id} of {episode.bag_uri}'


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return f'{", ".join(listed[:SHOWN])}{", ..." if len(listed) > SHOWN else ""}'
