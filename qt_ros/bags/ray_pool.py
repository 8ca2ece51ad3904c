"""The same conversion on a Ray cluster: bags are the unit, and this process alone commits.

A task runs on any machine of the cluster. It reads its bag, which must lie at the same path
there, and sends the encoded videos back in pieces through Ray's object store, then the rows; so
the machines need not see the dataset. A Ray cluster is a trusted zone: whoever reaches its ports
can run code on its machines. One that is started here listens on this machine alone and asks for
a secret that nobody else has.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib.metadata
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import qt_ros
from qt_ros.bags.scheduling import WorkerDied
from qt_ros.bags.work import BagResult, BagTask, convert_bag, not_converted
from qt_ros.dataset.files import Busy, locked
from qt_ros.dataset.video import EncodedVideo, file_sha256
from qt_ros.errors import BagError

LOCAL = 'local'  # the address of a cluster that is started here and ends with the conversion
PIECE_BYTES = 8 << 20  # videos travel in pieces, so neither side holds a whole one in memory
PIECES_AHEAD = 4  # that a task may be ahead of the committer
STORE_BYTES = 256 << 20  # object store of a local cluster
CONNECT_S = 5.0
LEASES = 3  # workers that a bag may be given to before one begins
BEGUN = None  # first thing that a task sends
SETTLED_S = 60.0
FOLDER, LOCK = 'qt_ros_ray_', 'lock'  # where a task keeps its videos until they are sent
PACKAGES = ('av', 'numpy', 'opencv-python-headless', 'rosbags')  # that decide what rows hold


class RayPool:
    """A Ray cluster that converts bags; a context manager.

    `address`: 'local', 'auto' (the cluster that this machine belongs to) or HOST:PORT.
    `workers`: bags at a time; None: as many as the cluster has cores. Raises `BagError` if Ray
    is not installed or the cluster cannot be reached.
    """

    def __init__(self, address: str, workers: int | None) -> None:
        self._address, self._workers = address, workers
        self._own = False
        self.slots = 0

    def __enter__(self) -> RayPool:
        self._ray = import_ray(self._address)
        if not self._ray.is_initialized():
            _connect(self._ray, self._address, self._workers)
            self._own = True
        cores = int(self._ray.cluster_resources().get('CPU', 0))
        if cores < 1:
            self.__exit__(None, None, None)
            raise BagError(f'the Ray cluster at {self._address} has no CPU to give')
        self.slots = min(self._workers or cores, cores)
        self._versions = versions()
        self._convert = self._ray.remote(_convert_there).options(
            num_cpus=1,
            max_retries=0,  # a lost bag is tried again by whoever asked for it
            num_returns='streaming',
            _generator_backpressure_num_objects=PIECES_AHEAD,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._own:
            self._ray.shutdown()  # ends the tasks, and a cluster that was started here

    def call(self, task: BagTask) -> BagResult:
        """Convert one bag on the cluster; its videos come to lie in the task's staging folder.

        Any thread may call. Raises `WorkerDied` if the process or its machine is lost.
        """
        for _ in range(LEASES):
            result = self._attempt(replace(task, path=task.path.absolute()))
            if result is not None:
                return _received(task, result)
        raise WorkerDied(f'no Ray worker took {task.path}')

    def _attempt(self, task: BagTask) -> BagResult | None:
        """Convert one bag; None if its worker was lost before it began, which Ray lets happen to
        a task that follows one whose worker died.
        """
        from ray.exceptions import RayError, RayTaskError

        begun = False
        try:
            for reference in self._convert.remote(task, self._versions):
                piece = self._ray.get(reference)
                if isinstance(piece, BagResult):
                    # A copy, since arrays from the object store keep their place in it.
                    return copy.deepcopy(piece)
                begun = True
                if piece is not BEGUN:
                    _append(task.staging, *piece)
        except RayTaskError as exc:
            return not_converted(task, _words(exc))
        except (RayError, ConnectionError) as exc:
            if not begun:
                return None
            raise WorkerDied(f'the Ray worker that converted {task.path} is lost ({exc})') from exc
        return None


@functools.cache
def versions() -> dict[str, str]:
    """Return what must agree between machines for a dataset not to depend on them.

    Each process looks once, for what it has imported stays as it was then.
    """
    own = hashlib.sha256()
    root = Path(qt_ros.__file__).parent
    for folder in (root, root / 'bags', root / 'dataset'):
        for path in sorted(folder.glob('*.py')):
            own.update(path.name.encode() + b'\0' + path.read_bytes())
    found = {'q-transformer-ros (sha256 of its files)': own.hexdigest()[:12]}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def _convert_there(task: BagTask, wanted: dict[str, str]) -> Iterator[Any]:
    """Yield `BEGUN`, (file, position, bytes) of the videos, the result; runs on the cluster."""
    import cv2

    yield BEGUN
    cv2.setNumThreads(1)
    machine = socket.gethostname()
    found = versions()
    problems = [
        f'{name} is {found[name]} on {machine} and {version} where the dataset is written; install'
        ' the same on all machines of the cluster'
        for name, version in wanted.items()
        if found[name] != version
    ]
    if problems:
        yield not_converted(task, *problems)
        return
    if not task.path.exists():
        yield not_converted(
            task,
            f'{task.path} does not exist on {machine}; recordings must be at the same path on'
            ' every machine of the Ray cluster (a shared folder)',
        )
        return
    _sweep()
    with tempfile.TemporaryDirectory(prefix=FOLDER) as name, locked(Path(name) / LOCK, name):
        folder = Path(name)
        result = convert_bag(replace(task, staging=folder))
        for _, encoded in result.episodes:
            for video in encoded.values():
                yield from _pieces(video.path, folder)
        result.episodes = [
            (episode, {camera: _moved(each, folder, '') for camera, each in encoded.items()})
            for episode, encoded in result.episodes
        ]
        yield result


def _sweep() -> None:
    """Remove the videos of tasks that were killed on this machine: nobody holds their lock."""
    for folder in Path(tempfile.gettempdir()).glob(f'{FOLDER}*'):
        with suppress(OSError, Busy):
            # One that was just made may not hold its lock yet.
            if time.time() - folder.stat().st_mtime > SETTLED_S:
                with locked(folder / LOCK, str(folder)):
                    shutil.rmtree(folder, ignore_errors=True)


def _pieces(path: Path, folder: Path) -> Iterator[tuple[str, int, bytes]]:
    name, position = path.relative_to(folder).as_posix(), 0
    with open(path, 'rb') as file:
        while block := file.read(PIECE_BYTES):
            yield name, position, block
            position += len(block)


def _moved(video: EncodedVideo, source: str | Path, target: str | Path) -> EncodedVideo:
    """Return the video with its place given below another folder."""
    return replace(video, path=Path(target) / video.path.relative_to(source))


def _append(staging: Path, name: str, position: int, block: bytes) -> None:
    path = staging / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'r+b' if position else 'wb') as file:
        file.seek(position)
        file.write(block)


def _received(task: BagTask, result: BagResult) -> BagResult:
    """Return the result with its videos where they lie here; each is checked against its sum."""
    result.report['bag'] = str(task.path)
    result.episodes = [
        (episode, {name: _moved(each, '', task.staging) for name, each in encoded.items()})
        for episode, encoded in result.episodes
    ]
    for _, encoded in result.episodes:
        for video in encoded.values():
            if file_sha256(video.path) != video.sha256:
                raise WorkerDied(f'{video.path.name} of {task.path} came back damaged from Ray')
    return result


def _words(error: Any) -> str:
    """Say what went wrong in a task, without the traceback of another machine."""
    cause = getattr(error, 'cause', None) or error
    if isinstance(cause, ModuleNotFoundError):
        return (
            f'a machine of the Ray cluster lacks {cause.name}; install q-transformer-ros with the'
            ' same versions there'
        )
    last = str(cause).strip().splitlines()[-1:] or [type(cause).__name__]
    return f'the Ray worker failed: {type(cause).__name__}: {last[0]}'


def check(address: str) -> None:
    """Raise `BagError` if Ray is not installed or nothing can be at the address."""
    import_ray(address)
    if address != LOCAL:
        _check_reachable(_head(address))


def import_ray(address: str) -> Any:
    """Return the module; raise `BagError` where it is not installed."""
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    os.environ.setdefault('RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO', '0')  # no warning about GPUs
    try:
        with _environment(_closed() if address == LOCAL else {}):
            import ray
    except ImportError:
        raise BagError(
            "--ray needs Ray, which is not installed: pip install 'q-transformer-ros[ray]'"
        ) from None
    return ray


def _closed() -> dict[str, str]:
    """Return what makes a cluster of our own listen to this machine and to this process alone.

    Ray reads it once, when it is imported: where others did that before, they have decided.
    """
    if 'ray' in sys.modules and not _secret.cache_info().currsize:
        return {}
    # The first is Ray's switch for machines that cannot form clusters: loopback only.
    return {
        'RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER': '0',
        'RAY_AUTH_MODE': 'token',
        'RAY_AUTH_TOKEN': _secret(),
    }


def _connect(ray: Any, address: str, workers: int | None) -> None:
    """Start or join the cluster; raise `BagError` in words."""
    quiet = {'log_to_driver': False, 'logging_level': 'error'}
    terminate = signal.getsignal(signal.SIGTERM)  # ray.init puts its own in its place
    try:
        if address == LOCAL:
            with _environment(_closed()):
                ray.init(
                    address=LOCAL,
                    num_cpus=workers,
                    include_dashboard=False,
                    object_store_memory=STORE_BYTES,
                    _node_ip_address='127.0.0.1',
                    **quiet,
                )
        else:
            ray.init(address=_head(address), **quiet)
    except Exception as exc:  # Ray raises many kinds for a cluster that is not as it should be
        raise BagError(f'no Ray cluster at {address!r}: {exc}') from exc
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)


@functools.cache
def _secret() -> str:
    """Return the secret of the clusters that this process starts."""
    return secrets.token_hex(32)


def _head(address: str) -> str:
    """Return HOST:PORT of the cluster's head; for 'auto' where Ray says that this machine's is."""
    if address != 'auto':
        return address
    if found := os.environ.get('RAY_ADDRESS', ''):
        return found
    note = Path(os.environ.get('RAY_TMPDIR', '/tmp')) / 'ray/ray_current_cluster'
    try:
        return note.read_text(encoding='utf-8').strip()
    except OSError:
        raise BagError(
            '--ray auto: this machine belongs to no Ray cluster; start one with ray start --head,'
            ' or give HOST:PORT of one'
        ) from None


def _check_reachable(address: str) -> None:
    """Raise `BagError` at once for what Ray would try to reach for minutes."""
    host, _, port = address.rpartition(':')
    if '://' in address or not host or not port.isdigit():
        what = 'a recording: name it before --ray' if Path(address).exists() else 'no address'
        raise BagError(
            f'--ray {address}: this is {what}. Allowed: nothing (a cluster on this machine), auto'
            ' (the cluster that this machine belongs to) or HOST:PORT of its head; ray:// cannot'
            ' send videos in pieces'
        )
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as exc:
        raise BagError(
            f'no Ray cluster answers at {address} ({exc}); start one with: ray start --head'
            f' --port={port}'
        ) from exc


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for a while, where the user has not set them."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
