"""One episode of a LeRobot set as an `Episode`: observations, actions, outcome, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qt_ros.contract import Camera, Contract, StateStream
from qt_ros.episode import Episode
from qt_ros.images.decoding import fit_picture
from qt_ros.lerobot.actions import Actions, Rows, own_contract, values_of
from qt_ros.lerobot.errors import EpisodeError
from qt_ros.lerobot.mapping import match
from qt_ros.lerobot.outcomes import COLUMNS, Outcomes
from qt_ros.lerobot.resampling import Ticks, ticks_of
from qt_ros.lerobot.source import Source, SourceEpisode
from qt_ros.message_types import DecodeError

INTERVENTIONS = ('intervention', 'complementary_info.is_intervention')


@dataclass(frozen=True)
class Built:
    """An episode, where its outcome stands, and what to tell about it."""

    episode: Episode
    outcome_from: str
    remarks: list[str]


class Builder:
    """Makes episodes; what could be wrong with the set as a whole is found on making one.

    The arguments are those of `importing.import_lerobot`.
    """

    def __init__(
        self,
        source: Source,
        contract: Contract,
        chosen: Sequence[SourceEpisode],
        *,
        names: Mapping[str, str],
        actions: str | None,
        outcome: str | None,
        driver: str | None,
    ) -> None:
        self._source, self._contract = source, contract
        own = own_contract(source, contract, chosen) if actions is None else None
        self.mapping = match(contract, source.info, names, own)
        self._actions = Actions(source, contract, self.mapping.action, own, actions)
        self._outcomes = Outcomes(source, outcome, driver, chosen)
        features = source.info.features
        self._intervention = next((key for key in INTERVENTIONS if key in features), None)
        self._columns = [
            *self.mapping.features,
            *self._actions.features,
            *COLUMNS,
            *([self._intervention] if self._intervention else []),
            *(f'{kind}.{s}' for s in contract.streams for kind in ('stamp_ns', 'valid')),
        ]

    @property
    def actions(self) -> str:
        """Return how the set's actions are understood."""
        return self._actions.kind

    def uri(self, each: SourceEpisode) -> str:
        """Return the name of an episode's recording."""
        return f'{self._source.path}#{each.index}'

    def episode_id(self, each: SourceEpisode) -> str:
        """Return the name of an episode in its recording."""
        return str(each.ours.get('episode_id') or f'episode_{each.index:06d}')

    def build(self, each: SourceEpisode) -> Built:
        """Return an episode of the set; `EpisodeError` if it is damaged."""
        source, contract = self._source, self._contract
        rows = source.rows(each, self._columns)
        ticks = ticks_of(each.length, source.info.fps, contract.rate_hz)
        state = self._state(rows, each.length)
        commanded, ticks = self._actions.of(rows, state, ticks)
        outcome, outcome_from = self._outcomes.of(each, rows)
        action = self._actions.with_terminate(commanded, rows, outcome)
        instruction, remarks = self._instruction(each, rows)
        if remark := self._outcomes.remark(each, rows, outcome):
            remarks.append(remark)
        start_ns = int(each.ours.get('start_stamp_ns') or 0)
        episode = Episode(
            episode_id=self.episode_id(each),
            instruction=instruction,
            outcome=outcome,
            source=self._outcomes.driver(each),
            policy_id=str(each.ours.get('policy_id') or ''),
            bag_uri=self.uri(each),
            contract_hash=contract.hash,
            start_stamp_ns=start_ns,
            state=state[ticks.seen].astype(np.float32),
            action=action.astype(np.float32),
            requested=self._actions.requested(rows, action).astype(np.float32),
            intervention=self._interventions(rows, ticks),
            stamps_ns={name: _stamps(rows, name, ticks, start_ns) for name in contract.streams},
            valid={item.stream: _valid(rows, item, ticks) for item in contract.observed},
            images={
                camera.name: self._frames(each, camera, ticks.seen.tolist())
                for camera in contract.cameras
            },
        )
        if problems := episode.problems():
            raise EpisodeError(problems)
        return Built(episode, outcome_from, remarks)

    def _state(self, rows: Rows, frames: int) -> NDArray[np.float64]:
        """Return the state of every frame, (frames, S)."""
        columns = [values_of(rows, column) for column in self.mapping.state]
        return np.stack(columns, axis=1) if columns else np.zeros((frames, 0))

    def _frames(self, each: SourceEpisode, camera: Camera, wanted: Sequence[int]) -> _Frames:
        return _Frames(self._source, each, self.mapping.cameras[camera.name], camera, wanted)

    def _interventions(self, rows: Rows, ticks: Ticks) -> NDArray[np.bool_]:
        if self._intervention is None:
            return np.zeros(len(ticks), bool)
        return rows[self._intervention][ticks.seen] != 0

    def _instruction(self, each: SourceEpisode, rows: Rows) -> tuple[str, list[str]]:
        """Return the task of the first row, and a remark if later rows have others."""
        tasks = self._source.tasks
        indices = rows['task_index'] if 'task_index' in rows else np.zeros(0, np.int64)
        found = [tasks[index] for index in dict.fromkeys(indices.tolist()) if index in tasks]
        found = found or list(each.tasks)
        if not found:
            raise EpisodeError('its task is not in meta/tasks.parquet; add the text there')
        others = [text for text in dict.fromkeys(found) if text != found[0]]
        remarks = [f'it has several tasks; {found[0]!r} was taken, not {others}'] if others else []
        return found[0], remarks


@dataclass(frozen=True)
class _Frames:
    """The pictures of one camera, as the contract wants them; every call starts anew."""

    source: Source
    each: SourceEpisode
    key: str
    camera: Camera
    wanted: Sequence[int]

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        last, fitted = None, None
        try:
            for picture in self.source.pictures(self.each, self.key, self.wanted):
                if picture is not last or fitted is None:
                    last, fitted = picture, fit_picture(picture, self.camera)
                yield fitted
        except DecodeError as error:
            raise EpisodeError(list(error.problems)) from error


def _stamps(rows: Rows, stream: str, ticks: Ticks, start_ns: int) -> NDArray[np.int64]:
    """Return true stamps where the set has them, else the time of the frame."""
    stored = rows.get(f'stamp_ns.{stream}')
    return ticks.frame_ns + start_ns if stored is None else stored[ticks.seen].astype(np.int64)


def _valid(rows: Rows, stream: Camera | StateStream, ticks: Ticks) -> NDArray[np.bool_]:
    """Say where a sample is fresh enough: its own flag, and not older than the contract allows."""
    fresh = ticks.age_ns <= round(stream.max_age_s * 1e9)
    stored = rows.get(f'valid.{stream.stream}')
    return fresh if stored is None else fresh & (stored[ticks.seen] != 0)
