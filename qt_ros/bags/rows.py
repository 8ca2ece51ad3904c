"""The rows of an episode: observations of planned ticks, and the actions that belong to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.actions import (
    Commands,
    commanded_actions,
    has_command,
    next_state_targets,
    targets_of,
)
from qt_ros.bags.observing import BagFrames, observe, without_cameras
from qt_ros.bags.reader import BagReader
from qt_ros.bags.segments import Segment
from qt_ros.bags.ticks import Part
from qt_ros.contract import TERMINATE, Contract
from qt_ros.episode import Episode
from qt_ros.observation import Observation


class Rows:
    """The rows of one part; `ticks` and `observations` agree, `targets` has one row more."""

    def __init__(
        self,
        contract: Contract,
        bag: BagReader,
        part: Part,
        commands: Sequence[Commands],
        segment: Segment,
    ) -> None:
        self._contract = contract
        self._bag = bag
        self._segment = segment
        self.used: set[int] = set()
        self.ticks = list(part.ticks)
        self._observations = list(observe(bag, without_cameras(contract), self.ticks))
        self._actions: NDArray[np.float64] = np.zeros((0, len(contract.action_dims)))
        following = None
        if any(topic.source == 'next_state' for topic in contract.action):
            following = next_state_targets(contract, self._states())
            self._drop_last()
        elif self.ticks and not has_command(self.ticks[-1], commands):
            self._drop_last()
        while self.ticks:
            self._actions = self._decide(commands, following)
            known = np.flatnonzero(np.isfinite(self._actions).all(axis=1))
            first = int(known[0]) if len(known) else len(self.ticks)
            if first == 0:
                break
            # Nothing was commanded yet and nothing measures it: no action, so no row.
            del self.ticks[:first], self._observations[:first]
            following = None if following is None else following[first:]
        for tick in self.ticks:
            self.used.update(sample.item for sample in tick.samples.values())

    def episode(self, name: str, uri: str, complete: bool) -> Episode:
        """Return the rows as an episode; one that a gap ended has no outcome."""
        segment, contract = self._segment, self._contract
        outcome = segment.outcome if complete else 'unknown'
        action = self._with_terminate(self._actions, outcome).astype(np.float32)
        return Episode(
            episode_id=name,
            instruction=segment.instruction,
            outcome=outcome,
            source=segment.source,
            policy_id=segment.policy_id,
            bag_uri=uri,
            contract_hash=contract.hash,
            start_stamp_ns=self.ticks[0].t_ns,
            state=self._states(),
            action=action,
            requested=self._requested(action),
            intervention=self._interventions(),
            stamps_ns={
                stream: np.array([each.stamps_ns[stream] for each in self._observations], np.int64)
                for stream in contract.streams
            },
            valid={
                stream: np.array([each.valid[stream] for each in self._observations], bool)
                for stream in contract.streams
            },
            images={
                camera.name: BagFrames(
                    self._bag, camera, [tick.samples[camera.stream].item for tick in self.ticks]
                )
                for camera in contract.cameras
            },
        )

    def _states(self) -> NDArray[np.float32]:
        size = len(self._contract.state_names)
        return np.array([each.state for each in self._observations], np.float32).reshape(-1, size)

    def _drop_last(self) -> None:
        del self.ticks[-1:], self._observations[-1:]

    def _decide(
        self, commands: Sequence[Commands], following: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        first: Observation = self._observations[0]
        found = targets_of(self._contract, self.ticks, commands, first, self._segment.start_ns)
        targets = found.targets
        if following is not None:
            targets = np.where(np.isnan(following), targets, following)
        self.used = set(found.used)
        return commanded_actions(self._contract, targets)

    def _with_terminate(self, actions: NDArray[np.float64], outcome: str) -> NDArray[np.float64]:
        """Append the terminate column: as the policy decided, else 1 where a success ends."""
        if self._contract.terminate_bins is None:
            return actions
        ends = np.zeros((len(actions), 1))
        ends[-1, 0] = float(outcome == 'success')
        for row, tick in enumerate(self.ticks):
            if tick.step is not None and TERMINATE in tick.step.requested:
                ends[row, 0] = tick.step.requested[TERMINATE]
        return np.concatenate([actions, ends], axis=1)

    def _requested(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the policy asked for before limits; `action` where nobody asked."""
        requested = action.copy()
        for row, tick in enumerate(self.ticks):
            if tick.step is None or tick.step.late:
                continue
            for column, dim in enumerate(self._contract.dims):
                value = tick.step.requested.get(dim.name, np.nan)
                if np.isfinite(value):
                    requested[row, column] = value
        return requested

    def _interventions(self) -> NDArray[np.bool_]:
        times = np.array([tick.t_ns for tick in self.ticks], np.int64)
        found = np.zeros(len(times), bool)
        for start_ns, stop_ns in self._segment.interventions:
            found |= (times >= start_ns) & (times < stop_ns)
        return found
