"""Actions of consecutive ticks: from the commands that were sent, or from the next observation.

    target_k = newest command with stamp <= end of tick k      (per dimension)
    action_k = target_k, or target_k - target_{k-1} for a delta

Before the first command a delta starts from the measured position (`commands.initial_targets`),
and commands stamped before the first tick do not count. A dimension that is not measured takes the
newest command before the first tick, if the episode has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.ticks import Ticks
from qt_ros.commands import HasState, initial_targets
from qt_ros.contract import Contract


@dataclass(frozen=True)
class Commands:
    """The commands of one topic in an episode, sorted by stamp.

    stamps_ns: (N,) on the contract's clock; ordinals: (N,); targets: (N, n) for the n dimensions
    of the topic, NaN where a message leaves one out; columns: where these stand in the action.
    """

    stamps_ns: NDArray[np.int64]
    ordinals: NDArray[np.int64]
    targets: NDArray[np.float64]
    columns: slice


@dataclass(frozen=True)
class Actions:
    """`targets` (T+1, A): before the first tick and at the end of each; `used`: ordinals (U,)."""

    targets: NDArray[np.float64]
    used: NDArray[np.int64]


def targets_of(
    contract: Contract,
    ticks: Ticks,
    commands: Sequence[Commands],
    first: HasState,
    episode_start_ns: int,
) -> Actions:
    """Return the commanded values; NaN where nothing is known yet. `first` is o_0."""
    initial = initial_targets(contract, first)
    targets = np.repeat(initial[None, :], len(ticks) + 1, axis=0)
    used: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for topic in commands:
        width = topic.columns.stop - topic.columns.start
        for index in range(width):
            column = topic.columns.start + index
            measured = np.isfinite(initial[column])
            since_ns = int(ticks.t_ns[0]) if measured else episode_start_ns
            given = np.isfinite(topic.targets[:, index]) & (topic.stamps_ns >= since_ns)
            stamps, values = topic.stamps_ns[given], topic.targets[given, index]
            chosen = np.searchsorted(stamps, ticks.end_ns, side='right') - 1
            known = chosen >= 0
            targets[1:, column][known] = values[chosen[known]]
            used.append(topic.ordinals[given][np.unique(chosen[known])])
    return Actions(targets, np.unique(np.concatenate(used)))


def departures(
    arrivals_ns: NDArray[np.int64], sent_ns: Sequence[int], within_ns: int
) -> NDArray[np.int64]:
    """Move arrivals (N,) back to when the policy says that it sent them.

    A command without a header is known by its arrival at the recorder, which may lie behind the
    end of its tick. Each time of `sent_ns` takes the first arrival after it, within `within_ns`.
    Both are sorted; so is the result. Sent at 10, 20, arrived at 11, 23, 24: 10, 20, 24.
    """
    found = arrivals_ns.copy()
    for sent in sent_ns:
        index = int(np.searchsorted(arrivals_ns, sent))
        if index < len(found) and arrivals_ns[index] - sent < within_ns:
            found[index] = sent
    return found


def commanded_actions(contract: Contract, targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (T, A) from targets (T+1, A): `commands.action_from_targets` of each pair of rows."""
    delta = np.array([dim.mode == 'delta' for dim in contract.action_dims], dtype=bool)
    return np.where(delta, targets[1:] - targets[:-1], targets[1:])


def next_state_targets(contract: Contract, states: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return (T+1, A) targets read from states (T+1, S); NaN in columns that have commands."""
    targets = np.full((len(states), len(contract.action_dims)), np.nan)
    for topic, columns in columns_of(contract):
        if topic.source != 'next_state':
            continue
        for dim, column in zip(topic.dims, range(columns.start, columns.stop), strict=True):
            index = contract.state_index(dim.field)
            if index is not None:
                targets[:, column] = states[:, index].astype(np.float64)
    return targets


def columns_of(contract: Contract):
    """Yield (action topic, slice of its dimensions in the action)."""
    start = 0
    for topic in contract.action:
        yield topic, slice(start, start + len(topic.dims))
        start += len(topic.dims)


def has_command(ticks: Ticks, commands: Sequence[Commands]) -> bool:
    """Return True if a command was sent in (t_k, end of the tick] of the last tick."""
    bounds = [ticks.t_ns[-1], ticks.end_ns[-1]]
    for topic in commands:
        low, high = np.searchsorted(topic.stamps_ns, bounds, side='right')
        if high > low:
            return True
    return False
