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
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

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

    @property
    def bytes_per_row(self) -> int:
        """Return how much one row takes on disk."""
        return sum(row_bytes(kind, shape) for kind, shape in self.arrays().values())

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


def row_bytes(kind: str, shape: tuple[int, ...]) -> int:
    """Return how many bytes one row of a file takes."""
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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(f'{path}/meta.json cannot be used ({error}); {remedy}') from None
    short = []
    for name, (kind, shape) in meta.arrays().items():
        file = path / name
        size = file.stat().st_size if file.exists() else 0
        need = meta.rows * row_bytes(kind, shape)
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
