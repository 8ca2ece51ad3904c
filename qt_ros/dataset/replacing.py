"""Exchange some episodes of a dataset for others: make the set anew beside it, then swap folders.

    with replacing('pushing', contract) as change:
        change.fresh.append(episode)                  # what comes in
        change.build([Change(leaving=(3, 4), coming=(0,))])

Leaving the block without an error puts the new set in the place of the old one; a SIGKILL at any
moment leaves the whole old set or the whole new one (`swap`). Nothing that stays is encoded anew:
its videos are hard links. Labels that people gave stay with their episodes, and files of others in
the folder come along; only `.cache`, which is made from the set, does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from qt_ros.contract import Contract
from qt_ros.dataset.catalog import EpisodeMeta
from qt_ros.dataset.files import TEMPORARY, link_or_copy, locked, plain_errors, write_text
from qt_ros.dataset.labels import Label, add_labels, read_labels
from qt_ros.dataset.layout import (
    CACHE,
    CONTRACT,
    INFO,
    LABELS,
    LOCK,
    STAGING,
    STATS,
    TASKS,
    read_info,
    write_info,
)
from qt_ros.dataset.reader import Dataset
from qt_ros.dataset.relabel import follow_labels
from qt_ros.dataset.swap import FRESH, NEW, beside, foreign_to, remove_leftovers, swap
from qt_ros.dataset.writer import BATCH, DatasetWriter
from qt_ros.errors import DatasetError

GONE = -1  # episode index of a label whose episode is no longer in the set
_MADE = re.compile(r'(?:data|meta/episodes|videos/[^/]+)/chunk-\d+/file-\d+\.(?:parquet|mp4)')
_WRITTEN = frozenset((INFO, STATS, TASKS, CONTRACT, LABELS, LOCK))


@dataclass(frozen=True)
class Change:
    """Episodes of the old set that leave, and those of `fresh` that come in their place."""

    leaving: tuple[int, ...]
    coming: tuple[int, ...]


class Replacement:
    """A dataset in the making; see `replacing`."""

    def __init__(self, path: Path, contract: Contract, batch: int) -> None:
        self.old = Dataset(path)
        self.path = beside(path) / NEW  # of the new set, once it is built
        self.fresh = DatasetWriter(beside(path) / FRESH, contract, batch=batch)
        self._contract = contract
        self._batch = batch
        self.built = False

    def build(self, changes: Sequence[Change], labels: Iterable[Label] = ()) -> Dataset:
        """Make the new set: what comes in takes the place of what leaves, the rest is at the end.

        `labels` are given now, about episodes of `fresh` (by index there), and are newer than all
        others. Raises `DatasetError`, and `CannotWrite` where the disk takes no more.
        """
        self.fresh.close()
        fresh = Dataset(self.fresh.path)
        order = merged_order(len(self.old), changes)
        with plain_errors(self.path):
            write_text(self.path / CONTRACT, (self.old.path / CONTRACT).read_text('utf-8'))
            empty = {'total_episodes': 0, 'total_frames': 0, 'total_tasks': 0, 'splits': {}}
            write_info(self.path, {**self.old.info(), **empty})
        with DatasetWriter(self.path, self._contract, batch=self._batch) as writer:
            for comes_in, index in order:
                writer.adopt(fresh if comes_in else self.old, index)
        places = {place: index for index, place in enumerate(order)}
        with plain_errors(self.path):
            carried = _carried(self.old, fresh, changes, places)
            given = [
                replace(each, episode_index=places[True, each.episode_index]) for each in labels
            ]
            if carried or given:
                add_labels(self.path, [*carried, *given])
            follow_labels(self.path, self._contract, read_info(self.path))
            _take_along(self.old.path, self.path)
        self.built = True
        return Dataset(self.path)


@contextmanager
def replacing(
    path: str | Path, contract: Contract, *, batch: int = BATCH
) -> Iterator[Replacement]:
    """Hold dataset `path` and hand out its replacement, which takes its place at the end.

    Nothing changes if `build` was not called or the block raises. Raises `DatasetError` if the
    dataset is being written, was made with another contract, or cannot be put aside.
    """
    root = Path(path)
    with DatasetWriter(root, contract):  # holds the lock, and mends what a crash left
        work = beside(root)
        with plain_errors(root):
            if work.is_dir() and (names := foreign_to(work)):
                raise DatasetError(
                    f'{work} is needed to replace episodes, but holds {", ".join(names[:3])};'
                    ' move that away'
                )
            if root.resolve() in (Path.cwd(), *Path.cwd().parents):
                raise DatasetError(
                    f'{root} is or holds the working folder, so it cannot be put aside; run this'
                    ' from another folder'
                )
            work.mkdir(exist_ok=True)
        try:
            change = Replacement(root, contract, batch)
            try:
                yield change
            finally:
                change.fresh.close()
            if change.built:
                with plain_errors(root), locked(change.path / LOCK, str(root)):
                    swap(root)
                    remove_leftovers(root)
        finally:
            remove_leftovers(root)


def merged_order(old: int, changes: Sequence[Change]) -> list[tuple[bool, int]]:
    """Return the episodes of the new set, (True, index in fresh) or (False, index in old).

    What comes in stands where the first of those that leave for it stood.
    """
    place = {min(each.leaving): each.coming for each in changes if each.leaving}
    gone = {index for each in changes for index in each.leaving}
    order: list[tuple[bool, int]] = []
    for index in range(old):
        order += [(True, coming) for coming in place.get(index, ())]
        if index not in gone:
            order.append((False, index))
    for each in changes:
        if not each.leaving:
            order += [(True, coming) for coming in each.coming]
    return order


def _carried(
    old: Dataset,
    fresh: Dataset,
    changes: Sequence[Change],
    places: dict[tuple[bool, int], int],
) -> list[Label]:
    """Return the journal with the episode indices of the new set.

    A label of an episode that leaves goes to the one with its id among those that come for it,
    and stays on record without an episode if there is none.
    """
    heirs: dict[int, int] = {}
    for change in changes:
        by_id = {fresh.episodes[index].episode_id: index for index in change.coming}
        for index in change.leaving:
            heir = by_id.get(old.episodes[index].episode_id)
            heirs[index] = GONE if heir is None else places[True, heir]
    by_name = {_name(fresh.episodes[i]): at for (new, i), at in places.items() if new}
    found = []
    for label in read_labels(old.path):
        index = label.episode_index
        if index == GONE:  # its episode may be back
            index = by_name.get((label.bag_uri, label.episode_id), GONE)
        else:
            index = heirs[index] if index in heirs else places[False, index]
        found.append(replace(label, episode_index=index))
    return found


def _name(episode: EpisodeMeta) -> tuple[str, str]:
    return episode.bag_uri, episode.episode_id


def _take_along(old: Path, new: Path) -> None:
    """Link what others keep in the folder of a dataset into the new one."""
    for source in old.rglob('*'):
        name = source.relative_to(old)
        if name.parts[0] == STAGING or name.as_posix() in _WRITTEN:
            continue
        if name.parts[0] == CACHE and not (old / CACHE).is_symlink():
            continue  # a link to a larger disk is the user's
        target = new / name
        if source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.readlink())
        elif source.is_dir():
            continue
        elif not _MADE.fullmatch(name.as_posix()) and source.suffix != TEMPORARY:
            link_or_copy(source, target)
