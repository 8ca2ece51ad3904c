"""Fill a training cache: append episodes, give them other labels, make it visible in one step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from training.cache import CacheEpisode, CacheMeta, read_meta, row_bytes
from training.errors import TrainingError


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
        self._layout = self.meta.arrays()
        self._files: dict[str, int] = {}
        try:
            for name in self._layout:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                self._files[name] = os.open(self.path / name, flags, 0o666)
            self._cut()
        except BaseException:
            self.close()
            raise

    def append(
        self,
        *,
        id: str,
        instruction: str,
        outcome: str,
        source: str,
        policy_id: str,
        images: Mapping[str, Iterable[NDArray[np.uint8]]] | None,
        state: NDArray[np.float32],
        action: NDArray[np.float32],
        reward: NDArray[np.float32],
        terminated: NDArray,
        truncated: NDArray,
        digest: str = '',
    ) -> CacheEpisode:
        """Write the T rows of one episode: images[camera] yields T frames (H, W, 3) uint8.

        images None says that `put_frames` has put all of them at row `meta.rows` already.
        """
        length = len(state)
        vectors = {
            'state.f32': state,
            'action.f32': action,
            'reward.f32': reward,
            'terminated.u8': terminated,
            'truncated.u8': truncated,
        }
        wrong = [
            f'{name}: {np.shape(vector)}, expected {(length, *self._layout[name][1])}'
            for name, vector in vectors.items()
            if np.shape(vector) != (length, *self._layout[name][1])
        ]
        if images is not None and set(images) != set(self.meta.cameras):
            wrong.append(f'cameras {sorted(images)}, expected {sorted(self.meta.cameras)}')
        if wrong or length < 1:
            raise TrainingError([f'episode {id}: {problem}' for problem in wrong or ['no rows']])
        try:
            for camera, frames in (images or {}).items():
                self.put_frames(camera, self.meta.rows, frames, length, id)
            for name, vector in vectors.items():
                self._put(name, self.meta.rows, vector)
        except BaseException:
            self._cut()
            raise
        number, instructions = _number_of(instruction, self.meta.instructions)
        episode = CacheEpisode(
            start=self.meta.rows,
            length=length,
            instruction=number,
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

    def put_frames(
        self, camera: str, row: int, frames: Iterable[NDArray[np.uint8]], length: int, id: str
    ) -> None:
        """Write `length` frames (H, W, 3) uint8 from `row` on; other threads may do so elsewhere.

        They belong to no episode before `append` says so. Raises TrainingError if there are more
        or fewer of them, or one has another size.
        """
        shape = (*self.meta.cameras[camera], 3)
        written = 0
        for frame in frames:
            if frame.shape != shape or frame.dtype != np.uint8:
                raise TrainingError(
                    f'episode {id}: camera {camera} frame {written} is {frame.dtype}'
                    f' {frame.shape}; expected uint8 {shape}'
                )
            self._put(f'images.{camera}.u8', row + written, frame)
            written += 1
        if written != length:
            raise TrainingError(
                f'episode {id}: camera {camera} gave {written} frames for {length} rows'
            )

    def relabel(
        self,
        index: int,
        *,
        instruction: str,
        outcome: str,
        reward: NDArray[np.float32],
        terminated: NDArray,
        truncated: NDArray,
    ) -> None:
        """Give episode `index` another label; images, state and action stay as they are.

        The columns go to disk before the meta says so: a crash between leaves the old label in
        the meta, so the next caller sees the difference and writes both again.
        """
        episode = self.meta.episodes[index]
        for name, vector in (
            ('reward.f32', reward),
            ('terminated.u8', terminated),
            ('truncated.u8', truncated),
        ):
            self._put(name, episode.start, vector)
        number, instructions = _number_of(instruction, self.meta.instructions)
        episodes = list(self.meta.episodes)
        episodes[index] = replace(episode, outcome=outcome, instruction=number)
        self.meta = replace(self.meta, episodes=tuple(episodes), instructions=instructions)

    def commit(self) -> None:
        """Make everything appended so far visible to readers."""
        if self.meta == self._committed:
            return
        self.meta = _without_unused_instructions(self.meta)
        for file in self._files.values():
            os.fsync(file)
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
            os.close(file)
        self._files.clear()

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

    def _put(self, name: str, row: int, values: NDArray) -> None:
        """Write rows of one file, from `row` on."""
        kind, shape = self._layout[name]
        data = np.ascontiguousarray(values, dtype=kind).reshape(-1).view(np.uint8).data
        at = row * row_bytes(kind, shape)
        while len(data):
            written = os.pwrite(self._files[name], data, at)
            data, at = data[written:], at + written

    def _cut(self) -> None:
        """Drop what lies after the last whole episode."""
        for name, (kind, shape) in self._layout.items():
            size = self.meta.rows * row_bytes(kind, shape)
            if os.fstat(self._files[name]).st_size != size:
                os.ftruncate(self._files[name], size)


def _number_of(instruction: str, known: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Return the number of an instruction and all of them, it being among them."""
    if instruction not in known:
        known = (*known, instruction)
    return known.index(instruction), known


def _without_unused_instructions(meta: CacheMeta) -> CacheMeta:
    """Forget texts that no episode has any more; the others are numbered as they come."""
    used = list(dict.fromkeys(episode.instruction for episode in meta.episodes))
    if used == list(range(len(meta.instructions))):
        return meta
    number = {old: new for new, old in enumerate(used)}
    return replace(
        meta,
        instructions=tuple(meta.instructions[old] for old in used),
        episodes=tuple(replace(e, instruction=number[e.instruction]) for e in meta.episodes),
    )
