"""The rows of an episode: what was measured at planned ticks, and the actions that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.actions import (
    Commands,
    commanded_actions,
    has_command,
    next_state_targets,
    targets_of,
)
from qt_ros.bags.observing import BagImages
from qt_ros.bags.reader import BagReader
from qt_ros.bags.segments import Segment
from qt_ros.bags.ticks import Ticks
from qt_ros.contract import TERMINATE, Contract
from qt_ros.decoding import LARGEST
from qt_ros.episode import Episode


@dataclass(frozen=True)
class _Measured:
    state: NDArray[np.float32]


class Rows:
    """The rows of one part, T of them: `ticks`, and what was measured and commanded at each.

    `states` (T, S) is what the ticks of the part observed. `used` are the ordinals of the commands
    that count.
    """

    def __init__(
        self,
        contract: Contract,
        ticks: Ticks,
        states: NDArray[np.float32],
        commands: Sequence[Commands],
        segment: Segment,
    ) -> None:
        self._contract = contract
        self._segment = segment
        self.used: NDArray[np.int64] = np.zeros(0, np.int64)
        self.ticks, self._states = ticks, states
        self._actions: NDArray[np.float64] = np.zeros((0, len(contract.action_dims)))
        following = None
        if any(topic.source == 'next_state' for topic in contract.action):
            following = next_state_targets(contract, states)
            self._keep(slice(0, max(len(ticks) - 1, 0)))
        elif len(ticks) and not has_command(ticks, commands):
            self._keep(slice(0, len(ticks) - 1))
        while len(self.ticks):
            self._actions = self._decide(commands, following)
            known = np.flatnonzero(np.isfinite(self._actions).all(axis=1))
            first = int(known[0]) if len(known) else len(self.ticks)
            if first == 0:
                break
            # Nothing was commanded yet and nothing measures it: no action, so no row.
            self._keep(slice(first, len(self.ticks)))
            following = None if following is None else following[first:]

    def episode(self, name: str, uri: str, complete: bool, bag: BagReader) -> Episode:
        """Return the rows as an episode; one that a gap ended has no outcome."""
        segment, contract, ticks = self._segment, self._contract, self.ticks
        outcome = segment.outcome if complete else 'unknown'
        action = self._with_terminate(self._actions, outcome).astype(np.float32)
        images = BagImages(
            bag, contract.cameras, {c.name: ticks.ordinals[c.stream] for c in contract.cameras}
        )
        return Episode(
            episode_id=name,
            instruction=segment.instruction,
            outcome=outcome,
            source=segment.source,
            policy_id=segment.policy_id,
            bag_uri=uri,
            contract_hash=contract.hash,
            start_stamp_ns=int(ticks.t_ns[0]),
            state=self._states,
            action=action,
            requested=self._requested(action),
            intervention=self._interventions(),
            stamps_ns=ticks.stamps_ns,
            valid=ticks.valid,
            images=images,
            together=images.together,
        )

    def _keep(self, rows: slice) -> None:
        self.ticks, self._states = self.ticks[rows], self._states[rows]

    def _decide(
        self, commands: Sequence[Commands], following: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        first = _Measured(self._states[0])
        found = targets_of(self._contract, self.ticks, commands, first, self._segment.start_ns)
        targets = found.targets
        if following is not None:
            targets = np.where(np.isnan(following), targets, following)
        self.used = found.used
        return commanded_actions(self._contract, targets)

    def _with_terminate(self, actions: NDArray[np.float64], outcome: str) -> NDArray[np.float64]:
        """Append the terminate column: as the policy decided, else 1 where a success ends."""
        if self._contract.terminate_bins is None:
            return actions
        ends = np.zeros((len(actions), 1))
        ends[-1, 0] = float(outcome == 'success')
        for row, step in self.ticks.steps.items():
            value = step.requested.get(TERMINATE, np.nan)
            if abs(value) < LARGEST:
                ends[row, 0] = value
        return np.concatenate([actions, ends], axis=1)

    def _requested(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the policy asked for before limits; `action` where nobody asked."""
        requested = action.copy()
        for row, step in self.ticks.steps.items():
            if step.late:
                continue
            for column, dim in enumerate(self._contract.dims):
                value = step.requested.get(dim.name, np.nan)
                if abs(value) < LARGEST:
                    requested[row, column] = value
        return requested

    def _interventions(self) -> NDArray[np.bool_]:
        times = self.ticks.t_ns
        found = np.zeros(len(times), bool)
        for start_ns, stop_ns in self._segment.interventions:
            found |= (times >= start_ns) & (times < stop_ns)
        return found
