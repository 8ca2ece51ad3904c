"""Batches of segments: T consecutive transitions whose frames are encoded once for all of them.

One segment that starts at row r of an episode, with window w and T transitions:

    frames       r-w+1 ... r-1  r  r+1 ... r+T-1  r+T        w + T of them, gathered once
    online net   [---------------------------------]         windows that end at r ... r+T-1
    target net    [--------------------------------------]   windows that end at r(+1) ... r+T

With T = 16 and w = 6 that is 22 + 21 encoded frames for 16 transitions, instead of 12 per
transition. Segments may hang over both ends of an episode, so that every transition is drawn
equally often; what hangs over is masked.

The batch of step k depends on (seed, k) only: resuming needs no state, and episodes are shuffled
without replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.augment import random_colors
from training.cache import Cache
from training.config import DataConfig
from training.errors import TrainingError
from training.finite import must_be_finite
from training.pools import Buffers, Pool
from training.q_math import monte_carlo_returns
from training.signature import Signature, common_signature
from training.text import encode_text


@dataclass(frozen=True)
class Batch:
    """B segments of T transitions; L = window + T frames."""

    images: Mapping[str, Tensor]  # camera -> (B, L, H, W, 3) uint8, or features instead
    state: Tensor  # (B, L, S) float32
    present: Tensor  # (B, L) bool, the frame lies inside the episode
    text: Tensor  # (B, text_size) float32
    bins: Tensor  # (B, T + 1, A) int64, the dataset's actions at rows r ... r+T
    reward: Tensor  # (B, T) float32
    returns: Tensor  # (B, T) float32, discounted return-to-go
    terminated: Tensor  # (B, T) bool, the task itself ended after this row
    has_next: Tensor  # (B, T) bool, the episode goes on after this row
    valid: Tensor  # (B, T) bool, the transition lies inside the episode
    success: Tensor  # (B,) bool, the episode succeeded at its instruction
    colors: Tensor  # (B, cameras, 3, 4) float32, what is still to be done to the images' colours

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`; from pinned memory the copy goes on in the background."""
        return self._each(lambda value: value.to(device, non_blocking=device.type == 'cuda'))

    def pin(self) -> Batch:
        """Return the batch in memory that a GPU reads by itself."""
        return self._each(Tensor.pin_memory)

    def parts(self, number: int) -> Iterator[Batch]:
        """Yield the batch in `number` parts of whole segments, fewer if it has fewer segments."""
        for at in torch.arange(len(self.success)).chunk(number):
            cut = slice(int(at[0]), int(at[-1]) + 1)
            yield self._each(partial(_rows, rows=cut))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        rest = {name: change(value) for name, value in vars(self).items() if name != 'images'}
        return Batch(images={k: change(v) for k, v in self.images.items()}, **rest)


def _rows(value: Tensor, rows: slice) -> Tensor:
    return value[rows]


