"""Write `docs/results` from what is finished: CSV, then plots and text from the CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.learning.places import Cell
from bench.learning.plot import plot_success
from bench.learning.statistics import ratio_interval
from bench.learning.study import STUDIES, LearningError, Study, load_study
from bench.learning.table import Score, read_csv, score, tasks_of, write_csv

IMITATION = 'bc_all'  # what the others are compared with
OUTSIDE = 'outside.csv'  # by `bench.learning.outside`, which runs in an environment of its own

HEAD = """# Results

What the Q-Transformer and its rivals learn from the same data with the same network and the same
number of gradient steps. Written by `python -m bench.learning report` from the CSV files beside
it; nothing here is typed by hand but what each study says about itself.

Shares are successes of evaluated episodes, all seeds together, with the 95% Wilson interval; that
interval says how sure the count is, not how much trainings differ: for that see the seeds, which
stand in the last column and as dots in the plots. The ratio to cloning all episodes has the 95%
interval of Katz. CPU time is of one thread.
"""


def write_report(out: Path, to: Path, seeds: Sequence[int]) -> list[Path]:
    """Write everything about the studies that were begun; return the files.

    Cells of `seeds` and of the core methods that are not finished are named as such.
    """
    to.mkdir(parents=True, exist_ok=True)
    written, text = [], [HEAD]
    for name in STUDIES:
        if not (out / 'cells' / name).is_dir():
            continue
        try:
            study = load_study(name)
        except LearningError as error:
            text.append(f'## {name}\n\nNot reported here: {error}\n')
            continue
        cells = _cells(out, study, seeds)
        if not any(cell.done for cell in cells):
            text.append(f'## {study.title}\n\nBegun; no cell of it is finished yet.\n')
            continue
        table = to / f'{name}.csv'
        write_csv(table, study, [cell for cell in cells if cell.done])
        rows = read_csv(table)
        written.append(table)
        text.append(_section(study, rows, [cell for cell in cells if not cell.done]))
        if 'successes' in study.columns:
            plot = to / f'{name}.png'
            plot_success(plot, study, rows)
            written.append(plot)
            text.append(f'![{study.title}]({plot.name})\n')
        text.append(study.notes)
    if (to / OUTSIDE).is_file():
        text.append(_outside(read_csv(to / OUTSIDE)))
    readme = to / 'README.md'
    readme.write_text('\n'.join(part for part in text if part), encoding='utf-8')
    return [*written, readme]


def _cells(out: Path, study: Study, seeds: Sequence[int]) -> list[Cell]:
    """Return the cells that were asked for or that exist, in the study's order."""
    found = []
    for method in study.methods:
        folder = out / 'cells' / study.name / method.name
        there = {int(path.name[5:]) for path in folder.glob('seed_*') if path.name[5:].isdigit()}
        wanted = set() if method.extra else set(seeds)
        cells = [Cell(out, study.name, method.name, seed) for seed in sorted(wanted | there)]
        found += [cell for cell in cells if cell.done or cell.seed in wanted]
    return found


def _section(study: Study, rows: Sequence[dict[str, str]], missing: Sequence[Cell]) -> str:
    """Return a study's heading, how it was run, its table and what is missing."""
    lines = [f'## {study.title}', '', _how(study, rows), '']
    lines += _success_table(study, rows) if 'successes' in study.columns else _means(study, rows)
    if missing:
        cells = ', '.join(f'{cell.method} (seed {cell.seed})' for cell in missing)
        lines += ['', f'**Not finished yet**, and so not in the table: {cells}.']
    notes = list(dict.fromkeys((row['method'], row['seed'], row['note']) for row in rows))
    lines += [f'\n{method}, seed {seed}: {note}' for method, seed, note in notes if note]
    return '\n'.join(lines) + '\n'


def _how(study: Study, rows: Sequence[dict[str, str]]) -> str:
    def all_of(name: str) -> str:
        return ', '.join(sorted({row[name] for row in rows}))

    seeds = sorted({int(row['seed']) for row in rows})
    methods = {(row['method'], row['seed']): row for row in rows}
    spent = sum(float(r['cpu_training_s']) + float(r['cpu_judging_s']) for r in methods.values())
    return (
        f'`python -m bench.learning run --study {study.name} --seeds'
        f' {" ".join(map(str, seeds))}`; {all_of("date")}; {all_of("hardware")}; torch'
        f' {all_of("torch")}; commit {all_of("commit")}. {len(methods)} cells,'
        f' {spent / 3600:.1f} CPU-hours of training and judging. Rows: [{study.name}.csv]'
        f"({study.name}.csv). The finished rows' settings: `{study.preset.name}` with"
        f' `{" ".join(study.overrides)}`.'
    )


