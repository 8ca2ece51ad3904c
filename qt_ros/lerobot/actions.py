"""Actions of a contract from the actions of a set.

LeRobot's actions are where the robot was told to go: targets. A delta is the difference of two in
a row, the first that of the first target and what the state measures, as in a conversion
(`commands.initial_targets`). Sets may also hold changes, how far to go: in the dimensions that the
contract calls delta if the user says so, in those that its own contract calls delta if qt-ros made
the set. With the same ticks they are taken bit for bit, else added up over the ticks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.actions import commanded_actions, next_state_targets
from qt_ros.commands import initial_targets
from qt_ros.contract import TERMINATE, Contract
from qt_ros.dataset.layout import CONTRACT
from qt_ros.errors import DatasetError
from qt_ros.lerobot.errors import EpisodeError, SourceError
from qt_ros.lerobot.mapping import ACTION, Column
from qt_ros.lerobot.resampling import Ticks
from qt_ros.lerobot.source import Source, SourceEpisode

TARGETS, CHANGES, AS_STORED = 'targets', 'changes', 'as its own contract says'
REQUESTED = 'action.requested'

Rows = Mapping[str, NDArray]
Vectors = NDArray[np.float64]


class Actions:
    """Turns the rows of an episode into actions (T, A); A counts terminate where declared."""

    def __init__(
        self,
        source: Source,
        contract: Contract,
        columns: Sequence[Column | None],
        own: Contract | None,
        kind: str | None,
    ) -> None:
        """Say where the actions stand: `columns` are those of `contract.action_dims`.

        `own` is the contract that the set was made with; `kind` TARGETS or CHANGES, or None for
        what `own` says, else targets. Raises `SourceError` if changes would have to be added up
        from nowhere.
        """
        if kind not in (None, TARGETS, CHANGES):
            raise DatasetError(f'actions {kind!r} is unknown; allowed: {TARGETS}, {CHANGES}')
        self._contract, self._columns = contract, columns
        self._own = own if kind is None else None
        self.kind = AS_STORED if self._own else kind or TARGETS
        self._features = source.info.features
        self._same_ticks = source.info.fps == contract.rate_hz
        self._changes = self._which_are_changes()
        self._stored = self._which_are_stored()
        self._derived = any(topic.source == 'next_state' for topic in contract.action)
        self._check()

    @property
    def features(self) -> tuple[str, ...]:
        """Return the features that `of` reads besides those of its columns."""
        return (ACTION, REQUESTED) if self._own else ()

    def of(self, rows: Rows, state: Vectors, ticks: Ticks) -> tuple[Vectors, Ticks]:
        """Return the commanded part (T, A') of the actions, and the ticks that they belong to.

        `state` is (frames, S). Where an action is the next state, the last tick has none.
        """
        following = None
        if self._derived and not self._stored.all():
            if len(ticks) < 2:
                raise EpisodeError('it has one row; an action from the next state needs two')
            seen = state[ticks.seen].astype(np.float32)
            following = next_state_targets(self._contract, seen)
            ticks = ticks.without_last()
        initial, targets = self._targets(rows, state)
        chosen = np.concatenate([initial[None], targets[ticks.commanded]])
        if following is not None:
            chosen = np.where(np.isnan(following), chosen, following)
        action = commanded_actions(self._contract, chosen)
        for at, column in enumerate(self._columns):
            if column is not None and self._stored[at]:
                action[:, at] = values_of(rows, column)[: len(action)]
        return action, ticks

    def with_terminate(self, action: Vectors, rows: Rows, outcome: str) -> Vectors:
        """Append the terminate column: as the set has it, else 1 where a success ends."""
        if self._contract.terminate_bins is None:
            return action
        ends = np.zeros((len(action), 1))
        ends[-1, 0] = float(outcome == 'success')
        stored = self._own_column(ACTION, TERMINATE)
        if stored is not None and self._same_ticks:
            ends[:, 0] = values_of(rows, stored)[: len(action)]
        return np.concatenate([action, ends], axis=1)

    def requested(self, rows: Rows, action: Vectors) -> Vectors:
        """Return what was asked for before limits (T, A), where the set tells; else `action`."""
        found = action.copy()
        taken = [*self._stored, self._same_ticks]
        for at, dim in enumerate(self._contract.dims):
            column = self._own_column(REQUESTED, dim.name)
            if column is not None and taken[at]:
                found[:, at] = values_of(rows, column)[: len(action)]
        return found

    def _targets(self, rows: Rows, state: Vectors) -> tuple[Vectors, Vectors]:
        """Return what counts as commanded at first (A,), and the targets of all frames."""
        first = SimpleNamespace(state=state[0].astype(np.float32))
        initial = initial_targets(self._contract, first)
        initial = np.where(self._changes & ~np.isfinite(initial), 0.0, initial)
        targets = np.full((len(state), len(self._columns)), np.nan)
        for at, column in enumerate(self._columns):
            if column is not None:
                values = values_of(rows, column)
                targets[:, at] = initial[at] + values.cumsum() if self._changes[at] else values
        return initial, targets

    def _which_are_changes(self) -> NDArray[np.bool_]:
        """Say which of the set's actions are changes, not targets, (A,)."""
        own = self._own.action_dims if self._own else ()
        deltas = {dim.name for dim in own if dim.mode == 'delta'}
        found = []
        for dim, column in zip(self._contract.action_dims, self._columns, strict=True):
            told = column is not None and column.name in deltas and dim.mode != 'velocity'
            said = self.kind == CHANGES and dim.mode == 'delta'
            found.append(told if self._own else said and column is not None)
        return np.array(found, dtype=bool)

    def _which_are_stored(self) -> NDArray[np.bool_]:
        """Say which actions stand in the rows as the contract has them, (A,)."""
        there = np.array([column is not None for column in self._columns], dtype=bool)
        delta = np.array([dim.mode == 'delta' for dim in self._contract.action_dims], dtype=bool)
        same = (delta == self._changes) & (self._changes | (self._own is not None))
        return there & same & self._same_ticks

    def _check(self) -> None:
        problems = [
            f'action {dim.name}: the set holds changes, the contract asks for the target itself,'
            ' and the state does not measure where it starts: make it a delta'
            for dim, change in zip(self._contract.action_dims, self._changes, strict=True)
            if change and dim.mode == 'absolute' and self._contract.base_index(dim) is None
        ]
        if problems:
            raise SourceError(problems)

    def _own_column(self, feature: str, name: str) -> Column | None:
        found = self._features.get(feature) if self._own else None
        if found is None or name not in found.names:
            return None
        return Column(feature, found.names.index(name), name)


def own_contract(
    source: Source, contract: Contract, chosen: Sequence[SourceEpisode]
) -> Contract | None:
    """Return the contract that the set was made with, None if qt-ros did not make it.

    LeRobot's tools leave the file behind when they merge or split a set; if its episodes still
    name `contract`, that is it. Else nothing says what the actions are: `SourceError`.
    """
    path = source.path / CONTRACT
    if path.is_file():
        return Contract.load(path)
    if REQUESTED not in source.info.features:
        return None
    if all(each.ours.get('contract_hash') == contract.hash for each in chosen):
        return contract
    raise SourceError(
        f'{source.path} was made by qt-ros, but its {CONTRACT} is gone, so it does not say which'
        f' actions are targets and which are changes; put that file back, or say --actions'
        f' {TARGETS}|{CHANGES}'
    )


def values_of(rows: Rows, column: Column) -> NDArray[np.float64]:
    """Return one column of a feature, (frames,)."""
    values = rows[column.feature].astype(np.float64)
    return values[:, column.index] if values.ndim == 2 else values
