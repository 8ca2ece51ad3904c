"""Plots of one driven episode: Q of every bin as heat strips, times, limits."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from qt_ros.cadence import PARTS, fate_of, split_ms
from qt_ros.report.figures import BLUE, CYCLE, GRID, INK, ORANGE, QUIET, RED, STYLE, png, svg
from qt_ros.report.steps import DrivenEpisode

WIDTH = 10.2
FEW = 8  # bins up to which a strip is low
UNSENT = {'late': RED, 'busy': ORANGE, 'stale': '#7a55b8', 'missed': INK}  # fate -> colour
LIMITS = {'position': BLUE, 'step': ORANGE, 'velocity': RED, 'acceleration': '#2f8f5b'}


def q_strips(episode: DrivenEpisode) -> bytes | None:
    """Draw Q of every bin over time as one strip for each dimension; the line: chosen bins."""
    if not episode.counts or len(episode.rows) < 2:
        return None
    strips = [episode.q_of(dim) for dim in range(len(episode.counts))]
    known = np.concatenate([strip[np.isfinite(strip)] for strip in strips])
    if not known.size:
        return None
    low, high = np.percentile(known, (1, 99))
    heights = [0.35 if count <= FEW else 0.95 for count in episode.counts]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.7))
        places = figure.subplots(
            len(strips), 1, sharex=True, squeeze=False, gridspec_kw={'height_ratios': heights}
        )[:, 0]
    edges = _edges(np.asarray(episode.times_s))
    for dim, (place, strip) in enumerate(zip(places, strips, strict=True)):
        count = episode.counts[dim]
        mesh = place.pcolormesh(
            edges,
            np.arange(count + 1),
            strip.T,
            cmap='viridis',
            vmin=low,
            vmax=max(high, low + 1e-6),
        )
        chosen = episode.chosen(dim) + 0.5
        place.step(edges, np.append(chosen, chosen[-1]), where='post', color=RED, lw=1.0)
        place.set_ylim(0, count)
        place.set_yticks([0, count])
        place.grid(False)
        name = episode.dims[dim] if dim < len(episode.dims) else str(dim)
        place.set_ylabel(name, rotation=0, ha='right', va='center', fontsize=8.5)
    places[-1].set_xlabel('time [s]')
    bar = figure.colorbar(mesh, ax=list(places), pad=0.01, fraction=0.02)
    bar.set_label('Q', rotation=0)
    bar.outline.set_visible(False)
    return png(figure)


def _edges(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (T + 1,) where a column of a strip begins and ends: at its tick, at the next one."""
    period = float(np.median(np.diff(times)))
    return np.concatenate([times, [times[-1] + period]])


def times_over_time(episode: DrivenEpisode) -> bytes | None:
    """Draw ages and periods, and the parts of a tick, over an episode."""
    sent = [i for i, row in enumerate(episode.rows) if row.command_stamp_ns]
    if len(sent) < 2:
        return None
    at = np.asarray(episode.times_s)[sent]
    rows = [episode.rows[i] for i in sent]
    split = split_ms(rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2 if len(split) else 2.9))
        places = figure.subplots(3 if len(split) else 2, 1, sharex=True)
    _ages(places[0], at, rows)
    _periods(places[1], episode)
    if len(split) == len(rows):
        colours = [GRID, *CYCLE[: len(PARTS) - 1]]
        places[2].stackplot(at, split.T, labels=PARTS, colors=colours, step='post', lw=0)
        places[2].set_ylabel('a tick [ms]')
        _legend(places[2])
    for place in places:
        place.set_ylim(bottom=0)
        place.set_xlim(0, episode.times_s[-1])
    places[-1].set_xlabel('time [s]')
    return svg(figure)


def _ages(place: Any, at: NDArray[np.float64], rows: list[Any]) -> None:
    place.plot(at, [1e3 * row.age_s for row in rows], lw=1.2, color=BLUE, label='observation')
    if any(row.command_age_s is not None for row in rows):
        ages = [np.nan if row.command_age_s is None else 1e3 * row.command_age_s for row in rows]
        place.plot(at, ages, lw=1.2, color=ORANGE, label='command')
    place.set_ylabel('age [ms]')
    _legend(place)


def _periods(place: Any, episode: DrivenEpisode) -> None:
    """Draw the time between commands, where they went out; those between decisions too."""
    start_ns = episode.rows[0].tick_ns
    published = {stamp for row in episode.rows for stamp in row.published_ns}
    decided = {row.decided_ns for row in episode.rows if row.command_stamp_ns}
    for chosen, name, colour in ((decided, 'decisions', BLUE), (published, 'commands', ORANGE)):
        if name == 'commands' and len(chosen) <= len(decided):
            continue  # one for each decision
        ordered = np.sort(np.fromiter(chosen, np.int64))
        place.plot(
            (ordered[1:] - start_ns) / 1e9,
            np.diff(ordered) / 1e6,
            '.',
            ms=3,
            color=colour,
            label=name,
        )
    place.set_ylabel('period [ms]')
    _legend(place)


def limits_over_time(episode: DrivenEpisode) -> bytes | None:
    """Draw which ticks sent nothing, and which dimensions were limited, why."""
    marks = list(_marks(episode))
    if not marks:
        return None
    names = ['ticks', *episode.dims]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.7 + 0.22 * len(names)))
        place = figure.subplots()
    labelled: set[str] = set()
    for line, time_s, label, colour in marks:
        place.plot(
            time_s, line, '|', ms=9, mew=1.6, color=colour,
            label=None if label in labelled else label,
        )  # fmt: skip
        labelled.add(label)
    place.set_yticks(range(len(names)), names, fontsize=8.5)
    place.set_ylim(len(names) - 0.5, -0.5)
    place.set_xlim(0, episode.times_s[-1])
    place.set_xlabel('time [s]')
    _legend(place)
    return svg(figure)


def _marks(episode: DrivenEpisode) -> Any:
    """Yield (line, time [s], label, colour) of what a tick is marked for; line 0 is the tick's."""
    for row, time_s, reasons in zip(episode.rows, episode.times_s, episode.reasons, strict=True):
        fate = fate_of(row)
        if fate not in ('sent', 'dry'):
            yield 0, time_s, fate, UNSENT.get(fate, QUIET)
        for dim, reason in enumerate(reasons):
            if reason:
                first = reason.partition('+')[0]
                yield dim + 1, time_s, first, LIMITS.get(first, QUIET)


def _legend(place: Any) -> None:
    """Put the legend beside the plot."""
    place.legend(loc='center left', bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
