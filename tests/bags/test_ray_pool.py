"""The conversion on a Ray cluster of two machines (here: two nodes): the same dataset."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from fatal import fatal
from made_bags import CONTRACT, contract, steady

from qt_ros.bags import ray_pool
from qt_ros.bags.converter import convert
from qt_ros.bags.known import Known
from qt_ros.bags.pools import run_tasks
from qt_ros.bags.work import BagTask
from qt_ros.dataset import Dataset
from qt_ros.dataset.files import locked
from qt_ros.errors import BagError

ray = pytest.importorskip('ray', reason="Ray is not installed: pip install '.[ray]'")
TESTS = str(Path(__file__).parent)


@pytest.fixture(scope='module')
def cluster() -> Iterator[str]:
    """The address of two nodes with one core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('RAY_USAGE_STATS_ENABLED', '0')
        patch.setenv('RAY_AUTH_MODE', 'disabled')  # else Ray keeps a token in the home folder
        patch.setenv('PYTHONPATH', os.pathsep.join([TESTS, *filter(None, sys.path)]))
        nodes = Cluster()
        for _ in range(2):
            nodes.add_node(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False)
        try:
            yield nodes.address
        finally:
            ray.shutdown()
            nodes.shutdown()


def made(folder: Path, count: int) -> list[Path]:
    return [steady(0.4 + 0.1 * n).write(folder / f'run_{n}') for n in range(count)]


def files(dataset: Path) -> dict[str, bytes]:
    run = ('conversion_report.json', 'conversions.jsonl', '.lock')
    return {
        str(path.relative_to(dataset)): path.read_bytes()
        for path in dataset.rglob('*')
        if path.is_file() and path.name not in run
    }


def test_the_cluster_makes_the_same_files(
    tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = made(tmp_path, 5)
    (tmp_path / 'broken.mcap').write_bytes(b'\x89MCAP0\r\n' + b'\x05' * 100)
    bags = [*paths[:3], tmp_path / 'broken.mcap', *paths[3:]]
    alone = convert(bags, contract(), tmp_path / 'alone')
    monkeypatch.chdir(tmp_path)  # paths may be relative to where the command runs
    relative = [path.relative_to(tmp_path) for path in bags]
    seen: list[str] = []
    found = convert(
        relative,
        contract(),
        tmp_path / 'ray',
        ray=cluster,
        progress=lambda at: seen.append(at['bag']),
    )
    assert files(tmp_path / 'ray') == files(tmp_path / 'alone')
    assert seen == [bag['bag'] for bag in alone.report['per_bag']]
    assert found.status == alone.status == 3
    for key in ('messages', 'episodes', 'rows', 'topics', 'streams', 'ticks', 'cuts'):
        assert found.report[key] == alone.report[key]
    assert not (tmp_path / 'ray/.staging').exists()


def test_a_worker_that_dies_costs_at_most_its_bag(tmp_path: Path, cluster: str) -> None:
    tasks = [
        BagTask(path, contract(), (), Known(str(path)), tmp_path / f'staging_{path.name}')
        for path in made(tmp_path, 4)
    ]
    tasks[0] = fatal(tasks[0], tmp_path / 'once', deaths=1)
    tasks[2] = fatal(tasks[2], tmp_path / 'always', deaths=99)
    tasks.append(replace(tasks[1], path=tmp_path / 'elsewhere'))
    with ExitStack() as stack:
        found = [each.report for each in run_tasks(tasks, None, stack, ray=cluster)]
    states = ['converted', 'converted', 'failed', 'converted', 'failed']
    assert [each['result'] for each in found] == states, [each['problems'] for each in found]
    assert [each['bag'] for each in found] == [str(each.path) for each in tasks]
    assert 'and once more when it was converted alone' in found[2]['problems'][0]
    assert len(list((tmp_path / 'always').iterdir())) <= 2 * ray_pool.LEASES
    assert 'same path on every machine of the Ray cluster' in found[4]['problems'][0]


def test_another_version_on_a_machine_is_refused(tmp_path: Path) -> None:
    (path,) = made(tmp_path, 1)
    task = BagTask(path, contract(), (), Known(str(path)), tmp_path / 'staging')
    wanted = ray_pool.versions() | {'av': '0.0', 'rosbags': '0.0'}
    _, answer = ray_pool._convert_there(task, wanted)
    assert answer.report['result'] == 'failed'
    assert [text.split(' ')[0] for text in answer.report['problems']] == ['av', 'rosbags']


def test_the_dead_leave_nothing_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    for name in ('dead', 'alive', 'new'):
        folder = tmp_path / f'{ray_pool.FOLDER}{name}'
        folder.mkdir()
        (folder / 'front.mp4').touch()
    (tmp_path / 'dead').mkdir()  # of somebody else
    with locked(tmp_path / f'{ray_pool.FOLDER}alive' / ray_pool.LOCK, 'alive'):
        for name in ('dead', 'alive'):
            os.utime(tmp_path / f'{ray_pool.FOLDER}{name}', (0, 0))
        ray_pool._sweep()
    left = sorted(each.name for each in tmp_path.iterdir())
    assert left == ['dead', f'{ray_pool.FOLDER}alive', f'{ray_pool.FOLDER}new']


def test_videos_travel_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = made(tmp_path, 1)
    task = BagTask(path, contract(), (), Known(str(path)), tmp_path / 'staging')
    monkeypatch.setattr(ray_pool, 'PIECE_BYTES', 500)
    _, *pieces, answer = ray_pool._convert_there(task, ray_pool.versions())
    assert len(pieces) > 2
    for piece in pieces:
        ray_pool._append(task.staging, *piece)
    ((_, encoded),) = ray_pool._received(task, answer).episodes
    assert encoded['front'].path.read_bytes() == b''.join(block for _, _, block in pieces)
    encoded['front'].path.write_bytes(b'cut off')
    video = replace(encoded['front'], path=Path(pieces[0][0]))
    answer.episodes = [(answer.episodes[0][0], {'front': video})]
    with pytest.raises(ray_pool.WorkerDied, match='damaged'):
        ray_pool._received(task, answer)


def test_a_cluster_of_its_own_prints_the_result_alone(tmp_path: Path) -> None:
    paths = made(tmp_path, 2)
    (tmp_path / 'contract.yaml').write_text(CONTRACT)
    command = [sys.executable, '-c', 'import sys; from qt_ros.cli import main; sys.exit(main())']
    command += ['convert', *map(str, paths), '--contract', str(tmp_path / 'contract.yaml')]
    command += ['--out', str(tmp_path / 'out'), '--ray', '--workers', '2', '--json']
    home = tmp_path / 'home'
    home.mkdir()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, 'HOME': str(home)}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)['episodes']['new'] == 2
    assert [line for line in done.stderr.splitlines() if not line.startswith('Converting')] == []
    assert list(home.iterdir()) == [], 'Ray may leave nothing at home'
    assert len(Dataset(tmp_path / 'out')) == 2


