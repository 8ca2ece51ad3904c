"""Counters and distributions of the control loop."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np

from qt_ros.nodes.control.records import StepRecord

# What can become of a tick. Every tick ends in exactly one of them.
FATES = (
    'sent',  # decided in time; the commands went out
    'dry',  # decided in time, and a dry run publishes nothing
    'late',  # decided after the next tick; discarded
    'stale',  # a stream was too old to decide on
    'busy',  # the decision of an earlier tick was still being made
    'missed',  # the tick itself was not reached in time
    'refused',  # the episode ended before its command was sent
)


class Distribution:
    """The last `keep` values of a measurement, summed up on request.

    >>> d = Distribution()
    >>> for value in (0.1, 0.1, 0.4):
    ...     d.add(value)
    >>> d.summary()['max']
    0.4
    """

    def __init__(self, keep: int = 2000) -> None:
        self._values: deque[float] = deque(maxlen=keep)

    def add(self, value: float) -> None:
        self._values.append(value)

    def __len__(self) -> int:
        return len(self._values)

    def summary(self) -> dict[str, float]:
        """Return mean, std, p50, p99 and max in the unit of the values; empty without values."""
        if not self._values:
            return {}
        values = np.asarray(self._values)
        p50, p99 = np.percentile(values, (50, 99))
        numbers = {
            'mean': values.mean(),
            'std': values.std(),
            'p50': p50,
            'p99': p99,
            'max': values.max(),
        }
        return {name: round(float(number), 6) for name, number in numbers.items()}


class LoopStats:
    """What `/diagnostics` reports about ticks, limits and times."""

    def __init__(self) -> None:
        self.fates: Counter[str] = Counter()
        self.limited: Counter[str] = Counter()  # reason -> commands that it changed
        self.limited_commands = 0  # that any limit changed
        self.stale: Counter[str] = Counter()  # stream -> ticks that it held up
        self.faults = 0
        self.fallbacks = 0
        self.period_s = Distribution()
        self.age_s = Distribution()
        self.inference_s = Distribution()

    @property
    def ticks(self) -> int:
        return sum(self.fates.values())

    def record(self, fate: str, record: StepRecord) -> None:
        """Count a tick that was reached."""
        self.fates[fate] += 1
        self.limited.update({reason for reason in record.reasons if reason})
        self.limited_commands += any(record.reasons)
        if fate == 'stale':
            for stream, sample in record.tick.samples.items():
                self.stale[stream] += not sample.valid
        if record.decided is not None:
            self.inference_s.add(record.decided.inference_s)
        if record.command_ns:
            self.age_s.add(record.age_ns / 1e9)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return the three distributions [s] that hold anything."""
        named = {
            'command_period_s': self.period_s,
            'observation_age_s': self.age_s,
            'inference_s': self.inference_s,
        }
        return {name: values.summary() for name, values in named.items() if len(values)}

    def values(self) -> dict[str, str]:
        """Return everything as text, for the key-value pairs of a diagnostic status."""
        pairs = {'ticks': str(self.ticks)}
        pairs |= {fate: str(self.fates[fate]) for fate in FATES}
        pairs |= {'faults': str(self.faults), 'fallbacks': str(self.fallbacks)}
        pairs['limited'] = str(self.limited_commands)
        pairs |= {f'limited.{reason}': str(n) for reason, n in sorted(self.limited.items())}
        pairs |= {f'stale.{stream}': str(n) for stream, n in sorted(self.stale.items()) if n}
        for name, numbers in self.summary().items():
            pairs |= {f'{name}.{key}': f'{value:g}' for key, value in numbers.items()}
        return pairs
