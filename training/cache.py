"""The training cache: raw memory-mapped arrays beside a dataset, and the one place for its layout.

    CACHE/meta.json            what follows, and which rows belong to which episode
    CACHE/images.<camera>.u8   (rows, H, W, 3) uint8 RGB
    CACHE/state.f32            (rows, S) float32
    CACHE/action.f32           (rows, A) float32, as sent
    CACHE/reward.f32           (rows,)   float32
    CACHE/terminated.u8        (rows,)   uint8, 1 where the task itself ended
    CACHE/truncated.u8         (rows,)   uint8, 1 where only the recording ended

`meta.json` is written last, by rename: rows beyond `meta.rows` are what an interrupted writer
left, are never read, and are cut off by the next writer. Every episode of the dataset has its rows
here; those whose outcome says nothing (aborted, unknown) are marked by it and not part of
`Cache.episodes`, so a later label costs no copying. Returns are not stored: gamma is the
trainer's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

VERSION = 1
TRAINABLE = ('success', 'failure', 'timeout')


@dataclass(frozen=True)
class CacheAction:
    """One action dimension: `bins` values evenly spaced from `low` to `high`, both included."""

    name: str
    low: float
    high: float
    bins: int


@dataclass(frozen=True)
class CacheEpisode:
    """Rows `start` to `start + length` (excluded), in recorded order."""

    start: int
    length: int
    instruction: int  # index into CacheMeta.instructions
    outcome: str  # success | failure | timeout | aborted | unknown
    source: str  # teleop | policy | mixed
    policy_id: str
    id: str
    digest: str = ''  # changes whenever the stored rows would

    @property
    def stop(self) -> int:
        return self.start + self.length

    @property
    def trainable(self) -> bool:
        return self.outcome in TRAINABLE


@dataclass(frozen=True)
class CacheMeta:
    """What `meta.json` says."""

    contract: str  # the contract's YAML text
    contract_hash: str
    cameras: Mapping[str, tuple[int, int]]  # name -> (height, width)
    state_names: tuple[str, ...]  # S entries
    action: tuple[CacheAction, ...]  # A entries
    instructions: tuple[str, ...] = ()
    episodes: tuple[CacheEpisode, ...] = ()  # every episode, in the dataset's order
    rows: int = 0
    version: int = VERSION

    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return {file name: (numpy dtype, shape of one row)}."""
        images = {
            f'images.{name}.u8': ('u1', (height, width, 3))
            for name, (height, width) in self.cameras.items()
        }
        return {
            **images,
            'state.f32': ('<f4', (len(self.state_names),)),
            'action.f32': ('<f4', (len(self.action),)),
            'reward.f32': ('<f4', ()),
            'terminated.u8': ('u1', ()),
            'truncated.u8': ('u1', ()),
        }

    def same_layout(self, other: CacheMeta) -> bool:
        """Say whether rows of `other` could be appended to these."""
        return (
            self.version == other.version
            and self.contract_hash == other.contract_hash
            and self.arrays() == other.arrays()
            and self.state_names == other.state_names
            and self.action == other.action
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + '\n'

    @classmethod
    def from_json(cls, text: str) -> CacheMeta:
        """Parse `meta.json`; raises ValueError, KeyError or TypeError on anything else."""
        raw = json.loads(text)
        if raw['version'] != VERSION:
            raise ValueError(f'version {raw["version"]}, expected {VERSION}')
        return cls(
            contract=raw['contract'],
            contract_hash=raw['contract_hash'],
            cameras={name: (int(size[0]), int(size[1])) for name, size in raw['cameras'].items()},
            state_names=tuple(raw['state_names']),
            action=tuple(CacheAction(**dim) for dim in raw['action']),
            instructions=tuple(raw['instructions']),
            episodes=tuple(CacheEpisode(**episode) for episode in raw['episodes']),
            rows=int(raw['rows']),
        )


def _row_bytes(kind: str, shape: tuple[int, ...]) -> int:
    return int(np.dtype(kind).itemsize * np.prod(shape, dtype=np.int64))


def read_meta(path: Path) -> CacheMeta:
    """Read and check `path`/meta.json against the files beside it.

    Raises TrainingError if there is no cache, it is of another version, or a file is too short.
    """
    remedy = 'build the cache again from its dataset (qt-ros train does)'
    try:
        meta = CacheMeta.from_json((path / 'meta.json').read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise TrainingError(f'{path} holds no training cache; {remedy}') from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f'{path}/meta.json cannot be used ({error}); {remedy}') from None
    short = []
    for name, (kind, shape) in meta.arrays().items():
        file = path / name
        size = file.stat().st_size if file.exists() else 0
        need = meta.rows * _row_bytes(kind, shape)
        if size < need:
            short.append(f'{file} has {size} bytes, {need} are needed; {remedy}')
    if short:
        raise TrainingError(short)
    return meta


@dataclass(frozen=True)
class Cache:
    """An open cache: read-only memory maps over all rows."""

    path: Path
    meta: CacheMeta
    images: Mapping[str, NDArray[np.uint8]]  # camera -> (rows, H, W, 3)
    state: NDArray[np.float32]  # (rows, S)
    action: NDArray[np.float32]  # (rows, A)
    reward: NDArray[np.float32]  # (rows,)
    terminated: NDArray[np.uint8]  # (rows,)
    truncated: NDArray[np.uint8]  # (rows,)

    @classmethod
    def open(cls, path: Path) -> Cache:
        """Map the cache at `path`; raises TrainingError if it is missing or damaged."""
        path = Path(path)
        meta = read_meta(path)
        maps = {
            name: _map(path / name, kind, (meta.rows, *shape))
            for name, (kind, shape) in meta.arrays().items()
        }
        return cls(
            path=path,
            meta=meta,
            images={camera: maps[f'images.{camera}.u8'] for camera in meta.cameras},
            state=maps['state.f32'],
            action=maps['action.f32'],
            reward=maps['reward.f32'],
            terminated=maps['terminated.u8'],
            truncated=maps['truncated.u8'],
        )

    def __len__(self) -> int:
        return self.meta.rows

    @property
    def episodes(self) -> tuple[CacheEpisode, ...]:
        """The episodes to train on: those that ended in success, failure or timeout."""
        return tuple(episode for episode in self.meta.episodes if episode.trainable)


def _map(file: Path, kind: str, shape: tuple[int, ...]) -> NDArray:
    """Map `file` read-only; an empty array where there is nothing to map."""
    if 0 in shape:
        return np.zeros(shape, dtype=kind)
    return np.memmap(file, dtype=kind, mode='r', shape=shape)


class CacheWriter:
    """Append episodes to a cache; a context manager that commits when left without an exception.

        with CacheWriter(path, meta) as writer:
            writer.append(...)

    Goes on where the cache at `path` ends if its layout is that of `meta`, and starts anew
    otherwise (or with `fresh`). Nothing is visible to readers before `commit`.
    """

    def __init__(self, path: Path, meta: CacheMeta, *, fresh: bool = False) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.meta = replace(meta, instructions=(), episodes=(), rows=0)
        self._committed: CacheMeta | None = None
        if not fresh:
            with suppress(TrainingError):
                old = read_meta(self.path)
                if old.same_layout(meta):
                    self.meta = replace(old, contract=meta.contract)
                    self._committed = old
        if self.meta.rows == 0:
            self._committed = None
            for pattern in ('meta.json', '*.u8', '*.f32'):
                for stale in self.path.glob(pattern):
                    stale.unlink()
        self._files: dict[str, BinaryIO] = {}
        for name, (kind, shape) in self.meta.arrays().items():
            file = open(self.path / name, 'ab')  # noqa: SIM115 (closed by close)
            size = self.meta.rows * _row_bytes(kind, shape)
            if file.tell() != size:
                file.truncate(size)
            self._files[name] = file

    def append(
        self,
        *,
        id: str,
        instruction: str,
        outcome: str,
        source: str,
        policy_id: str,
        images: Mapping[str, Iterable[NDArray[np.uint8]]],
        state: NDArray[np.float32],
        action: NDArray[np.float32],
        reward: NDArray[np.float32],
        terminated: NDArray,
        truncated: NDArray,
        digest: str = '',
    ) -> CacheEpisode:
        """Write the T rows of one episode: images[camera] yields T frames (H, W, 3) uint8."""
        length = len(state)
        vectors = {
            'state.f32': state,
            'action.f32': action,
            'reward.f32': reward,
            'terminated.u8': terminated,
            'truncated.u8': truncated,
        }
        layout = self.meta.arrays()
        wrong = [
            f'{name}: {np.shape(vector)}, expected {(length, *layout[name][1])}'
            for name, vector in vectors.items()
            if np.shape(vector) != (length, *layout[name][1])
        ]
        if set(images) != set(self.meta.cameras):
            wrong.append(f'cameras {sorted(images)}, expected {sorted(self.meta.cameras)}')
        if wrong or length < 1:
            raise TrainingError([f'episode {id}: {problem}' for problem in wrong or ['no rows']])
        try:
            for camera, frames in images.items():
                self._write_frames(camera, frames, length, id)
            for name, vector in vectors.items():
                kind = layout[name][0]
                self._files[name].write(np.ascontiguousarray(vector, dtype=kind).data)
        except BaseException:
            self._cut()
            raise
        instructions = self.meta.instructions
        if instruction not in instructions:
            instructions = (*instructions, instruction)
        episode = CacheEpisode(
            start=self.meta.rows,
            length=length,
            instruction=instructions.index(instruction),
            outcome=outcome,
            source=source,
            policy_id=policy_id,
            id=id,
            digest=digest,
        )
        self.meta = replace(
            self.meta,
            instructions=instructions,
            episodes=(*self.meta.episodes, episode),
            rows=episode.stop,
        )
        return episode

    def relabel(
        self,
        index: int,
        outcome: str,
        reward: NDArray[np.float32],
        terminated: NDArray,
        truncated: NDArray,
    ) -> None:
        """Give episode `index` another outcome; images, state and action stay as they are.

        The columns go to disk before the meta says so: a crash between leaves the old outcome in
        the meta, so the next caller sees the difference and writes both again.
        """
        episode = self.meta.episodes[index]
        for name, vector in (
            ('reward.f32', reward),
            ('terminated.u8', terminated),
            ('truncated.u8', truncated),
        ):
            kind, shape = self.meta.arrays()[name]
            self._files[name].flush()
            with open(self.path / name, 'r+b') as file:
                file.seek(episode.start * _row_bytes(kind, shape))
                file.write(np.ascontiguousarray(vector, dtype=kind).data)
        episodes = list(self.meta.episodes)
        episodes[index] = replace(episode, outcome=outcome)
        self.meta = replace(self.meta, episodes=tuple(episodes))

    def commit(self) -> None:
        """Make everything appended so far visible to readers."""
        if self.meta == self._committed:
            return
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        temporary = self.path / f'meta.json.{os.getpid()}.tmp'
        with open(temporary, 'w', encoding='utf-8') as text:
            text.write(self.meta.to_json())
            text.flush()
            os.fsync(text.fileno())
        os.replace(temporary, self.path / 'meta.json')
        self._committed = self.meta

    def close(self) -> None:
        """Close the files; rows appended since the last commit are as if never written."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.commit()
        self.close()

    def _write_frames(
        self, camera: str, frames: Iterable[NDArray[np.uint8]], length: int, id: str
    ) -> None:
        shape = (*self.meta.cameras[camera], 3)
        written = 0
        for frame in frames:
            if frame.shape != shape or frame.dtype != np.uint8:
                raise TrainingError(
                    f'episode {id}: camera {camera} frame {written} is {frame.dtype}'
                    f' {frame.shape}; expected uint8 {shape}'
                )
            self._files[f'images.{camera}.u8'].write(np.ascontiguousarray(frame).data)
            written += 1
        if written != length:
            raise TrainingError(
                f'episode {id}: camera {camera} gave {written} frames for {length} rows'
            )

    def _cut(self) -> None:
        """Drop what a failed append wrote after the last whole episode."""
        for name, (kind, shape) in self.meta.arrays().items():
            self._files[name].flush()
            self._files[name].truncate(self.meta.rows * _row_bytes(kind, shape))
