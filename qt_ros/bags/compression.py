"""Zstandard, LZ4 and bzip2, for whole files, chunks and single messages.

A damaged end costs no more than what lies behind it. What unpacks to more than it claims, or to
more than anyone records, is stopped on the way: a few kilobytes can unpack to terabytes.
"""

from __future__ import annotations

import bz2
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
LZ4_MAGIC = b'\x04\x22\x4d\x18'
METHODS = ('zstd', 'lz4', 'bz2')
MAX_BYTES = 1 << 29  # of one chunk or message, unpacked
MAX_FILE_RATIO = 1000  # a file may unpack to so many times its length ...
MAX_FILE_LEAST = 1 << 30  # ... or to this many bytes
SPARE_BYTES = 1 << 28  # of the disk are left free when a file is unpacked
_PIECE = 1 << 18  # of input at a time ...
_MOST = 1 << 22  # ... and of output
_ZSTD_STEP = 1 << 11  # of input at a time: 4 bytes may unpack to 128 KiB


class DamagedError(Exception):
    """Compressed bytes that end early or are not what they claim to be."""


def method_of(head: bytes) -> str:
    """Return how something that begins with these bytes is compressed, '' if it is not."""
    if head[:4] == ZSTD_MAGIC:
        return 'zstd'
    return 'lz4' if head[:4] == LZ4_MAGIC else ''


def decompress(
    data: bytes | memoryview, method: str, size: int | None = None
) -> tuple[bytes | bytearray | memoryview, str]:
    """Return as much of `data` as decompresses, and what was wrong ('' if nothing was).

    `size` is the expected length in bytes, where it is known; no more is unpacked. More than
    `MAX_BYTES` are refused.
    """
    if method == '':
        return data, ''
    if method not in METHODS:
        return b'', f'unknown compression {method!r}; known: {", ".join(METHODS)}'
    if size is not None and size > MAX_BYTES:
        return b'', f'claims {size} bytes, more than the {MAX_BYTES} that are allowed'
    whole = _zstd_at_once(data, size) if method == 'zstd' else None
    if whole is not None:
        return whole, ''
    limit = MAX_BYTES if size is None else size
    plain, problem = bytearray(), ''
    try:
        for piece in _pieces(data, method):
            plain += piece
            if len(plain) > limit:
                del plain[limit:]
                problem = f'unpacks to more than {limit} bytes'
                break
    except DamagedError as exc:
        problem = str(exc)
    if not problem and size is not None and len(plain) < size:
        problem = f'ends after {len(plain)} of {size} bytes'
    return plain, problem


def decompress_message(data: bytes) -> bytes:
    """Undo the compression of a single CDR message.

    CDR begins with a zero byte and so is never mistaken for a compressed frame.
    Raise `DamagedError` if the frame is damaged.
    """
    method = method_of(data)
    if not method:
        return data
    plain, problem = decompress(data, method)
    if problem:
        raise DamagedError(problem)
    return bytes(plain)


def decompress_file(source: Path, target: Path) -> str:
    """Write the content of a compressed file to `target`; return what was wrong ('' if nothing).

    Stops before the disk is full: what was unpacked until then is there.
    """
    with source.open('rb') as packed, target.open('wb') as plain:
        method = method_of(packed.read(4))
        packed.seek(0)
        if not method:
            return f'{source.name} is not compressed with zstd or lz4'
        length = source.stat().st_size
        limit = min(
            max(length * MAX_FILE_RATIO, MAX_FILE_LEAST),
            shutil.disk_usage(target.parent).free - SPARE_BYTES,
        )
        total = 0
        try:
            for piece in _file_pieces(packed, method):
                total += len(piece)
                if total > limit:
                    return (
                        f'{source.name} unpacks to more than {max(limit, 0)} bytes, for which'
                        f' {target.parent} has no room; set TMPDIR to a folder with more, or'
                        ' unpack it yourself'
                    )
                plain.write(piece)
        except DamagedError as exc:
            return f'{source.name} is damaged: {exc}'
    return ''


def _zstd_at_once(data: bytes | memoryview, size: int | None) -> bytes | None:
    """Return what a sound frame holds, by the quick way; None if it must be taken piecewise."""
    try:
        stated = zstandard.frame_content_size(data)
        if not 0 < stated <= MAX_BYTES or (size is not None and stated != size):
            return None
        return zstandard.ZstdDecompressor().decompress(data)
    except (zstandard.ZstdError, MemoryError):
        return None


def _pieces(data: bytes | memoryview, method: str) -> Iterator[bytes]:
    """Unpack piece by piece, so that what comes before a damaged place is kept."""
    if method == 'zstd':
        yield from _zstd_pieces(data)
        return
    decoder = _decoder(method)
    yield from _fed(decoder, data)
    if not decoder.eof:
        raise DamagedError(f'{method}: ends early')


def _zstd_pieces(data: bytes | memoryview) -> Iterator[bytes]:
    decoder = zstandard.ZstdDecompressor().decompressobj()
    try:
        for start in range(0, len(data), _ZSTD_STEP):
            if decoder.eof:
                return
            yield decoder.decompress(data[start : start + _ZSTD_STEP])
    except zstandard.ZstdError as exc:
        raise DamagedError(f'zstd: {exc}') from exc
    if not decoder.eof:
        raise DamagedError('zstd: ends early')


def _file_pieces(file: BinaryIO, method: str) -> Iterator[bytes]:
    if method == 'zstd':
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        try:
            while piece := reader.read(_PIECE):
                yield piece
        except zstandard.ZstdError as exc:
            raise DamagedError(f'zstd: {exc}') from exc
        return
    decoder = _decoder(method)
    while not decoder.eof and (data := file.read(_PIECE)):
        yield from _fed(decoder, data)
    if not decoder.eof:
        raise DamagedError(f'{method}: ends early')


def _decoder(method: str) -> Any:
    """Return a decoder with `decompress(data, max_length)`, `needs_input` and `eof`."""
    if method == 'bz2':
        return bz2.BZ2Decompressor()
    import lz4.frame

    return lz4.frame.LZ4FrameDecompressor()


def _fed(decoder: Any, data: bytes | memoryview) -> Iterator[bytes]:
    """Feed `data`; no more than `_MOST` bytes come out at once, however much it unpacks to."""
    try:
        for start in range(0, len(data), _PIECE):
            rest: bytes | memoryview = data[start : start + _PIECE]
            while not decoder.eof:
                piece = decoder.decompress(rest, _MOST)
                rest = b''
                if piece:
                    yield piece
                elif decoder.needs_input:
                    break
    except (RuntimeError, OSError, ValueError, EOFError) as exc:
        raise DamagedError(str(exc)) from exc