def _success_table(study: Study, rows: Sequence[dict[str, str]]) -> list[str]:
    tasks = tasks_of(rows)
    base = score(rows, IMITATION)
    lines = [
        f'| method | all tasks | {" | ".join(tasks)} | times BC (all) | CPU-min a cell | seeds |',
        f'|---|---|{"---|" * len(tasks)}---|---|---|',
    ]
    for method in study.methods:
        total = score(rows, method.name)
        if total is None:
            continue
        each = [_share(score(rows, method.name, task)) for task in tasks]
        seconds = [float(r['cpu_training_s']) for r in rows if r['method'] == method.name]
        minutes = sum(seconds) / len(seconds) / 60
        seeds = ' '.join(f'{100 * share:.0f}' for share in total.by_seed)
        lines.append(
            f'| {method.label} | {_share(total)} | {" | ".join(each)} | {_ratio(total, base)} |'
            f' {minutes:.1f} | {seeds} |'
        )
    return lines


def _outside(rows: Sequence[dict[str, str]]) -> str:
    """Return the section of the check by d3rlpy."""
    tasks, methods = tasks_of(rows), list(dict.fromkeys(row['method'] for row in rows))
    lines = [
        '## Outside check: d3rlpy on the true state of the block world',
        '',
        f'`make bench-outside`; {", ".join(sorted({row["date"] for row in rows}))}; rows:'
        f' [{OUTSIDE}]({OUTSIDE}). The episodes are those of the block study, and so are the'
        ' scenes, but these methods **see the poses of all blocks**, where the Q-Transformer'
        ' has two 64 px images: an easier problem. Runs are short; the steps say how short.',
        '',
        f'| method | steps | all tasks | {" | ".join(tasks)} | CPU-min a cell |',
        f'|---|---|---|{"---|" * len(tasks)}---|',
    ]
    for method in methods:
        mine = [row for row in rows if row['method'] == method]
        each = [_share(score(rows, method, task)) for task in (None, *tasks)]
        minutes = sum(float(row['cpu_training_s']) for row in mine) / len(mine) / 60
        lines.append(
            f'| {method.upper()} | {mine[0]["train_steps"]} | {" | ".join(each)} | {minutes:.1f} |'
        )
    return '\n'.join(lines) + '\n'


def _share(found: Score | None) -> str:
    """Return `62% (55 to 69) of 150`."""
    if found is None:
        return ''
    low, high = found.interval
    return f'{100 * found.share:.0f}% ({100 * low:.0f} to {100 * high:.0f}) of {found.episodes}'


def _ratio(found: Score, base: Score | None) -> str:
    """Return `4.2 (2.9 to 6.1)`: by how much a method succeeds more often than imitation."""
    if base is None:
        return ''
    if not found.successes or not base.successes:
        return f'{found.successes} against {base.successes}'
    low, high = ratio_interval(found.successes, found.episodes, base.successes, base.episodes)
    return f'{found.share / base.share:.1f} ({low:.1f} to {high:.1f})'


def _means(study: Study, rows: Sequence[dict[str, str]]) -> list[str]:
    """Return the rows with each number as its mean over seeds, and its range if it varies."""
    words = [name for name in study.columns if not _is_number(rows[0][name])]
    numbers = [name for name in study.columns if name not in words]
    lines = [
        f'| method | {" | ".join(words)} | seeds | {" | ".join(numbers)} |',
        f'|{"---|" * (len(study.columns) + 2)}',
    ]
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row['method'], *(row[name] for name in words)), []).append(row)
    for (method, *names), group in groups.items():
        values = [_mean([float(row[name]) for row in group]) for name in numbers]
        cells = [study.method(method).label, *names, str(len(group)), *values]
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _mean(values: Sequence[float]) -> str:
    mean = f'{sum(values) / len(values):.3g}'
    low, high = f'{min(values):.3g}', f'{max(values):.3g}'
    return mean if low == high else f'{mean} ({low} to {high})'
