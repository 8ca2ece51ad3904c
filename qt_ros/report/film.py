"""Film strips: a few moments of an episode, one row for each camera."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from qt_ros.report.figures import INK, OUTCOME_COLOURS, QUIET, STYLE, png

MOMENTS = 10
Frames = Mapping[str, NDArray[np.uint8]]  # camera -> (T, H, W, 3) RGB


def film_strip(frames: Frames, rate_hz: float, outcome: str) -> bytes | None:
    """Draw up to ten evenly spaced moments; the last is framed in the outcome's colour."""
    import matplotlib
    from matplotlib.figure import Figure

    frames = {name: clip for name, clip in frames.items() if len(clip)}
    if not frames:
        return None
    length = min(len(clip) for clip in frames.values())
    moments = np.unique(np.linspace(0, length - 1, min(MOMENTS, length)).round().astype(int))
    shape = next(iter(frames.values())).shape
    side = 10.2 / MOMENTS
    with matplotlib.rc_context({**STYLE, 'figure.constrained_layout.use': False}):
        figure = Figure(figsize=(10.2, 0.22 + side * shape[1] / shape[2] * len(frames)))
        axes = figure.subplots(len(frames), MOMENTS, squeeze=False)
        figure.subplots_adjust(
            left=0.025,
            right=0.998,
            bottom=0.01,
            wspace=0.04,
            hspace=0.04,
            top=1 - 0.24 / figure.get_figheight(),
        )
    colour = OUTCOME_COLOURS.get(outcome, QUIET)
    for row, (camera, clip) in enumerate(frames.items()):
        for column in range(MOMENTS):
            place = axes[row][column]
            place.set_xticks([])
            place.set_yticks([])
            place.grid(False)
            if column >= len(moments):
                place.set_visible(False)
                continue
            moment = int(moments[column])
            place.imshow(clip[moment], interpolation='bilinear')
            last = column == len(moments) - 1
            for spine in place.spines.values():
                spine.set(visible=last, color=colour, linewidth=3)
            if row == 0:
                place.set_title(
                    f'{moment / rate_hz:.1f} s', fontsize=8.5, loc='center', color=INK, pad=3
                )
            if column == 0:
                place.set_ylabel(camera, fontsize=8.5)
    return png(figure, dpi=100)
