"""The control loop's rhythm: period of its commands, age of what it saw, time that it thought.

Every number is read from the `PolicyStep` messages of real runs, one row for each tick:

    episode_id  command_stamp_ns  age_s  inference_s  late
    ep_0        1_000_000_000     0.031  0.012        False   first command: no period
    ep_0        1_100_400_000     0.035  0.011        False   period 100.4 ms
    ep_1        9_000_000_000     0.030  0.012        False   another episode: no period

A period is the time between two commands of one episode. A late decision sends nothing, so the gap
that it leaves is a period of two ticks: it counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

STEP_TOPIC = '/policy/step'

CADENCE_KEYS = (
    'rate_hz',
    'period_std_ms',
    'period_max_ms',
    'observation_age_p50_ms',
    'observation_age_p99_ms',
    'inference_p50_ms',
)


@dataclass(frozen=True)
class StepRow:
    """What one `PolicyStep` says about timing, and the Q-values of what was chosen."""

    episode_id: str
    step: int
    command_stamp_ns: int  # [ns]; 0: nothing was sent
    age_s: float  # command stamp minus the newest camera stamp
    inference_s: float
    late: bool
    dims: tuple[str, ...] = ()
    q: tuple[float, ...] = ()  # Q of the chosen bins, in the order of dims


@dataclass(frozen=True)
class Timing:
    """The samples behind the numbers: three arrays in milliseconds."""

    periods_ms: np.ndarray
    ages_ms: np.ndarray
    inference_ms: np.ndarray


def timing(rows: Iterable[StepRow]) -> Timing:
    """Collect periods within episodes, observation ages of sent commands, and inference times."""
    stamps: dict[str, list[int]] = {}
    ages, inference = [], []
    for row in rows:
        inference.append(row.inference_s * 1e3)
        if row.late or row.command_stamp_ns == 0:
            continue
        stamps.setdefault(row.episode_id, []).append(row.command_stamp_ns)
        ages.append(row.age_s * 1e3)
    periods = [np.diff(np.sort(np.asarray(s, dtype=np.int64))) / 1e6 for s in stamps.values()]
    return Timing(
        periods_ms=np.concatenate(periods) if periods else np.empty(0),
        ages_ms=np.asarray(ages, dtype=float),
        inference_ms=np.asarray(inference, dtype=float),
    )


def cadence(rows: Iterable[StepRow]) -> dict[str, float | None]:
    """Sum up the rhythm of a run; a number that nothing was measured for is None.

    `rate_hz` is commands sent per second of driving: one over the mean period.
    """
    measured = timing(rows)
    periods, ages, inference = measured.periods_ms, measured.ages_ms, measured.inference_ms
    return {
        'rate_hz': round(1e3 / float(periods.mean()), 4) if periods.size else None,
        'period_std_ms': _rounded(np.std, periods),
        'period_max_ms': _rounded(np.max, periods),
        'observation_age_p50_ms': _rounded(lambda a: np.percentile(a, 50), ages),
        'observation_age_p99_ms': _rounded(lambda a: np.percentile(a, 99), ages),
        'inference_p50_ms': _rounded(lambda a: np.percentile(a, 50), inference),
    }


def _rounded(measure: Any, values: np.ndarray) -> float | None:
    return round(float(measure(values)), 3) if values.size else None


def row_of(message: Any) -> StepRow:
    """Turn a `PolicyStep` (rclpy's object or one read from a bag) into a row."""
    sent = message.command_stamp
    return StepRow(
        episode_id=str(message.episode_id),
        step=int(message.step),
        command_stamp_ns=int(sent.sec) * 1_000_000_000 + int(sent.nanosec),
        age_s=float(message.observation_age_s),
        inference_s=float(message.inference_s),
        late=bool(message.late),
        dims=tuple(str(name) for name in message.dims),
        q=tuple(float(value) for value in message.q),
    )


def read_steps(bags: Iterable[Path]) -> list[StepRow]:
    """Read every `PolicyStep` of some recordings, in recorded order; those without add nothing."""
    from qt_ros.bags import BagReader, deserialize

    rows = []
    for path in bags:
        with BagReader(path) as bag:
            name = bag.resolve(STEP_TOPIC)
            rows += [
                row_of(deserialize(bag.topics[record.topic], record.data, record.topic))
                for record in bag.messages([name] if name else [])
            ]
    return rows
