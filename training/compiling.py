"""torch.compile, where there is what it needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib import util
from typing import Any

import torch

from training.errors import TrainingError


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Return `function`, compiled for `device` when it is first called.

    Raises TrainingError, now and not after the first minutes, where no compiler is installed.
    """
    missing = _missing(device)
    if missing:
        raise TrainingError(
            f'optim.compile=true needs {missing}, which is not there; install it or use'
            ' optim.compile=false'
        )
    # Batches have one shape, or two where parts of them are uneven: no need for any shape at all.
    return torch.compile(function, dynamic=False)


def _missing(device: torch.device) -> str:
    """Say what torch.compile lacks for this device, '' for nothing."""
    if device.type == 'cuda' and util.find_spec('triton') is None:
        return 'the package triton'
    kind, usual = ('CXX', ('g++', 'clang++')) if device.type == 'cpu' else ('CC', ('gcc', 'clang'))
    named = os.environ.get(kind)
    if not any(shutil.which(name) for name in ([named] if named else usual)):
        return f'a compiler ({named or " or ".join(usual)}; the variable {kind} may name another)'
    return ''
