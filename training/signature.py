"""What a network was built for: cameras, state fields and action dimensions of one contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.cache import CacheMeta
from training.errors import TrainingError
from training.tokens import ActionSpace


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a policy, stored with every checkpoint."""

    contract: str  # YAML text
    contract_hash: str
    cameras: Mapping[str, tuple[int, int]]  # name -> (height, width)
    state_names: tuple[str, ...]
    action: ActionSpace

    @property
    def bins(self) -> tuple[int, ...]:
        """Number of bins of each action dimension."""
        return self.action.bins

    @classmethod
    def of_cache(cls, meta: CacheMeta) -> Signature:
        """Read the signature of a training cache."""
        return cls(
            contract=meta.contract,
            contract_hash=meta.contract_hash,
            cameras=dict(meta.cameras),
            state_names=meta.state_names,
            action=ActionSpace.from_json(
                [
                    {'name': d.name, 'low': d.low, 'high': d.high, 'bins': d.bins}
                    for d in meta.action
                ]
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain mappings and lists."""
        return {
            'contract': self.contract,
            'contract_hash': self.contract_hash,
            'cameras': {name: list(size) for name, size in self.cameras.items()},
            'state_names': list(self.state_names),
            'action': self.action.to_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Signature:
        """Read what `to_json` wrote."""
        return cls(
            contract=content['contract'],
            contract_hash=content['contract_hash'],
            cameras={name: (int(h), int(w)) for name, (h, w) in content['cameras'].items()},
            state_names=tuple(content['state_names']),
            action=ActionSpace.from_json(content['action']),
        )

    def differences(self, other: Signature) -> list[str]:
        """Say in what the network's inputs and outputs differ, nothing if they fit."""
        found = []
        if dict(self.cameras) != dict(other.cameras):
            found.append(f'cameras {dict(self.cameras)} and {dict(other.cameras)}')
        if self.state_names != other.state_names:
            found.append(f'state {list(self.state_names)} and {list(other.state_names)}')
        if self.action.dims != other.action.dims:
            found.append(f'action {self.action.to_json()} and {other.action.to_json()}')
        return found


def common_signature(metas: Sequence[CacheMeta]) -> Signature:
    """Return the one signature of several caches.

    Raises TrainingError where they were made with different contracts.
    """
    first = Signature.of_cache(metas[0])
    problems = []
    for number, meta in enumerate(metas[1:], start=2):
        if meta.contract_hash != first.contract_hash:
            detail = '; '.join(first.differences(Signature.of_cache(meta))) or 'other settings'
            problems.append(
                f'dataset {number} was made with another contract than dataset 1 ({detail}); '
                'convert the recordings again with one contract'
            )
    if problems:
        raise TrainingError(problems)
    return first