class Replay:
    """All trainable rows of one or more caches, ready to be drawn from.

    embeddings: (text_size,) each, of instructions that were encoded before; the rest is encoded.
    Raises TrainingError for caches of different contracts and for data without any episode that
    takes part.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        config: DataConfig,
        *,
        window: int,
        gamma: float,
        text_encoder: str,
        text_size: int,
        seed: int = 0,
        embeddings: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        if not paths:
            raise TrainingError('no training data was given; name at least one dataset')
        self.caches = [Cache.open(path) for path in paths]
        self.signature: Signature = common_signature([cache.meta for cache in self.caches])
        self._frames: list[dict[str, np.ndarray]] = []
        self.show([cache.images for cache in self.caches])
        self._buffers = Buffers()
        self.config, self.window, self.seed = config, window, seed
        self.instructions = tuple(
            dict.fromkeys(text for cache in self.caches for text in cache.meta.instructions)
        )
        known = embeddings or {}
        self.embeddings = np.stack(
            [
                known[text] if text in known else encode_text(text, text_encoder, text_size)
                for text in self.instructions
            ]
        )
        self._index_episodes()
        self._load_columns(gamma)
        self._pools = self._make_pools()

    def show(self, frames: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Let batches hold these rows of each cache and camera, such as `frame_features`.

        Only pictures (rows, H, W, 3) uint8 can be shifted.
        """
        # As plain arrays: slicing a np.memmap costs microseconds each time.
        self._frames = [
            {name: np.asarray(rows) for name, rows in cameras.items()} for cameras in frames
        ]

    def __len__(self) -> int:
        """Number of transitions that can be drawn."""
        return int(self._length.sum())

    @property
    def segments(self) -> int:
        """Number of segments per batch."""
        return self.config.batch // self.config.segment

    def state_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation (S,) float32 of the state, over rows drawn from."""
        rows = np.concatenate(
            [np.arange(a, a + n) for a, n in zip(self._start, self._length, strict=True)]
        )
        state = self._state[rows].astype(np.float64)
        # A field that never moves would be divided by 0 and turn sensor noise into signal.
        return state.mean(0).astype(np.float32), np.maximum(state.std(0), 1e-3).astype(np.float32)

    def mean_success_return(self) -> float:
        """Return the mean return-to-go over the rows of successful episodes, 0 without any."""
        parts = [
            self._returns[a : a + n]
            for a, n, good in zip(self._start, self._length, self._success, strict=True)
            if good
        ]
        return float(np.concatenate(parts).mean()) if parts else 0.0

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return the batch of training step `step`, always the same one.

        With several processes, the share of the one with this rank: every `world`-th segment.
        """
        number, span = self.segments, self.config.segment
        episode, first = [], []
        for pool, share in self._pools:
            chosen = pool.take(step * share, share)
            at = np.searchsorted(pool.ends, chosen, side='right')
            episode.append(pool.episodes[at])
            begin = pool.ends[at] - (self._length[episode[-1]] + span - 1)
            first.append(chosen - begin - (span - 1))
        rng = np.random.default_rng([self.seed, 1, step])
        offsets = rng.integers(
            0, 2 * self.config.shift_px + 1, size=(len(self.signature.cameras), number, 2)
        )
        episodes = np.concatenate(episode)
        instructions = self._other_instructions(episodes, step)
        colors = random_colors(
            np.random.default_rng([self.seed, 3, step]),
            (number, len(self.signature.cameras)),
            self.config.color_jitter,
        )
        mine = slice(rank, None, world)
        return self.gather(
            episodes[mine],
            np.concatenate(first)[mine],
            offsets[:, mine],
            instructions[mine],
            colors[mine],
        )

    def _other_instructions(self, episode: np.ndarray, step: int) -> np.ndarray:
        """Return (B,) the instruction of each segment, some exchanged for another task's."""
        own = self._instruction[episode]
        number = len(self.instructions)
        if not self.config.relabel_fraction or number < 2:
            return own
        rng = np.random.default_rng([self.seed, 2, step])
        chosen = rng.random(len(own)) < self.config.relabel_fraction
        other = (own + rng.integers(1, number, len(own))) % number
        return np.where(chosen, other, own)

    def gather(
        self,
        episode: np.ndarray,
        first: np.ndarray,
        offsets: np.ndarray,
        instruction: np.ndarray | None = None,
        colors: np.ndarray | None = None,
    ) -> Batch:
        """Build a batch of chosen segments.

        episode: (B,) number of the episode; first: (B,) row within it where the segment starts,
        may be negative; offsets: (cameras, B, 2) crop corner in [0, 2 * shift_px]; instruction:
        (B,) number of the instruction, None for the episode's own. What was done for another
        instruction earns nothing under this one. colors: (B, cameras, 3, 4), passed on; None
        for colours as they are.
        """
        own = self._instruction[episode]
        instruction = own if instruction is None else instruction
        meant = (instruction == own).astype(np.float32)[:, None]
        span, window = self.config.segment, self.window
        if colors is None:
            as_is = np.eye(3, 4, dtype=np.float32)
            colors = np.tile(as_is, (len(episode), len(self.signature.cameras), 1, 1))
        start, length = self._start[episode][:, None], self._length[episode][:, None]
        frame = first[:, None] + np.arange(-(window - 1), span + 1)  # (B, L) within the episode
        present = (frame >= 0) & (frame < length)
        rows = start + np.clip(frame, 0, length - 1)
        steps, here = rows[:, window - 1 :], frame[:, window - 1 : -1]
        valid = present[:, window - 1 : -1]
        images = {
            name: torch.from_numpy(
                self._images(name, episode, frame[:, 0], frame.shape[1], offsets[i])
            )
            for i, name in enumerate(self.signature.cameras)
        }
        return Batch(
            images=images,
            state=torch.from_numpy(self._state[rows]),
            present=torch.from_numpy(present),
            text=torch.from_numpy(self.embeddings[instruction]),
            bins=torch.from_numpy(self._bins[steps]),
            reward=torch.from_numpy(self._reward[steps[:, :-1]] * meant),
            returns=torch.from_numpy(self._returns[steps[:, :-1]] * meant),
            terminated=torch.from_numpy(self._terminated[steps[:, :-1]]),
            has_next=torch.from_numpy(valid & (here < length - 1)),
            valid=torch.from_numpy(valid),
            success=torch.from_numpy(self._success[episode] & (instruction == own)),
            colors=torch.from_numpy(colors),
        )

    def _index_episodes(self) -> None:
        """Collect the episodes that take part; rows are counted over all caches together."""
        self._ids: list[str] = []
        start, length, success, instruction = [], [], [], []
        offset = 0
        for cache in self.caches:
            for episode in cache.meta.episodes:
                if episode.outcome in self.config.outcomes:
                    self._ids.append(episode.id)
                    start.append(offset + episode.start)
                    length.append(episode.length)
                    success.append(episode.outcome == 'success')
                    text = cache.meta.instructions[episode.instruction]
                    instruction.append(self.instructions.index(text))
            offset += len(cache)
        if not start:
            raise TrainingError(
                f'no episode takes part: none has an outcome in {list(self.config.outcomes)}; '
                'label the episodes or change data.outcomes'
            )
        self._start = np.array(start, dtype=np.int64)
        self._length = np.array(length, dtype=np.int64)
        self._success = np.array(success)
        self._instruction = np.array(instruction)

    def _load_columns(self, gamma: float) -> None:
        """Read everything but images into memory."""

        def column(name: str) -> np.ndarray:
            return np.concatenate([np.asarray(getattr(cache, name)) for cache in self.caches])

        self._state = column('state')
        self._reward = column('reward')
        self._terminated = column('terminated').astype(bool)
        self._bins = np.zeros(column('action').shape, dtype=np.int64)
        self._returns = np.zeros(len(self._reward), dtype=np.float32)
        action = column('action')
        must_be_finite(
            np.column_stack([self._state, self._reward]),
            [*self.signature.state_names, 'reward'],
            zip(self._ids, self._start, self._length, strict=True),
        )
        for a, n in zip(self._start, self._length, strict=True):
            rows = slice(a, a + n)
            self._bins[rows] = self.signature.action.to_bins(action[rows])
            self._returns[rows] = monte_carlo_returns(self._reward[rows], np.array([0]), gamma)
        if self._reward.min() < 0 or self._returns.max() > 1 + 1e-6:
            raise TrainingError('rewards must be >= 0 and returns at most 1: Q is a sigmoid')
        self._offsets = np.cumsum([0, *(len(cache) for cache in self.caches)])

    def _make_pools(self) -> list[tuple[Pool, int]]:
        """Return what segments are drawn from and how many of each batch come from there."""
        span, fraction, number = self.config.segment, self.config.success_fraction, self.segments
        everything = np.arange(len(self._start))
        if fraction is None or self._success.all() or not self._success.any():
            groups = [(everything, number)]
        else:
            share = round(fraction * number)
            groups = [
                (everything[self._success], share),
                (everything[~self._success], number - share),
            ]
        return [
            (Pool(episodes, self._length[episodes] + span - 1, [self.seed, 0, i]), share)
            for i, (episodes, share) in enumerate(groups)
            if share
        ]

    def _images(
        self, camera: str, episode: np.ndarray, begin: np.ndarray, size: int, offsets: np.ndarray
    ) -> np.ndarray:
        """Gather and shift frames (B, L, H, W, 3), or features, of one camera.

        begin: (B,) row of frame 0 within its episode, may lie outside; size: L; offsets: (B, 2).
        """
        shift = self.config.shift_px
        like = self._frames[0][camera]
        out = self._buffers.array((len(episode), size, *like.shape[1:]), like.dtype)
        length, start = self._length[episode], self._start[episode]
        low = np.clip(begin, 0, length - 1)
        count = np.clip(begin + size, low + 1, length) - low
        lead = np.clip(-begin, 0, size - count)
        place = np.searchsorted(self._offsets, start, side='right') - 1
        first = start + low - self._offsets[place]
        segments = np.stack([place, first, count, lead], axis=1).tolist()
        moves = (offsets - shift).tolist()
        for frames, (at, row, number, skip), (down, right) in zip(
            out, segments, moves, strict=True
        ):
            stop = skip + number
            source = self._frames[at][camera]
            if down or right:
                copy_shifted(source, row, down, right, frames[skip:stop])
            else:
                frames[skip:stop] = source[row : row + number]
            frames[:skip] = frames[skip]
            frames[stop:] = frames[stop - 1]
        return out


