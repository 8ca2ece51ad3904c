"""Image messages of both worlds, made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from spine_messages import set_array

from qt_ros.contract import Camera
from qt_ros.decoding import decode_image
from qt_ros.message_types import COMPRESSED_IMAGE, IMAGE

NewMessage = Callable[[str], Any]
RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
SMOOTH = cv2.resize(RGB, (64, 48), interpolation=cv2.INTER_CUBIC)


def camera(type: str, size: tuple[int, int], **keys: Any) -> Camera:
    """Return a contract's camera."""
    return Camera('front', '/front', type, size, **keys)


def decode(msg: Any, size: tuple[int, int], **keys: Any) -> NDArray[np.uint8]:
    """Decode either kind of image message at `size` (height, width)."""
    kind = COMPRESSED_IMAGE if hasattr(msg, 'format') else IMAGE
    return decode_image(msg, camera(kind, size, **keys))


def image(
    new: NewMessage, pixels: np.ndarray, encoding: str, pad: int = 0, big: bool = False
) -> Any:
    """Return an Image whose rows have `pad` bytes of rubbish behind them."""
    msg = new(IMAGE)
    msg.height, msg.width = pixels.shape[:2]
    msg.encoding = encoding
    msg.is_bigendian = int(big)
    stored = pixels.astype(pixels.dtype.newbyteorder('>' if big else '<'))
    rows = stored.reshape(len(pixels), -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, pad)), constant_values=0xAB)
    msg.step = padded.shape[1]
    set_array(msg, 'data', padded.reshape(-1))
    return msg


def compressed(new: NewMessage, data: bytes, format: str) -> Any:
    """Return a CompressedImage."""
    msg = new(COMPRESSED_IMAGE)
    msg.format = format
    set_array(msg, 'data', np.frombuffer(data, np.uint8))
    return msg


def encode(extension: str, pixels: np.ndarray, *options: int) -> bytes:
    """Write pixels, BGR or grey, as a file of this kind."""
    return bytes(cv2.imencode(extension, pixels, [*options])[1])
