"""The shared recordings as others might hand them over: renamed, repacked, split, linked."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from mcap.reader import NonSeekingReader
from mcap.writer import CompressionType, Writer
from test_real_bags import COUNTS

from qt_ros.bags.inspect import inspect_bag
from qt_ros.bags.reader import BagReader
from qt_ros.errors import BagError

pytestmark = pytest.mark.bags
FOLDERS = [name for name in COUNTS if '.' not in name]
FILES = [name for name in COUNTS if '.' in name]


@pytest.fixture
def copied(request: pytest.FixtureRequest, real_bags: Path, tmp_path: Path) -> tuple[Path, int]:
    """A copy that may be written to, and its number of messages."""
    source = real_bags / request.param
    target = tmp_path / source.name
    if source.is_dir():
        target.mkdir()
        for each in source.iterdir():
            shutil.copyfile(each, target / each.name)
    else:
        shutil.copyfile(source, target)
    return target, COUNTS[request.param]


def counted(path: Path) -> int:
    with BagReader(path) as bag:
        messages = sum(1 for _ in bag.messages())
        assert bag.count == messages
    assert inspect_bag(path)['messages'] == messages
    return messages


@pytest.mark.parametrize('copied', FOLDERS, indirect=True)
@pytest.mark.parametrize('name', ['renamed.bag', 'Kopie von größe (2)', 'x.mcap'])
def test_a_renamed_folder(copied: tuple[Path, int], name: str) -> None:
    path, count = copied
    assert counted(path.rename(path.with_name(name))) == count


@pytest.mark.parametrize('copied', FOLDERS, indirect=True)
def test_without_metadata(copied: tuple[Path, int]) -> None:
    path, count = copied
    (path / 'metadata.yaml').unlink(missing_ok=True)
    for unlisted in path.glob('test.db3*'):  # metadata_v1: only the listed one belongs to it
        unlisted.unlink()
    assert counted(path) == count


@pytest.mark.parametrize(
    'copied', [name for name in FOLDERS if 'empty' not in name], indirect=True
)
@pytest.mark.parametrize('method', ['zstd', 'lz4', 'plain'])
def test_with_its_files_packed_or_unpacked(copied: tuple[Path, int], method: str) -> None:
    path, count = copied
    for file in [*path.glob('*.mcap'), *path.glob('*.db3'), *path.glob('*.zstd')]:
        data = file.read_bytes()
        file.unlink()
        if file.suffix == '.zstd':
            data = zstandard.ZstdDecompressor().stream_reader(data).read()
            file = file.with_suffix('')
        if method != 'plain':
            pack = lz4.frame.compress if method == 'lz4' else zstandard.ZstdCompressor().compress
            data, file = pack(data), file.with_name(f'{file.name}.{method}')
        file.write_bytes(data)
    assert counted(path) == count


@pytest.mark.parametrize('copied', FILES, indirect=True)
@pytest.mark.parametrize('name', ['a', 'a.mcap', 'a.bag', 'a.db3', 'a b.MCAP'])
def test_a_file_of_any_name_alone_and_in_a_folder(copied: tuple[Path, int], name: str) -> None:
    path, count = copied
    path = path.rename(path.with_name(name))
    assert counted(path) == count
    assert counted(path.parent) == count
    link = path.parent.parent / f'{path.parent.name} link'
    link.symlink_to(path.parent)
    assert counted(link) == count


@pytest.mark.parametrize('name', ['abitobot', 'type_coverage/test_bag_mcap', 'soccer_goal'])
@pytest.mark.parametrize('parts', [1, 3])
@pytest.mark.parametrize(
    'options',
    [
        {'use_chunking': False},
        {'compression': CompressionType.LZ4, 'chunk_size': 5000},
        {'use_statistics': False, 'use_summary_offsets': False, 'repeat_channels': False},
    ],
)
def test_split_anew_by_another_writer(
    real_bags: Path, tmp_path: Path, name: str, parts: int, options: dict[str, object]
) -> None:
    (source,) = (real_bags / name).glob('*.mcap')
    with source.open('rb') as file:
        found = list(NonSeekingReader(file).iter_messages(log_time_order=False))
    size = -(-len(found) // parts)
    for part in range(parts):
        with (tmp_path / f'part_{part}.mcap').open('wb') as file:
            writer = Writer(file, **options)  # type: ignore[arg-type]
            writer.start(profile='elsewhere')
            channels: dict[int, int] = {}
            for schema, channel, message in found[part * size : (part + 1) * size]:
                if channel.id not in channels:
                    number = writer.register_schema(schema.name, schema.encoding, schema.data)
                    channels[channel.id] = writer.register_channel(
                        channel.topic, channel.message_encoding, number
                    )
                number = channels[channel.id]
                writer.add_message(number, message.log_time, message.data, message.publish_time, 0)
            writer.finish()
    with BagReader(real_bags / name) as one, BagReader(tmp_path) as other:
        assert [r[:3] for r in one.messages()] == [r[:3] for r in other.messages()]
        assert {n: i.count for n, i in one.topics.items() if i.count} == {
            n: i.count for n, i in other.topics.items() if i.count
        }
        assert not other.partial


@pytest.mark.parametrize('name', COUNTS)
def test_cut_in_half(real_bags: Path, tmp_path: Path, name: str) -> None:
    """Half of a download: what is read is the beginning of what was recorded, or it is refused."""
    source = real_bags / name
    files = [source] if source.is_file() else sorted(source.iterdir())
    for file in files:
        if not file.name.endswith(('.mcap', '.db3', '.bag', '.zstd')):
            continue
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(data[: len(data) // 2])
        with BagReader(file) as whole:
            before = Counter(record[:3] for record in whole.messages())
        try:
            with BagReader(tmp_path / file.name) as half:
                after = Counter(record[:3] for record in half.messages())
                assert half.partial or after == before
                assert half.problems or after == before
        except BagError:
            continue
        assert after <= before
