"""What an image message holds once it is decoded, before crop, resize and colours are settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

RGB, BGR, GREY, DEPTH = 'rgb', 'bgr', 'grey', 'depth'


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels at their recorded size; colours are put in order after the resize, which is cheaper.

    rgb, bgr: (H, W, 3) uint8. grey: (H, W) uint8. depth: (H, W) float32 [m], NaN where unknown.
    """

    pixels: NDArray[Any]
    kind: str  # rgb | bgr | grey | depth
    encoding: str  # as the message calls it, for error messages
