"""Damage bytes as disks, cables, crashes and bad tools do: pure functions of (bytes, rng).

`damage` applies one to four of `WAYS`. All randomness comes from the generator that is given, so
the same seed gives the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from numpy.random import Generator

Mutation = Callable[[bytes, Generator, Sequence[bytes]], bytes]

HUGE = (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x40000000, 0x10000000, 1 << 20, 0xFFFF, 0, 1)
HUGE_64 = (2**64 - 1, 2**63 - 1, 2**63, 2**62, 2**40, 2**33, 2**32, 0, 1)
MAX_GROWTH = 1 << 18  # bytes that one mutation may add
_RECORD = struct.Struct('<BQ')  # of MCAP: opcode, length
_MCAP_MAGIC = 8


def span(rng: Generator, size: int, most: int = 4096) -> tuple[int, int]:
    """Return a random (start, stop) within `size` bytes; short spans are as likely as long."""
    if size == 0:
        return 0, 0
    length = int(2 ** rng.uniform(0, min(most, size).bit_length()))
    length = max(1, min(length, size, most))
    start = int(rng.integers(0, size - length + 1))
    return start, start + length


def flip_bits(data: bytes, rng: Generator, donors: Sequence[bytes]) -> bytes:
    """Flip 1 to 16 bits anywhere."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 17)) if found else 0):
        found[int(rng.integers(len(found)))] ^= 1 << int(rng.integers(8))
    return bytes(found)


def set_bytes(data: bytes, rng: Generator, donors: Sequence[bytes]) -> bytes:
    """Write random bytes over a span."""
    start, stop = span(rng, len(data), 64)
    return data[:start] + rng.bytes(stop - start) + data[stop:]


def cut_end(data: bytes, rng: Generator, donors: Sequence[bytes]) -> bytes:
    """Drop everything behind a random byte."""
    return data[: int(rng.integers(0, len(data) + 1))]


def cut_start(data: bytes, rng: Generator, donors: Sequence[bytes]) -> bytes:
    """Drop everything before a random byte."""
    return data[int(rng.integers(0, len(data) + 1)) :]


def cut_out(data: bytes, rng: Generator, donors: Sequence[bytes]) -> bytes:
    """Drop a span in the middle, so that all behind it moves."""
    start, stop = span(rng, len(data))
    return data[:start] + data[stop:]


def zero(data: bytes, rng: Generator, donors: Sequence[bytes]) -> bytes:
    """Fill a span with zeros, as a lost page does."""
    start, stop = span(rng, len(data))
    return data[:start] + bytes(stop - start) + data[stop:]


def repeat(data: bytes, rng: Generator, donors: Sequence[bytes]) -> bytes:
    """Insert a span again behind itself, up to 8 times."""
    start, stop = span(rng, len(data))
    times = min(int(rng.integers(1, 9)), max(1, MAX_GROWTH // max(stop - start, 1)))
    return data[:stop] + data[start:stop] * times + data[stop:]


def swap(data: bytes, rng: Generator, donors: Sequence[bytes]) -> bytes:
    """Exchange two blocks of equal size."""
    start, stop = span(rng, len(data) // 2)
    length = stop - start
    other = int(rng.integers(stop, max(len(data) - length, stop) + 1))
    block, far = data[start:stop], data[other : other + length]
    return data[:start] + far + data[stop:other] + block + data[other + length :]


def splice(data: bytes, rng: Generator, donors: Sequence[bytes]) -> bytes:
    """Write a piece of another file over, or into, this one."""
    donor = donors[int(rng.integers(len(donors)))] if donors else data
    start, stop = span(rng, len(donor), 1 << 14)
    at = int(rng.integers(0, len(data) + 1))
    over = at + (stop - start) * int(rng.integers(2))
    return data[:at] + donor[start:stop] + data[over:]


def huge_number(data: bytes, rng: Generator, donors: Sequence[bytes]) -> bytes:
    """Write an extreme 16, 32 or 64-bit number, as a damaged length or count."""
    code = ('<H', '<I', '>I', '<Q', '>Q')[int(rng.integers(5))]
    pool = HUGE_64 if code[1] == 'Q' else HUGE
    value = pool[int(rng.integers(len(pool)))] & (2 ** (8 * struct.calcsize(code)) - 1)
    packed = struct.pack(code, value)
    if len(data) < len(packed):
        return packed
    # Lengths are aligned as often as not.
    at = int(rng.integers(0, len(data) - len(packed) + 1)) // 4 * 4
    if rng.integers(2):
        at = int(rng.integers(0, len(data) - len(packed) + 1))
    return data[:at] + packed + data[at + len(packed) :]


def mcap_record(data: bytes, rng: Generator, donors: Sequence[bytes]) -> bytes:
    """Change, drop, double or exchange whole records of an MCAP file; else a huge number."""
    records = mcap_records(data)
    if len(records) < 2:
        return huge_number(data, rng, donors)
    start, stop = records[int(rng.integers(len(records)))]
    record = data[start:stop]
    what = int(rng.integers(6))
    if what == 0:  # another opcode
        return data[:start] + bytes([int(rng.integers(0, 18))]) + data[start + 1 :]
    if what == 1:  # another length
        length = HUGE_64[int(rng.integers(len(HUGE_64)))]
        if rng.integers(2):
            length = max(0, stop - start - 9 + int(rng.integers(-9, 10)))
        return data[: start + 1] + struct.pack('<Q', length) + data[start + 9 :]
    if what == 2:
        return data[:start] + data[stop:]
    if what == 3:
        return data[:stop] + record + data[stop:]
    other = records[int(rng.integers(len(records)))]
    if what == 4:  # moved
        rest = data[:start] + data[stop:]
        at = min(other[0], len(rest))
        return rest[:at] + record + rest[at:]
    inner = damage(record[9:], rng, donors, most=1)  # damaged, with a length that fits
    return data[:start] + _RECORD.pack(record[0], len(inner)) + inner + data[stop:]


def mcap_records(data: bytes) -> list[tuple[int, int]]:
    """Return (start, stop) of the records of an MCAP file, as far as they read."""
    found, at = [], _MCAP_MAGIC
    while at + 9 <= len(data):
        opcode, length = _RECORD.unpack_from(data, at)
        if opcode == 0 or at + 9 + length > len(data):
            break
        found.append((at, at + 9 + length))
        at += 9 + length
    return found


WAYS: tuple[Mutation, ...] = (
    flip_bits,
    set_bytes,
    cut_end,
    cut_start,
    cut_out,
    zero,
    repeat,
    swap,
    splice,
    huge_number,
    huge_number,
    flip_bits,
)


def damage(data: bytes, rng: Generator, donors: Sequence[bytes] = (), most: int = 4) -> bytes:
    """Apply one to `most` ways of damage."""
    ways = (*WAYS, mcap_record, mcap_record) if data.startswith(b'\x89MCAP') else WAYS
    for _ in range(int(rng.integers(1, most + 1))):
        data = ways[int(rng.integers(len(ways)))](data, rng, donors)
    return data
