"""The plots of a report, each one function from arrays to the bytes of an SVG or PNG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK, QUIET, GRID = '#1d2430', '#5c6675', '#e3e7ed'
BLUE, ORANGE, GREEN, RED, VIOLET = '#2563ab', '#d97a1d', '#2f8f5b', '#c2413b', '#7a55b8'
CYCLE = (BLUE, ORANGE, GREEN, VIOLET, RED, '#2a9ba8', '#8a6d3b', '#5c6675')
OUTCOME_COLOURS = {
    'success': GREEN,
    'failure': RED,
    'timeout': ORANGE,
    'aborted': '#9aa3af',
    'unknown': '#cbd2da',
}
POINTS = 400  # a curve is thinned to about so many points, which keeps the page light
STYLE: Any = {
    'font.size': 9.5,
    'font.family': 'sans-serif',
    'svg.fonttype': 'none',
    'axes.edgecolor': GRID,
    'axes.labelcolor': QUIET,
    'axes.titlecolor': INK,
    'axes.titlesize': 10.5,
    'axes.titlelocation': 'left',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.color': GRID,
    'xtick.color': QUIET,
    'ytick.color': QUIET,
    'legend.frameon': False,
    'figure.constrained_layout.use': True,
}

Metrics = Mapping[str, NDArray[np.float64]]  # columns of metrics.csv
Bar = tuple[str, float, 'tuple[float, float] | None', str]  # name, rate, interval, colour


def panels(count: int, width: float = 10.2, height: float = 3.0) -> tuple[Figure, list[Any]]:
    """Return a figure with `count` panels side by side, in the report's style."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        axes = figure.subplots(1, count, squeeze=False)[0]
    return figure, list(axes)


