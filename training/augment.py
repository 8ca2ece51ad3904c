"""Random colours: what changes a picture's light without changing what is to be done.

Brightness, contrast, saturation and hue together are one affine map of a pixel's (R, G, B): they
are drawn as a matrix per segment and camera, and put on all of its frames by one batched product
on the device that trains. Both networks see the same recoloured frames.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

HUE = 0.1  # of a turn, at a strength of 1: a red block must not turn into an orange one
_GREY = 127.5
_LUMA = np.array([0.299, 0.587, 0.114])  # how bright red, green and blue look (ITU-R BT.601)


def random_colors(rng: np.random.Generator, shape: tuple[int, ...], strength: float) -> np.ndarray:
    """Return affine maps of colours (*shape, 3, 4) float32, uniformly drawn; strength in [0, 1).

    Brightness, contrast and saturation lie in 1 +- strength, the hue turns by +- HUE * strength.
    A strength of 0 gives the identity.
    """
    draws = rng.uniform(-strength, strength, size=(4, *shape, 1, 1))
    brightness, contrast, saturation = 1 + draws[:3]
    eye, ones = np.eye(3), np.ones((3, 3))
    angle = 2 * np.pi * HUE * draws[3]
    # Rodrigues' rotation about the grey axis (1, 1, 1): grey stays as it is.
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    hue = np.cos(angle) * eye + (1 - np.cos(angle)) * ones / 3 + np.sin(angle) * cross
    saturate = saturation * eye + (1 - saturation) * ones * _LUMA
    matrix = contrast * brightness * (saturate @ hue)
    offset = np.broadcast_to((1 - contrast) * _GREY, (*shape, 3, 1))
    return np.concatenate([matrix, offset], axis=-1).astype(np.float32)


def recolor(images: Tensor, colors: Tensor) -> Tensor:
    """Return the images (B, L, H, W, 3) uint8 with the map (B, 3, 4) of their segment applied."""
    pixels = images.flatten(1, -2).to(torch.float32)  # (B, LHW, 3)
    changed = torch.baddbmm(colors[:, None, :, 3], pixels, colors[:, :, :3].transpose(1, 2))
    return changed.round_().clamp_(0, 255).to(torch.uint8).view_as(images)
