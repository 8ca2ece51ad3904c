"""Memory that one step frees serves the next one, and goes back to the kernel in the end."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from contextlib import nullcontext
from training.memory import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        blocks = [np.ones(50 << 20, np.uint8) for _ in range(2)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * resource.getpagesize()

plain = faults()
with kept_memory():
    faults()
    print(plain, faults(), resident() >> 20, end=' ')
print(resident() >> 20)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), 'mallopt'), reason='needs glibc, which others do without'
)
def test_blocks_are_used_again_and_given_back_afterwards():
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT], capture_output=True, text=True, check=True, timeout=100
    )
    plain, kept, inside_mb, after_mb = map(int, done.stdout.split())
    pages = 5 * 2 * (50 << 20) / resource.getpagesize()
    if plain > pages / 2:  # else huge pages hide what a block costs
        assert kept < plain / 10
    assert inside_mb > after_mb + 90
