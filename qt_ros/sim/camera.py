"""Camera frames as the robot publishes them."""

from __future__ import annotations

import cv2
import numpy as np

QUALITY = 95


def encode_jpeg(image: np.ndarray) -> bytes:
    """Compress an image (H, W, 3) uint8 RGB as JPEG: the bytes of a CompressedImage."""
    _, data = cv2.imencode(
        '.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    return data.tobytes()
