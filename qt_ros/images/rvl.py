"""RVL, a run-length code of compressedDepth (Wilson: Fast Lossless Depth Image Compression).

A picture is runs of zeros and of non-zeros, each with its length in front; a non-zero is the
change from the one before, its sign folded into the lowest bit. All numbers are cut into 3 bits a
nibble, lowest first, the nibble's high bit saying that more follow; eight nibbles, first in the
highest bits, make a little-endian word.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qt_ros.message_types import DecodeError

_MAX_NIBBLES = 10  # of one number: 17 bits for a change, 30 for the length of a run


def decode_rvl(data: bytes, height: int, width: int) -> NDArray[np.uint16]:
    """Return (height, width) uint16; DecodeError where the data do not hold that many pixels."""
    numbers = _numbers(data)
    pixels = height * width
    is_change = np.zeros(len(numbers), bool)
    filled = np.zeros(pixels, bool)
    at = done = 0
    while done < pixels:
        if at + 2 > len(numbers):
            raise _damaged(data, height, width)
        zeros, nonzeros = int(numbers[at]), int(numbers[at + 1])
        at, start = at + 2, done + zeros
        done = start + nonzeros
        if done > pixels or at + nonzeros > len(numbers):
            raise _damaged(data, height, width)
        is_change[at : at + nonzeros] = True
        filled[start:done] = True
        at += nonzeros
    folded = numbers[is_change]
    found = np.zeros(pixels, np.uint16)
    found[filled] = np.cumsum((folded >> 1) ^ -(folded & 1)) & 0xFFFF
    return found.reshape(height, width)


def _numbers(data: bytes) -> NDArray[np.int64]:
    """Return every number of the code at once, (n,)."""
    words = np.frombuffer(data[: len(data) // 4 * 4], dtype='<u4').astype('>u4')
    packed = words.view(np.uint8)
    nibbles = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)
    ends = np.flatnonzero(nibbles < 8)
    if not len(ends):
        return np.zeros(0, np.int64)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    found = np.zeros(len(ends), np.int64)
    for place in range(min(int(lengths.max()), _MAX_NIBBLES)):
        has = lengths > place
        found[has] |= (nibbles[starts[has] + place].astype(np.int64) & 7) << (3 * place)
    found[lengths > _MAX_NIBBLES] = np.iinfo(np.int32).max  # longer than any picture: damaged
    return found


def _damaged(data: bytes, height: int, width: int) -> DecodeError:
    return DecodeError(
        f'compressedDepth rvl: {len(data)} bytes do not hold the {width}x{height} pixels that '
        'they announce'
    )
