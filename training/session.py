"""What is kept of one episode while it is driven: tokens of its latest frames, and their past."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from training.errors import TrainingError
from training.model import Past


class Session:
    """One episode under way: its instruction and what is kept of its latest frames."""

    def __init__(self, text: Tensor, window: int) -> None:
        self.text = text  # (1, text_size)
        self.frames: deque[Tensor] = deque(maxlen=window)  # (1, frame_length, width) each
        self.bins: Tensor | None = None  # (1, A) of the last decision
        self.past: Past = []  # keys and values of what comes before one of the frames
        self._seen = 0  # frames so far
        self._past_of = -1  # which one: the number of frames before it

    def add(self, frame: Tensor) -> None:
        """Take in the newest frame (1, frame_length, width)."""
        self.frames.append(frame)
        self._seen += 1

    def has_past(self, upcoming: bool) -> bool:
        """Whether `past` is that of the newest frame, or of the one that is still to come."""
        # Without history only the instruction comes before a frame, always the same.
        at_hand = self.frames.maxlen == 1 or self._past_of == self._seen - (not upcoming)
        return bool(self.past) and at_hand

    def keep_past(self, past: Past, upcoming: bool) -> None:
        """Store the past of the newest frame, or of the one that is still to come."""
        self.past, self._past_of = past, self._seen - (not upcoming)

    def window(self, newest: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return frames (1, window, frame_length, width) and which are there (1, window) bool.

        newest: another frame, looked at as if it came next. Raises TrainingError without any.
        """
        length = self.frames.maxlen or 1
        frames = [*self.frames, *([] if newest is None else [newest])][-length:]
        if not frames:
            raise TrainingError('there is no observation yet; act on one first')
        missing = length - len(frames)
        # Frames before the episode's start are hidden from attention: any tokens will do.
        stacked = torch.stack([frames[0]] * missing + frames, dim=1)
        present = torch.arange(stacked.shape[1], device=stacked.device).unsqueeze(0) >= missing
        return stacked, present
