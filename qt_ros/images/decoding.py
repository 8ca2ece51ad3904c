"""Image messages to what a contract's camera asks for: RGB pixels, or depth in metres.

    decode -> crop (pixels of the recorded image) -> resize by area -> RGB

`raw` and `compressed` decode, `depth` has the rules for metres and for the grey
values that a dataset stores for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros.contract import Camera
from qt_ros.images.area_resize import resize_by_area
from qt_ros.images.compressed import read_compressed
from qt_ros.images.depth import grey_from_metres, resize_depth
from qt_ros.images.picture import BGR, DEPTH, GREY, RGB, Picture
from qt_ros.images.raw import in_rgb, read_raw
from qt_ros.message_types import CAMERA_TYPES, COMPRESSED_IMAGE, IMAGE, DecodeError

Rgb = NDArray[np.uint8]


def decode_image(msg: Any, camera: Camera) -> Rgb:
    """Decode one image, crop it, and resize it by area (aspect is not kept) to the camera's size.

    Returns a fresh (H, W, 3) uint8 array, RGB; depth as grey, by the rule of `depth`. DecodeError:
    damaged data, unknown encoding, an image that does not contain the crop, or no depth where the
    camera has a `depth_m`.
    """
    return fit_picture(read_picture(msg, camera), camera)


def read_picture(msg: Any, camera: Camera) -> Picture:
    """Decode one image as it was recorded, for `fit_picture`; raises as `decode_image` does."""
    return _read(msg, camera, as_depth=camera.depth_m is not None)


def fit_picture(picture: Picture, camera: Camera) -> Rgb:
    """Crop a decoded image, resize it by area to the camera's size, and put its colours in order.

    Returns a fresh (H, W, 3) uint8 array. DecodeError: the image does not contain the crop.
    """
    if picture.kind == DEPTH:
        metres = resize_depth(_crop(picture, camera), camera.size)
        return in_rgb(grey_from_metres(metres, camera.depth_m), GREY)
    pixels, kind = _crop(picture, camera), picture.kind
    if pixels.shape[:2] != camera.size:
        pixels = resize_by_area(pixels, camera.size, swap=kind == BGR)
        kind = RGB if kind == BGR else kind
        if kind == RGB:
            return pixels
    return in_rgb(pixels, kind)


def decode_depth(msg: Any, camera: Camera) -> NDArray[np.float32]:
    """Decode one depth image, crop it and resize it by area over the known pixels.

    Returns (H, W) float32 [m], NaN where unknown. 16-bit pixels are millimetres, floats metres.
    DecodeError: as `decode_image`, and an image that holds no depth.
    """
    picture = _read(msg, camera, as_depth=True)
    return resize_depth(_crop(picture, camera), camera.size)


def _read(msg: Any, camera: Camera, as_depth: bool) -> Picture:
    if camera.type == IMAGE:
        picture = read_raw(msg, as_depth)
    elif camera.type == COMPRESSED_IMAGE:
        picture = read_compressed(msg, as_depth)
    else:
        raise DecodeError(f'{camera.type} is no image; supported: {", ".join(CAMERA_TYPES)}')
    if as_depth and picture.kind != DEPTH:
        raise DecodeError(
            f'camera {camera.name}: {picture.encoding!r} holds no depth; supported: 16UC1 and '
            'mono16 (millimetres), 32FC1 (metres), 16-bit grey PNG, compressedDepth; for other '
            'images leave depth_m out of the contract'
        )
    return picture


def _crop(picture: Picture, camera: Camera) -> NDArray[Any]:
    """Cut out the contract's part of the recorded image."""
    if camera.crop is None:
        return picture.pixels
    top, left, height, width = camera.crop
    has_height, has_width = picture.pixels.shape[:2]
    if top + height > has_height or left + width > has_width:
        raise DecodeError(
            f'camera {camera.name}: the image is {has_height}x{has_width} (height x width), its '
            f'crop needs {top + height}x{left + width}: {height}x{width} from row {top} and '
            f'column {left}'
        )
    return picture.pixels[top : top + height, left : left + width]