def copy_shifted(images: np.ndarray, row: int, down: int, right: int, out: np.ndarray) -> None:
    """Copy the frames of `images` (N, H, W, 3) from `row` on into `out` (L, H, W, 3), shifted.

    A pixel of `out` is read `down` and `right` px further on; what would come from outside of its
    frame repeats the border, as if padded and cropped. The frames lie one behind the other, so a
    shift is one plain copy from another address; only what it drags in across the borders is
    written again.
    """
    height, width = images.shape[1:3]
    source, target = images.reshape(-1), out.reshape(-1)
    begin = (row * height * width + down * width + right) * 3
    low, high = max(0, -begin), min(len(target), len(source) - begin)
    target[low:high] = source[begin + low : begin + high]
    top, bottom = max(0, -down), height - max(0, down)
    left, end = max(0, -right), width - max(0, right)
    pixels = out.view('V3')[..., 0]  # (L, H, W), three bytes at a time
    if left:
        pixels[:, top:bottom, :left] = pixels[:, top:bottom, left : left + 1]
    if end < width:
        pixels[:, top:bottom, end:] = pixels[:, top:bottom, end - 1 : end]
    if top:
        pixels[:, :top] = pixels[:, top : top + 1]
    if bottom < height:
        pixels[:, bottom:] = pixels[:, bottom - 1 : bottom]
