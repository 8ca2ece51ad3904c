"""Which OpenGL draws the simulated cameras, decided before MuJoCo is imported.

EGL is used where its library is installed, else OSMesa; neither needs a display. The environment
variable MUJOCO_GL decides otherwise; MuJoCo reads it on import and fails with a riddle where it
names a library that is not there.
"""

from __future__ import annotations

import ctypes
import os

from qt_ros.errors import SimError

LIBRARIES = {  # any of them will do
    'egl': ('libEGL.so.1', 'libEGL.so'),
    'osmesa': ('libOSMesa.so.8', 'libOSMesa.so.6', 'libOSMesa.so'),
}
BACKENDS = (*LIBRARIES, 'glfw')  # glfw needs a display and brings its own library
INSTALL = (
    'install EGL with `sudo apt install libegl1 libgl1-mesa-dri`, or OSMesa with '
    '`sudo apt install libosmesa6` and set MUJOCO_GL=osmesa'
)


def backend() -> str:
    """Return the OpenGL backend to use: MUJOCO_GL's, or the first one installed.

    Raises SimError, naming the packages to install, where there is none.
    """
    chosen = os.environ.get('MUJOCO_GL', '').strip().lower()
    if not chosen:
        for name in LIBRARIES:
            if _installed(name):
                return name
        raise SimError(f'no OpenGL library to render the simulated cameras with: {INSTALL}')
    if chosen not in BACKENDS:
        raise SimError(
            f"MUJOCO_GL is '{chosen}'; allowed: {', '.join(BACKENDS)}, or not set to let "
            'the simulator choose'
        )
    if chosen in LIBRARIES and not _installed(chosen):
        raise SimError(
            f"MUJOCO_GL is '{chosen}', but {LIBRARIES[chosen][0]} is not installed: {INSTALL}"
        )
    return chosen


def prepare() -> None:
    """Check MUJOCO_GL where it is set, and set up Mesa for small frames."""
    if os.environ.get('MUJOCO_GL', '').strip():
        backend()
    # The thread pool of Mesa's software renderer costs more than it saves on small frames.
    os.environ.setdefault('LP_NUM_THREADS', '0')


def _installed(name: str) -> bool:
    for library in LIBRARIES[name]:
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return True
    return False
