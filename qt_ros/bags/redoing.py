"""Decide what leaves a dataset when bags are converted anew: only what something comes for.

A bag that gives nothing now keeps its episodes of before, and so do the episodes of a damaged bag
that are not found in it any more: bad input never costs data.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from qt_ros.bags.labels import Label
from qt_ros.bags.work import BagResult
from qt_ros.dataset import Dataset, read_labels
from qt_ros.dataset import Label as Said
from qt_ros.dataset.replacing import Change
from qt_ros.episode import Episode
from qt_ros.spelling import spelled


class Redoing:
    """Collects the changes of a dataset, bag by bag; `labels` are the rows given with the run."""

    def __init__(self, old: Dataset, labels: Sequence[Label]) -> None:
        self.changes: list[Change] = []
        self._old = old.episodes
        self._rows = labels
        self._labelled = {label.episode_index for label in read_labels(old.path)}
        self._gone: set[int] = set()
        self._said: list[Said] = []
        self._by_bag: dict[str, list[int]] = {}
        self._by_fingerprint: dict[str, list[int]] = {}
        for episode in self._old:
            self._by_bag.setdefault(episode.bag_uri, []).append(episode.index)
            if episode.fingerprint:
                self._by_fingerprint.setdefault(episode.fingerprint, []).append(episode.index)

    def add(self, result: BagResult, first: int) -> None:
        """Enter a bag whose episodes have the indices `first` and following; extend its report."""
        report, coming = result.report, [episode for episode, _ in result.episodes]
        here = self._by_bag.get(spelled(Path(report['bag']).resolve()), [])
        here = [index for index in here if index not in self._gone]
        if not coming:
            if here:
                report['problems'].append(
                    f'nothing came of it now; its {len(here)} episodes of before are kept'
                )
            return
        names = {episode.episode_id for episode in coming}
        lost = [index for index in here if self._old[index].episode_id not in names]
        if lost:
            stay = bool(report['partial'] or report['left_out'])
            self._tell_lost(report, lost, stay)
            if stay:
                here = [index for index in here if index not in lost]
        twins = {
            index
            for episode in coming
            for index in self._by_fingerprint.get(episode.fingerprint, ())
        }
        leaving = tuple(sorted({*here, *(twins - self._gone)}))
        self._gone.update(leaving)
        report['replaced'] = len(leaving)
        self.changes.append(Change(leaving, tuple(range(first, first + len(coming)))))
        for index, episode in enumerate(coming, start=first):
            self._note_label(episode, index, leaving)

    def labels(self) -> list[Said]:
        """Return what the rows given now say about episodes that were labelled before."""
        return self._said

    def _tell_lost(self, report: dict, lost: list[int], stay: bool) -> None:
        ids = ', '.join(repr(self._old[index].episode_id) for index in lost)
        if stay:
            text = f'episodes {ids} are not found in it now; as it is damaged, they are kept'
        else:
            text = f'episodes {ids} are not in it any more; they have left the dataset'
        report['problems'].append(text)

    def _note_label(self, episode: Episode, index: int, leaving: tuple[int, ...]) -> None:
        """Rows given now are newer than the labels that the episode brings along."""
        bag = Path(episode.bag_uri)
        rows = [
            row
            for row in self._rows
            if row.about(bag) and row.episode_id in ('', episode.episode_id)
        ]
        for old in (self._old[before] for before in leaving):
            if old.episode_id != episode.episode_id or old.index not in self._labelled:
                continue
            outcome = episode.outcome if any(row.outcome for row in rows) else old.outcome
            text = ''
            if any(row.instruction for row in rows) and episode.instruction != old.instruction:
                text = episode.instruction
            if text or outcome != old.outcome:
                self._said.append(
                    Said(
                        episode_index=index,
                        episode_id=episode.episode_id,
                        bag_uri=episode.bag_uri,
                        before=old.outcome,
                        outcome=outcome,
                        by='convert --replace --labels',
                        stamp_ns=time.time_ns(),
                        instruction_before=old.instruction if text else '',
                        instruction=text,
                    )
                )
