"""Whether every stream is fresh enough to decide on, by its stamps and by when it was heard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from qt_ros.contract import Camera, Contract, StateStream
from qt_ros.interlocks import ReceiveGate
from qt_ros.observation import ObservationSampler
from qt_ros.streams import Sample


class Freshness:
    """The samples of a time, marked invalid where a stream is stale, and words about those."""

    def __init__(
        self,
        contract: Contract,
        sampler: ObservationSampler,
        gate: ReceiveGate | None = None,
        listen: Callable[[], None] = lambda: None,
    ) -> None:
        """`gate` None: stamps alone count. listen(): puts what came into sampler and gate."""
        self.sampler = sampler
        self.listen = listen
        self._gate = gate
        self._observed = {item.stream: item for item in contract.observed}
        self._seen: Sequence[Camera | StateStream] = contract.cameras or contract.state

    def sample(self, t_ns: int, now_ns: int) -> dict[str, Sample] | None:
        """Return {stream: newest sample at `t_ns`}, None while a stream has nothing."""
        self.listen()
        samples = self.sampler.sample(t_ns)
        silent = self._silent(now_ns)
        if samples is None or not silent:
            return samples
        return {
            name: replace(sample, valid=False) if name in silent else sample
            for name, sample in samples.items()
        }

    def stale(self, now_ns: int) -> list[str]:
        """Say which streams could not be decided on now, and since when."""
        self.listen()
        missing = self.sampler.missing(now_ns)
        if missing:
            return [self._missing(name) for name in missing]
        samples = self.sampler.sample(now_ns) or {}
        silent = self._silent(now_ns)
        found = []
        for name, sample in samples.items():
            item = self._observed[name]
            if not sample.valid:
                words = f'newest sample of {item.topic} is {sample.age_ns / 1e9:.2f} s old'
            elif name in silent:
                words = f'nothing received from {item.topic} for {silent[name] / 1e9:.2f} s'
            else:
                continue
            found.append(f'{name}: {words}, max_age_s is {item.max_age_s:g}{self._partly(name)}')
        return found

    def age_ns(self, samples: Mapping[str, Sample], at_ns: int) -> int:
        """Age at `at_ns` of the newest image used; of the newest sample if there is no camera."""
        return at_ns - max(samples[item.stream].stamp_ns for item in self._seen)

    def _missing(self, name: str) -> str:
        return f'{name}: nothing received from {self._observed[name].topic}{self._partly(name)}'

    def _partly(self, name: str) -> str:
        partial = self.sampler.partial.get(name, 0)
        return f' ({partial} messages lacked some of its fields)' if partial else ''

    def _silent(self, now_ns: int) -> dict[str, int]:
        return self._gate.silent(now_ns) if self._gate is not None else {}
