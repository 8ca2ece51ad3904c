"""The cadence of a live policy: the same rows and the same sums as from a recording of it."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from qt_ros.cadence import StepRow, cadence_report, flat, row_of, words
from qt_ros.nodes.control.records import EpisodeEnd

EPISODE = 6000  # ticks of an episode that its report is about: ten minutes at 10 Hz
NEWEST = 100  # ticks that /diagnostics is about: each second costs the loop about a millisecond


class Rhythm:
    """Keeps a row for each `PolicyStep` that is published, and sums them up on request."""

    def __init__(self) -> None:
        self._newest: deque[StepRow] = deque(maxlen=NEWEST)
        self._episode: deque[StepRow] = deque(maxlen=EPISODE)

    def add(self, step: Any) -> None:
        """Take in a `PolicyStep`; the first of another episode begins that episode's report."""
        row = row_of(step)
        if self._episode and row.episode_id != self._episode[0].episode_id:
            self._episode.clear()
        self._episode.append(row)
        self._newest.append(row)

    def values(self) -> dict[str, str]:
        """Return the report on the newest ticks as key-value pairs of a diagnostic status."""
        if not self._newest:
            return {}
        return {
            f'cadence.{name}': value for name, value in flat(cadence_report(self._newest)).items()
        }

    def told_with(self, end: EpisodeEnd) -> EpisodeEnd:
        """Return how an episode ended with its report in one line, if it had a tick."""
        if not self._episode or self._episode[0].episode_id != end.goal.episode_id:
            return end
        return replace(end, message=f'{end.message}; {words(cadence_report(self._episode))}')
