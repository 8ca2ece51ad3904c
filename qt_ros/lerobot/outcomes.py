"""How an episode of a LeRobot set ended: by the command line, our own columns, or `next.*`.

given on the command line       that, for every episode
our own episode column          that (a set that qt-ros wrote, or LeRobot made of one)
next.success on the last row    success
else cut off                    timeout: next.truncated there, or next.done not there
else                            failure
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qt_ros.dataset.labels import newest_outcomes
from qt_ros.episode import OUTCOMES, SOURCES, check_outcome
from qt_ros.errors import DatasetError
from qt_ros.lerobot.errors import SourceError
from qt_ros.lerobot.source import Source, SourceEpisode

SUCCESS, TRUNCATED, DONE = 'next.success', 'next.truncated', 'next.done'
COLUMNS = (SUCCESS, TRUNCATED, DONE)
FROM_COMMAND_LINE, FROM_COLUMNS, FROM_ROWS = 'command line', 'episode columns', SUCCESS


class Outcomes:
    """Says how episodes ended and who drove; `SourceError` if a set has no word about it."""

    def __init__(
        self,
        source: Source,
        outcome: str | None,
        driver: str | None,
        chosen: Sequence[SourceEpisode],
    ) -> None:
        self._given = None if outcome is None else check_outcome(outcome)
        if driver is not None and driver not in SOURCES:
            raise DatasetError(f'source {driver!r} is unknown; allowed: {", ".join(SOURCES)}')
        self._driver = driver
        self._labels = _labels(source.path)
        self._rows = SUCCESS in source.info.features
        silent = [each.index for each in chosen if not self._knows(each)]
        if silent:
            raise SourceError(
                f'{source.path} does not say which episodes succeeded ({len(silent)} of'
                f' {len(chosen)}): it has no feature {SUCCESS} and no episode column'
                f' outcome. Either record {SUCCESS} (true on the last row of a success), or give'
                f' one outcome for all with --outcome {"|".join(OUTCOMES)}; import parts one by'
                ' one with --episodes, or correct single ones later with qt-ros label'
            )

    def of(self, episode: SourceEpisode, rows: Mapping[str, NDArray]) -> tuple[str, str]:
        """Return the outcome of an episode and where that stands."""
        if self._given is not None:
            return self._given, FROM_COMMAND_LINE
        stored = self._stored(episode)
        if stored is not None:
            return stored, FROM_COLUMNS
        if _last(rows, SUCCESS, False):
            return 'success', FROM_ROWS
        cut = _last(rows, TRUNCATED, False) or not _last(rows, DONE, True)
        return ('timeout' if cut else 'failure'), FROM_ROWS

    def driver(self, episode: SourceEpisode) -> str:
        """Return who drove: teleop, policy or mixed."""
        stored = episode.ours.get('source')
        return self._driver or (stored if stored in SOURCES else 'teleop')

    def remark(self, episode: SourceEpisode, rows: Mapping[str, NDArray], outcome: str) -> str:
        """Return what the set itself says against `outcome`, '' if nothing."""
        stored = self._stored(episode)
        if self._given is not None and stored not in (None, outcome):
            return f'the set says {stored}; --outcome {outcome} was taken'
        if SUCCESS not in rows or stored is not None:
            return ''
        ever = bool((np.asarray(rows[SUCCESS]) != 0).any())
        if self._given is not None and ever != (outcome == 'success'):
            said = 'true' if ever else 'never true'
            return f'{SUCCESS} is {said}; --outcome {outcome} was taken'
        if ever and outcome != 'success':
            return f'{SUCCESS} is true before the last row, not on it: taken as {outcome}'
        return ''

    def _knows(self, episode: SourceEpisode) -> bool:
        return self._given is not None or self._rows or self._stored(episode) is not None

    def _stored(self, episode: SourceEpisode) -> str | None:
        stored = self._labels.get(episode.index, episode.ours.get('outcome'))
        return stored if stored in OUTCOMES else None


def _last(rows: Mapping[str, NDArray], name: str, otherwise: bool) -> bool:
    return bool(rows[name][-1] != 0) if name in rows else otherwise


def _labels(root: Path) -> dict[int, str]:
    """Return the newest labels, where the set is one of ours and was relabelled."""
    try:
        return newest_outcomes(root)
    except OSError as error:
        raise SourceError(f'{root}: its labels cannot be read: {error.strerror}') from error
