"""Depth images: metres, their resize, and the grey values that a dataset stores.

Unknown depth is NaN in metres and 0 in grey, always and everywhere. Where the contract gives a
camera `depth_m: [near, far]`, grey runs linearly from 1 at `near` to 255 at `far`; what lies
outside is clipped. One step is (far - near) / 254: at [0.2, 2.2] 7.9 mm, so metres read back are
right to 3.9 mm. Without a range grey is 255 / (1 + z): 255 at the lens, 128 at 1 m, 51 at 4 m; one
step is 4 mm at the lens, 16 mm at 1 m and 98 mm at 4 m, and beyond 509 m depth counts as unknown.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Metres = NDArray[np.float32]
DepthRange = tuple[float, float]

_STEPS = 254  # from grey 1 to grey 255
_HALF = 0.5 - 1e-6  # of a pixel's area; the sum of the weights is rounded


def metres_from_mm(millimetres: NDArray[np.uint16]) -> Metres:
    """Return 16-bit millimetres (H, W) as metres; 0 is unknown: NaN."""
    return known_metres(millimetres.astype(np.float32) / np.float32(1000))


def metres_from_inverse(inverse: NDArray[np.uint16], a: float, b: float) -> Metres:
    """Undo the quantisation of compressed_depth_image_transport: z = a / (inverse - b) [m]."""
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        metres = np.float32(a) / (inverse.astype(np.float32) - np.float32(b))
    return known_metres(np.where(inverse > 0, metres, np.float32(np.nan)))


def known_metres(metres: NDArray[Any]) -> Metres:
    """Return float32 metres with NaN in place of zero, negative and infinite depths."""
    known = np.isfinite(metres) & (metres > 0)
    return np.where(known, metres, np.nan).astype(np.float32)


def resize_depth(metres: Metres, size: tuple[int, int]) -> Metres:
    """Resize (H, W) metres by area to `size` = (height, width), by what is known only.

    Unknown pixels do not drag the mean; a pixel of which less than half is known is unknown.
    """
    height, width = size
    if metres.shape == (height, width):
        return np.ascontiguousarray(metres)
    known = ~np.isnan(metres)
    depth = _resize(np.where(known, metres, np.float32(0)), size)
    if known.all():
        return depth
    share = _resize(known.astype(np.float32), size)
    enough = share >= _HALF
    return np.where(enough, depth / np.where(enough, share, 1), np.nan).astype(np.float32)


def grey_from_metres(metres: Metres, depth_m: DepthRange | None) -> NDArray[np.uint8]:
    """Return the grey values (H, W) that a dataset stores; the module's docstring has the rule."""
    known = ~np.isnan(metres)
    z = np.where(known, metres, np.float32(1))
    if depth_m is None:
        grey = np.float32(255) / (1 + z)
    else:
        near, far = depth_m
        grey = 1 + _STEPS * np.clip((z.astype(np.float64) - near) / (far - near), 0, 1)
    return np.where(known, np.rint(grey), 0).astype(np.uint8)


def metres_from_grey(grey: NDArray[np.uint8], depth_m: DepthRange | None) -> Metres:
    """Return metres from the frames of a dataset: (..., H, W, 3) RGB to (..., H, W) float32.

    The inverse of `grey_from_metres` with the camera's `depth_m`, NaN where unknown. Frames that
    went through a video are off by its own loss besides, most of all at edges.
    """
    values = grey[..., 0].astype(np.float64)
    known = values > 0
    if depth_m is None:
        metres = 255 / np.where(known, values, 1) - 1
    else:
        near, far = depth_m
        metres = near + (values - 1) * (far - near) / _STEPS
    return np.where(known, metres, np.nan).astype(np.float32)


def _resize(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    height, width = size
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.float32)