def svg(figure: Figure) -> bytes:
    """Return the figure as SVG with its text kept as text."""
    buffer = BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format='svg', metadata={'Date': None}, transparent=True)
    text = buffer.getvalue().decode()
    fonts = 'system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif'
    return text.replace("'sans-serif'", fonts.replace('"', "'")).encode()


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Return the figure as PNG: for pictures, and where SVG would be heavy."""
    buffer = BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format='png', dpi=dpi)
    return buffer.getvalue()


def learning_curves(runs: Sequence[tuple[str, Metrics]]) -> bytes | None:
    """Draw losses and Q on successes and on failures over training steps, run after run."""
    runs = [(name, columns) for name, columns in runs if len(columns.get('step', ())) > 1]
    if not runs:
        return None
    figure, (left, right) = panels(2, height=3.3)
    losses = [name for name in ('loss', 'td', 'conservative') if name in runs[0][1]]
    offset = 0.0
    for index, (name, columns) in enumerate(runs):
        steps = columns['step'] - (columns['step'][0] if index else 0.0) + offset
        first = index == 0
        for colour, column in zip(CYCLE, losses, strict=False):
            _curve(left, steps, columns, column, colour, first)
        for colour, column in ((GREEN, 'q_success'), (RED, 'q_failure'), (VIOLET, 'gap')):
            _curve(right, steps, columns, column, colour, first)
        offset = float(steps[-1])
        if len(runs) > 1:
            for axes in (left, right):
                axes.axvline(offset, color=QUIET, lw=0.8, ls=':')
                axes.annotate(
                    name,
                    (offset, 1.0),
                    xycoords=('data', 'axes fraction'),
                    ha='right',
                    va='top',
                    fontsize=8,
                    color=QUIET,
                    rotation=90,
                    xytext=(-3, -2),
                    textcoords='offset points',
                )
    left.set_title('Loss', loc='left')
    left.set_yscale('log')
    right.set_title('Mean Q of the recorded actions', loc='left')
    for axes in (left, right):
        axes.set_xlabel('training step')
        axes.legend(
            loc='upper center',
            bbox_to_anchor=(0.5, -0.2),
            ncols=3,
            fontsize=8.5,
            frameon=False,
        )
    return svg(figure)


def _curve(
    axes: Any, steps: NDArray[np.float64], columns: Metrics, column: str, colour: str, named: bool
) -> None:
    values = columns.get(column)
    if values is None or not np.isfinite(values).any():
        return
    thin = max(1, len(steps) // POINTS)
    label = LABELS.get(column, column.replace('_', ' ')) if named else None
    axes.plot(steps[::thin], values[::thin], color=colour, lw=1.6, label=label)


LABELS = {
    'td': 'temporal difference',
    'q_success': 'steps of successes',
    'q_failure': 'steps of failures',
    'gap': 'gap: recorded minus other bins',
}


def success_rates(bars: Sequence[Bar]) -> bytes | None:
    """Draw success rates, from top to bottom, with their 95% intervals where they are given."""
    if not bars:
        return None
    figure, (axes,) = panels(1, height=0.5 + 0.42 * len(bars))
    for row, (_, rate, interval, colour) in enumerate(bars):
        low, high = interval or (rate, rate)
        axes.barh(row, 100 * rate, height=0.58, color=colour, alpha=0.85)
        axes.plot([100 * low, 100 * high], [row, row], color=INK, lw=1.4, solid_capstyle='butt')
        axes.annotate(
            f'{100 * rate:.0f}%',
            (100 * max(rate, high), row),
            xytext=(6, 0),
            textcoords='offset points',
            va='center',
            color=INK,
        )
    axes.set_yticks(range(len(bars)), [bar[0] for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(axis='y', visible=False)
    axes.set_xlabel('success [%], line: 95% interval')
    return svg(figure)


def outcome_bars(groups: Mapping[str, Mapping[str, int]]) -> bytes | None:
    """Draw how many episodes of each group ended how: {group: {outcome: count}}."""
    if not groups:
        return None
    figure, (axes,) = panels(1, height=0.9 + 0.4 * len(groups))
    left = np.zeros(len(groups))
    for outcome, colour in OUTCOME_COLOURS.items():
        counts = np.array([group.get(outcome, 0) for group in groups.values()], dtype=float)
        if counts.any():
            axes.barh(
                range(len(groups)), counts, left=left, height=0.6, color=colour, label=outcome
            )
            left += counts
    for row, total in enumerate(left):
        axes.annotate(
            f'{total:.0f}',
            (total, row),
            xytext=(5, 0),
            textcoords='offset points',
            va='center',
            color=QUIET,
        )
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.grid(axis='y', visible=False)
    axes.margins(x=0.06)
    axes.set_xlabel('episodes')
    figure.legend(loc='outside upper left', ncols=5, fontsize=8.5, frameon=False)
    return svg(figure)


def histograms(
    values: Mapping[str, tuple[NDArray[np.float64], str, float | None]],
) -> bytes | None:
    """Draw distributions side by side: {title: (values, unit, the value asked for or None)}."""
    values = {title: item for title, item in values.items() if item[0].size}
    if not values:
        return None
    figure, axes = panels(len(values), height=2.6)
    for place, (title, (data, unit, wanted)), colour in zip(
        axes, values.items(), CYCLE, strict=False
    ):
        spread = (float(data.min()), float(data.max()))
        room = max(0.04 * (spread[1] - spread[0]), 1e-3 * abs(spread[1]), 1e-9)
        place.hist(data, bins=40, range=(spread[0] - room, spread[1] + room), color=colour)
        place.set_yscale('log', nonpositive='clip')
        place.set_title(title, loc='left')
        place.set_xlabel(unit)
        if wanted is not None:
            place.axvline(wanted, color=INK, lw=1.0, ls='--')
    axes[0].set_ylabel('count (log)')
    return svg(figure)


def q_along_episode(
    times_s: NDArray[np.float64], q: NDArray[np.float64], dims: Sequence[str]
) -> bytes | None:
    """Draw Q of the chosen bins (T, A) over an episode's time [s], one line for each dimension."""
    if q.ndim != 2 or len(q) < 2:
        return None
    figure, (axes,) = panels(1, height=2.7)
    for index, name in enumerate(dims):
        axes.plot(
            times_s, q[:, index], lw=1.3, color=CYCLE[index % len(CYCLE)], label=name, alpha=0.9
        )
    axes.plot(times_s, q.mean(axis=1), lw=2.4, color=INK, label='mean')
    axes.set_xlim(times_s[0], times_s[-1])
    axes.set_ylim(min(0.0, float(q.min())), max(1.02, float(q.max())))
    axes.set_xlabel('time [s]')
    axes.set_ylabel('Q of the chosen bin')
    figure.legend(loc='outside right center', fontsize=8.5, frameon=False)
    return svg(figure)


def action_histograms(
    actions: NDArray[np.float32], dims: Sequence[tuple[str, float, float]]
) -> bytes | None:
    """Draw the distribution of each action dimension (N, A) over its range: (name, low, high)."""
    if not len(actions):
        return None
    columns = min(4, len(dims))
    rows = -(-len(dims) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.2, 1.9 * rows))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for index, place in enumerate(axes):
        if index >= len(dims):
            place.set_visible(False)
            continue
        name, low, high = dims[index]
        room = 0.04 * (high - low)
        inside = np.clip(actions[:, index], low - room / 2, high + room / 2)
        place.hist(inside, bins=41, range=(low - room, high + room), color=BLUE)
        place.set_yscale('log', nonpositive='clip')
        place.set_title(name, loc='left')
    return svg(figure)
