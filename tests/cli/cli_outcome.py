"""What tests of the command line share: small settings, and how a command ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TASKS = ('push the red block to the left', 'push the red block to the right')
TINY = (  # settings of a network that trains in seconds
    'model.channels=[8, 8]',
    'model.kernels=[5, 3]',
    'model.strides=[4, 2]',
    'model.maps=4',
    'model.image_tokens=2',
    'model.width=16',
    'model.layers=1',
    'model.heads=2',
    'data.batch=8',
    'optim.threads=1',
    'optim.warmup_steps=2',
    'optim.log_every=5',
)


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What it printed for scripts."""
        return json.loads(self.out)


Command = Callable[..., Outcome]
