"""Zstandard and LZ4, for whole files, chunks and single messages; a damaged end costs no more
than what lies behind it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import zstandard

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
LZ4_MAGIC = b'\x04\x22\x4d\x18'
MAX_BYTES = 1 << 30
_PIECE = 1 << 16


class DamagedError(Exception):
    """Compressed bytes that end early or are not what they claim to be."""


def decompress(data: bytes, method: str, size: int | None = None) -> tuple[bytes, str]:
    """Return as much of `data` as decompresses, and what was wrong ('' if nothing was).

    `size` is the expected length in bytes, where it is known. More than `MAX_BYTES` are refused.
    """
    if method == '':
        return data, ''
    if size is not None and size > MAX_BYTES:
        return b'', f'claims {size} bytes, more than the {MAX_BYTES} that are allowed'
    if method not in ('zstd', 'lz4'):
        return b'', f'unknown compression {method!r}; known: zstd, lz4'
    parts: list[bytes] = []
    total = 0
    problem = ''
    try:
        for part in _pieces(data, method):
            parts.append(part)
            total += len(part)
            if total > MAX_BYTES:
                problem = f'more than {MAX_BYTES} bytes'
                break
    except DamagedError as exc:
        problem = str(exc)
    if not problem and size is not None and total < size:
        problem = f'ends after {total} of {size} bytes'
    return b''.join(parts), problem


def decompress_message(data: bytes) -> bytes:
    """Undo the compression of a single message.

    A CDR message begins with a zero byte and so is never mistaken for a zstd frame.
    Raise `DamagedError` if the frame is damaged.
    """
    if data[:4] != ZSTD_MAGIC:
        return data
    plain, problem = decompress(data, 'zstd')
    if problem:
        raise DamagedError(problem)
    return plain


def decompress_file(source: Path, target: Path) -> str:
    """Write the content of a `.zstd` file to `target`; return what was wrong ('' if nothing)."""
    with source.open('rb') as compressed, target.open('wb') as plain:
        reader = zstandard.ZstdDecompressor().stream_reader(compressed, read_across_frames=True)
        try:
            shutil.copyfileobj(reader, plain, _PIECE)
        except zstandard.ZstdError as exc:
            return f'{source.name} is damaged: {exc}'
    return ''


def _pieces(data: bytes, method: str):
    """Feed piece by piece, so that what comes before a damaged place is kept."""
    if method == 'zstd':
        yield from _zstd_pieces(data)
        return
    import lz4.frame

    decoder = lz4.frame.LZ4FrameDecompressor()
    try:
        for start in range(0, len(data), _PIECE):
            if decoder.eof:
                return
            yield decoder.decompress(data[start : start + _PIECE])
    except RuntimeError as exc:
        raise DamagedError(f'lz4: {exc}') from exc
    if not decoder.eof:
        raise DamagedError('lz4: ends early')


def _zstd_pieces(data: bytes):
    decoder = zstandard.ZstdDecompressor().decompressobj()
    try:
        for start in range(0, len(data), _PIECE):
            if decoder.eof:
                return
            yield decoder.decompress(data[start : start + _PIECE])
    except zstandard.ZstdError as exc:
        raise DamagedError(f'zstd: {exc}') from exc
    if not decoder.eof:
        raise DamagedError('zstd: ends early')
