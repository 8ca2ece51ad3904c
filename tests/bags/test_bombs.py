"""Files that claim to be huge, or that unpack to far more than anyone records.

Each is read by a process of its own whose memory is limited, so that a bomb that goes off fails
the test and not the machine.
"""

from __future__ import annotations

import bz2
import struct
import subprocess
import sys
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from mcap.writer import CompressionType, Writer

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 2 << 30
HUGE = 8 << 30  # bytes that the bombs unpack to
INT = ('std_msgs/msg/Int32', 'ros2msg', b'int32 data')
READ = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from qt_ros.bags.inspect import inspect_bag
from qt_ros.errors import BagError
try:
    found = inspect_bag(sys.argv[1])
    print(found['messages'], *found['problems'], sep='; ')
except BagError as exc:
    print('refused:', exc)
"""


def read(path: Path) -> str:
    """What inspection says about a file, in 2 GB of address space."""
    done = subprocess.run(
        [sys.executable, '-c', READ.format(limit=LIMIT), str(path)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope='session')
def bombs() -> dict[str, bytes]:
    """Small frames that unpack to `HUGE` bytes of zeros."""
    block = bytes(1 << 17)
    # A zstd frame of blocks that repeat one byte: 4 bytes each for 128 KiB.
    rle = struct.pack('<I', (len(block) << 3) | (1 << 1))[:3] + b'\0'
    last = struct.pack('<I', (len(block) << 3) | (1 << 1) | 1)[:3] + b'\0'
    zstd = b'\x28\xb5\x2f\xfd' + b'\x00' + b'\x38' + rle * (HUGE // len(block) - 1) + last
    piece = lz4.frame.LZ4FrameCompressor(block_size=lz4.frame.BLOCKSIZE_MAX4MB, block_linked=False)
    head = piece.begin()
    body = piece.compress(bytes(4 << 20)) or piece.flush()
    body = body if body else b''
    packed = head + body * (HUGE // (4 << 20)) + b'\0\0\0\0'
    return {'zstd': zstd, 'lz4': packed, 'bz2': bz2.compress(bytes(1 << 26))}


def test_the_bombs_are_bombs(bombs: dict[str, bytes]) -> None:
    total = 0
    for piece in zstandard.ZstdDecompressor().read_to_iter(bombs['zstd'][:40_000]):
        total += len(piece)
    assert total > 1000 * 40_000
    decoder = lz4.frame.LZ4FrameDecompressor()
    assert len(decoder.decompress(bombs['lz4'][:200_000], 50 << 20)) > 40 << 20
    assert all(len(bomb) < 64 << 20 for bomb in bombs.values())


def record(opcode: int, content: bytes) -> bytes:
    return struct.pack('<BQ', opcode, len(content)) + content


def mcap_with_chunk(path: Path, method: str, size: int, packed: bytes) -> None:
    chunk = struct.pack('<QQQII', 0, 9, size, 0, len(method)) + method.encode()
    chunk += struct.pack('<Q', len(packed)) + packed
    path.write_bytes(b'\x89MCAP0\r\n' + record(1, bytes(8)) + record(6, chunk))


@pytest.mark.parametrize('method', ['zstd', 'lz4'])
@pytest.mark.parametrize('claimed', [100, 1 << 29, HUGE, (1 << 64) - 1])
def test_an_mcap_chunk(tmp_path: Path, bombs: dict[str, bytes], method: str, claimed: int) -> None:
    mcap_with_chunk(tmp_path / 'a.mcap', method, claimed, bombs[method])
    assert 'a chunk is damaged' in read(tmp_path / 'a.mcap')


@pytest.mark.parametrize('method', ['zstd', 'lz4'])
def test_a_message_in_mcap(tmp_path: Path, bombs: dict[str, bytes], method: str) -> None:
    with (tmp_path / 'a.mcap').open('wb') as file:
        writer = Writer(file, compression=CompressionType.NONE)
        writer.start()
        channel = writer.register_channel('/n', 'cdr', writer.register_schema(*INT))
        writer.add_message(channel, 1, bombs[method], 1)
        writer.add_message(channel, 2, b'\0\1\0\0\7\0\0\0', 2)
        writer.finish()
    said = read(tmp_path / 'a.mcap')
    assert said.startswith('2;')
    assert 'a compressed message is damaged' in said


@pytest.mark.parametrize('method', ['zstd', 'lz4'])
def test_a_whole_file(tmp_path: Path, bombs: dict[str, bytes], method: str) -> None:
    """What there is room for is unpacked; the zeros in it are no recording."""
    (tmp_path / f'a.mcap.{method}').write_bytes(bombs[method][: 1 << 20])
    assert 'refused' in read(tmp_path / f'a.mcap.{method}')


@pytest.mark.parametrize('method', ['lz4', 'bz2'])
@pytest.mark.parametrize('claimed', [100, 0xFFFFFFFF])
def test_a_ros1_chunk(tmp_path: Path, bombs: dict[str, bytes], method: str, claimed: int) -> None:
    fields = (b'op=\5', b'compression=' + method.encode(), b'size=' + struct.pack('<I', claimed))
    head = b''.join(struct.pack('<I', len(each)) + each for each in fields)
    data = bombs[method]
    (tmp_path / 'a.bag').write_bytes(
        b'#ROSBAG V2.0\n'
        + struct.pack('<I', len(head))
        + head
        + struct.pack('<I', len(data))
        + data
    )
    assert 'a chunk is damaged' in read(tmp_path / 'a.bag')


@pytest.mark.parametrize('length', [1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
@pytest.mark.parametrize('opcode', [3, 4, 5, 6, 9, 0x0C])
def test_an_mcap_record_that_claims_more_than_there_is(
    tmp_path: Path, opcode: int, length: int
) -> None:
    (tmp_path / 'a.mcap').write_bytes(
        b'\x89MCAP0\r\n' + struct.pack('<BQ', opcode, length) + bytes(100)
    )
    from qt_ros.bags.inspect import inspect_bag

    assert inspect_bag(tmp_path / 'a.mcap')['messages'] == 0


def test_an_attachment_is_not_loaded(tmp_path: Path) -> None:
    """A sparse file: an attachment of 6 GB before the messages."""
    with (tmp_path / 'a.mcap').open('wb') as file:
        file.write(b'\x89MCAP0\r\n' + struct.pack('<BQ', 9, 6 << 30))
        file.seek(6 << 30, 1)
        file.write(record(3, struct.pack('<HI', 1, 1) + b'T' + struct.pack('<I', 0) + bytes(4)))
        file.write(record(4, struct.pack('<HHI', 1, 1, 2) + b'/n' + struct.pack('<I', 3) + b'cdr'
                          + bytes(4)))  # fmt: skip
        file.write(record(5, struct.pack('<HIQQ', 1, 0, 5, 5) + b'\0\1\0\0'))
    assert read(tmp_path / 'a.mcap').startswith('1;')


@pytest.mark.parametrize('length', [0x7FFFFFFF, 0xFFFFFFFF])
def test_a_ros1_record_that_claims_more_than_there_is(tmp_path: Path, length: int) -> None:
    (tmp_path / 'a.bag').write_bytes(b'#ROSBAG V2.0\n' + struct.pack('<I', length) + bytes(50))
    assert 'damaged' in read(tmp_path / 'a.bag')
