"""Tokens of images that were encoded before they were observed."""

from __future__ import annotations

from collections import deque

import numpy as np
from torch import Tensor

KEPT = 4  # of each camera


class SeenImages:
    """Knows the newest images of each camera again: the very arrays, not equal ones.

    An image that is seen as it arrives may be observed at the next tick, or never.
    """

    def __init__(self) -> None:
        self._kept: dict[str, deque[tuple[np.ndarray, Tensor]]] = {}

    def clear(self) -> None:
        """Forget them all: tokens depend on the instruction."""
        self._kept.clear()

    def add(self, camera: str, image: np.ndarray, tokens: Tensor) -> None:
        """Keep the tokens (1, n, width) of an image (H, W, 3)."""
        self._kept.setdefault(camera, deque(maxlen=KEPT)).append((image, tokens))

    def find(self, camera: str, image: np.ndarray) -> Tensor | None:
        """Return the tokens of an image, None if it was not seen."""
        return next((t for known, t in self._kept.get(camera, ()) if known is image), None)
