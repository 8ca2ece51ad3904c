"""Draw the scene without a display, as cheaply as OpenGL allows.

Shadows, reflections and multisampling, which cost more than the pixels, are off.
"""

from __future__ import annotations

import atexit
import importlib
import threading
import weakref

import mujoco
import numpy as np

from qt_ros.errors import SimError
from qt_ros.sim.opengl import INSTALL, backend


class Renderer:
    """Draws frames of a model; usable only in the thread that made it, as OpenGL demands."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._thread = threading.get_ident()
        name = backend()
        # A broken driver shows as almost any exception, from ImportError to PyOpenGL's own.
        try:
            module = importlib.import_module(f'mujoco.{name}')
            self._gl = module.GLContext(*self._largest(model))
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        except Exception as error:
            raise SimError(f"cannot render with '{name}' ({error}): {INSTALL}") from error
        self._model = model
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=100)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        # Contexts have to go before the backend's own exit handler shuts the display down.
        self._closer = weakref.WeakMethod(self.close)
        atexit.register(_close, self._closer)

    @staticmethod
    def _largest(model: mujoco.MjModel) -> tuple[int, int]:
        return model.vis.global_.offwidth, model.vis.global_.offheight

    def render(self, data: mujoco.MjData, camera: str, size: tuple[int, int]) -> np.ndarray:
        """Return a frame (height, width, 3) uint8 RGB of a named camera; size: height, width."""
        if threading.get_ident() != self._thread:
            raise SimError('rendered in another thread than the one that rendered first')
        height, width = size
        limit_width, limit_height = self._largest(self._model)
        if not (0 < height <= limit_height and 0 < width <= limit_width):
            raise SimError(
                f'cannot render {height}x{width}; allowed: up to {limit_height}x{limit_width}'
            )
        self._gl.make_current()
        self._camera.fixedcamid = self._model.camera(camera).id
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera,
            mujoco.mjtCatBit.mjCAT_ALL, self._scene,
        )  # fmt: skip
        area = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(area, self._scene, self._context)
        frame = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(frame, None, area, self._context)
        return frame[::-1].copy()  # OpenGL counts rows from below

    def close(self) -> None:
        """Free the OpenGL context; closing twice is harmless."""
        if self._gl is not None:
            self._context.free()
            self._gl.free()
            self._gl = None
            atexit.unregister(_close)


def _close(method: weakref.WeakMethod) -> None:
    close = method()
    if close is not None:
        close()
