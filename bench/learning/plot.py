"""Pictures of results: success per method, one panel per task and one for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt

from bench.learning.study import Study
from bench.learning.table import score, tasks_of

BAR, DOT, OURS = '#9db4c8', '#1d1d1d', '#d9822b'
MOST_PANELS = 6  # tasks that get a panel of their own


def plot_success(path: Path, study: Study, rows: Sequence[dict[str, str]]) -> None:
    """Draw a bar per method with its 95% Wilson interval over all seeds, and a dot per seed."""
    methods = [m for m in study.methods if any(row['method'] == m.name for row in rows)]
    tasks: list[str | None] = [None, *tasks_of(rows)[:MOST_PANELS]]
    figure, panels = plt.subplots(
        1,
        len(tasks),
        figsize=(3.2 + 2.6 * len(tasks), 0.9 + 0.36 * len(methods)),
        sharey=True,
        squeeze=False,
        layout='constrained',
    )
    for panel, task in zip(panels[0], tasks, strict=True):
        for place, method in enumerate(methods):
            found = score(rows, method.name, task)
            if found is None:
                continue
            low, high = found.interval
            color = OURS if method.name == study.methods[0].name else BAR
            panel.barh(place, found.share, color=color, height=0.7)
            panel.plot([low, high], [place, place], color=DOT, linewidth=1.2)
            heights = [place + 0.2] * len(found.by_seed)
            panel.plot(found.by_seed, heights, 'o', color=DOT, markersize=3.5, clip_on=False)
        panel.set_title(task or 'all tasks', fontsize=9)
        panel.set_xlim(0, 1)
        panel.set_xlabel('success', fontsize=8)
        panel.tick_params(labelsize=8)
        panel.spines[['top', 'right']].set_visible(False)
    panels[0][0].set_yticks(range(len(methods)), [method.label for method in methods])
    panels[0][0].invert_yaxis()
    figure.suptitle(f'{study.title}: bar and dots: mean and seeds; line: 95% interval', fontsize=9)
    # Without the version of matplotlib and the date, the same rows give the same file.
    figure.savefig(path, dpi=110, metadata={'Software': None})
    plt.close(figure)
