"""One episode as rows: what a bag or the simulator hands over, and what a dataset stores.

Row k holds the observation at tick k, the action that was sent in (t_k, t_{k+1}], and what came of
it (`next.*`). Images are not held: each camera is a callable that starts a fresh iterator, so an
episode of any length costs the memory of its vectors only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qt_ros.errors import DatasetError
from training.cache import TRAINABLE

OUTCOMES = ('success', 'failure', 'timeout', 'aborted', 'unknown')
SOURCES = ('teleop', 'policy', 'mixed')

Frames = Callable[[], Iterator[NDArray[np.uint8]]]

__all__ = ['OUTCOMES', 'SOURCES', 'TRAINABLE', 'Episode', 'Frames', 'check_outcome', 'rewards']


def check_outcome(outcome: str) -> str:
    """Return `outcome`, or raise `DatasetError` with the allowed ones."""
    if outcome not in OUTCOMES:
        raise DatasetError(f'outcome {outcome!r} is unknown; allowed: {", ".join(OUTCOMES)}')
    return outcome


def rewards(outcome: str, length: int) -> dict[str, NDArray]:
    """Return the `next.*` columns of an episode of `length` rows that ended with `outcome`.

    `next.reward` (T,) float32 is 1 on the last row of a success and 0 elsewhere. `next.done` (T,)
    bool says that the task itself ended (success or failure); `next.truncated` that the recording
    ended first (timeout, aborted, unknown), so a value estimate may look beyond it. Exactly one of
    the two is true on the last row and both are false before it. `next.success` marks the last row
    of a success.
    """
    check_outcome(outcome)
    if length < 1:
        raise DatasetError(f'an episode needs at least 1 row, not {length}')
    last = np.zeros(length, dtype=bool)
    last[-1] = True
    never = np.zeros(length, dtype=bool)
    success = outcome == 'success'
    terminated = outcome in ('success', 'failure')
    return {
        'next.reward': last.astype(np.float32) if success else never.astype(np.float32),
        'next.done': last.copy() if terminated else never.copy(),
        'next.truncated': never.copy() if terminated else last.copy(),
        'next.success': last.copy() if success else never.copy(),
    }


@dataclass(frozen=True)
class Episode:
    """One attempt at one instruction: T rows, S state entries, A action dimensions.

    A counts the `terminate` dimension if the contract declares it.
    """

    episode_id: str
    instruction: str
    outcome: str  # one of OUTCOMES
    source: str  # one of SOURCES
    policy_id: str  # which checkpoint drove; '' for a person
    bag_uri: str  # where it was recorded; (bag_uri, episode_id) names it
    contract_hash: str
    start_stamp_ns: int  # time of tick 0 [ns]
    state: NDArray[np.float32]  # (T, S)
    action: NDArray[np.float32]  # (T, A) as sent
    requested: NDArray[np.float32]  # (T, A) as decided, before limits
    intervention: NDArray[np.bool_]  # (T,) true while a person had taken over
    stamps_ns: Mapping[str, NDArray[np.int64]]  # stream -> (T,) true stamp of the sample used
    valid: Mapping[str, NDArray[np.bool_]]  # stream -> (T,) false where the sample was too old
    images: Mapping[str, Frames]  # camera -> fresh iterator over T frames (H, W, 3) RGB
    together: Callable[[], Iterator[tuple[str, NDArray[np.uint8]]]] | None = None  # see `frames`
    fingerprint: str = ''  # of the recording's content, wherever its file lies; '' for none

    def __len__(self) -> int:
        return len(self.state)

    def frames(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """Yield (camera, frame) of every camera, each camera's frames in the order of rows.

        Cameras take turns in whatever way costs least: `together` is given where one pass over a
        recording serves them all.
        """
        if self.together is not None:
            yield from self.together()
            return
        for camera, frames in self.images.items():
            for frame in frames():
                yield camera, frame

    def problems(self) -> list[str]:
        """Return what is wrong with the rows, in words; empty if nothing is."""
        found = []
        length = len(self.state)
        if length < 1:
            found.append('has no rows; an episode needs at least 1')
        for name, value, allowed in (
            ('outcome', self.outcome, OUTCOMES),
            ('source', self.source, SOURCES),
        ):
            if value not in allowed:
                found.append(f'{name} {value!r} is unknown; allowed: {", ".join(allowed)}')
        if not self.episode_id:
            found.append('episode_id is empty; give each episode of a bag its own')
        for name, array, kind, dims in self._columns():
            if array.ndim != dims or len(array) != length or array.dtype != kind:
                found.append(
                    f'{name} is {array.dtype} {array.shape}; expected {np.dtype(kind)} with'
                    f' {length} rows in {dims} dimension{"s" if dims > 1 else ""}'
                )
            elif kind == np.float32 and not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array))[0][0])
                found.append(f'{name} is not finite at row {row}; repair it before storing')
        if self.action.shape != self.requested.shape:
            found.append(f'action {self.action.shape} and requested {self.requested.shape} differ')
        if set(self.stamps_ns) != set(self.valid):
            found.append(
                f'stamps are given for {sorted(self.stamps_ns)}, validity for {sorted(self.valid)}'
            )
        return [f'episode {self.episode_id or "?"}: {problem}' for problem in found]

    def _columns(self) -> Iterator[tuple[str, NDArray, type, int]]:
        yield 'state', self.state, np.float32, 2
        yield 'action', self.action, np.float32, 2
        yield 'requested', self.requested, np.float32, 2
        yield 'intervention', self.intervention, np.bool_, 1
        for stream, stamps in self.stamps_ns.items():
            yield f'stamps_ns[{stream}]', stamps, np.int64, 1
        for stream, valid in self.valid.items():
            yield f'valid[{stream}]', valid, np.bool_, 1