@pytest.mark.parametrize(
    ('address', 'words'),
    [
        ('ray://127.0.0.1:10001', 'no address. Allowed'),
        ('nonsense', 'no address. Allowed'),
        (TESTS, 'a recording: name it before --ray'),
        ('127.0.0.1:1', 'no Ray cluster answers at 127.0.0.1:1'),
        ('127.0.0.1:99999', 'no Ray cluster answers'),
    ],
)
def test_wrong_addresses_are_told_at_once(address: str, words: str) -> None:
    with pytest.raises(BagError, match=words.replace('.', r'\.')):
        ray_pool.check(address)


def test_auto_is_told_where_there_is_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv('RAY_ADDRESS', raising=False)
    monkeypatch.setenv('RAY_TMPDIR', str(tmp_path))
    with pytest.raises(BagError, match='belongs to no Ray cluster'):
        ray_pool.check('auto')
    (tmp_path / 'ray').mkdir()
    (tmp_path / 'ray/ray_current_cluster').write_text('127.0.0.1:1\n')  # one that has gone
    with pytest.raises(BagError, match=r'no Ray cluster answers at 127\.0\.0\.1:1'):
        ray_pool.check('auto')


def test_without_ray_the_extra_is_named(tmp_path: Path) -> None:
    made(tmp_path, 1)
    (tmp_path / 'contract.yaml').write_text(CONTRACT)
    script = "import sys; sys.modules['ray'] = None; from qt_ros.cli import main; sys.exit(main())"
    command = [sys.executable, '-c', script, 'convert', str(tmp_path / 'run_0'), '--ray']
    command += ['--contract', str(tmp_path / 'contract.yaml'), '--out', str(tmp_path / 'out')]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "pip install 'q-transformer-ros[ray]'" in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'out').exists()
