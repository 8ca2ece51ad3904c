"""What a study is: the data of a seed, the methods that learn from it, and how they are judged.

A cell is one (study, method, seed): training in a folder of its own, then `evaluate`. All methods
of a study share preset, data and number of steps, and differ only in their `overrides`.
To add a study, write `def study(quick: bool = False) -> Study` in a module and name it in
`STUDIES`; quick asks for the smallest sizes that still run through everything, in seconds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Row = Mapping[str, str | int | float]

STUDIES = {
    'block': 'bench.learning.block',
    'multitask': 'bench.learning.multitask',
    'predictor': 'bench.learning.predictor',
    'metaworld': 'bench.learning.metaworld',
}
SUCCESS_COLUMNS = ('task', 'successes', 'episodes', 'steps')


class LearningError(Exception):
    """A request or a folder that the bench cannot work with; the text says what to do."""


@dataclass(frozen=True)
class Method:
    """One way to learn."""

    name: str  # of its folder and in the results
    label: str  # in plots and tables
    overrides: tuple[str, ...] = ()  # key=value, on top of the study's
    extra: bool = False  # only run when asked for by name or with --extras


@dataclass(frozen=True)
class Study:
    """A comparison of methods on the same data.

    make_data(seed, folder): write what a seed needs into `folder` (empty, given a temporary name
    until it returns): the training cache `train`, and beside it whatever `evaluate` wants. Must
    give the same data for the same seed.
    evaluate(run, data, seed): judge the newest checkpoint of a run folder; one row per task, with
    the keys `columns`. Most studies use SUCCESS_COLUMNS: the task's name, successes of episodes,
    and mean steps of the successful ones (0 without any). Called in the training's process, one
    thread; no need to resume.
    """

    name: str
    title: str
    preset: Path
    overrides: tuple[str, ...]  # key=value of all methods, on top of the preset
    methods: tuple[Method, ...]
    make_data: Callable[[int, Path], None]
    evaluate: Callable[[Path, Path, int], Sequence[Row]]
    columns: tuple[str, ...] = SUCCESS_COLUMNS
    data: str = ''  # studies with the same name here share their data; '': the study's own name
    recipe: str = ''  # what make_data depends on; data of another recipe are refused
    notes: str = ''  # Markdown under the table in docs/results/README.md: what, how, what differs

    @property
    def data_name(self) -> str:
        """Name of the folder of its data."""
        return self.data or self.name

    def method(self, name: str) -> Method:
        """Return a method by its name; raises LearningError with the known ones."""
        for method in self.methods:
            if method.name == name:
                return method
        known = ', '.join(method.name for method in self.methods)
        raise LearningError(f'study {self.name} has no method {name!r}; known: {known}')


def load_study(name: str, quick: bool = False) -> Study:
    """Return a study by its name; only then is its module imported.

    Raises LearningError for an unknown one and where something it needs is not installed.
    """
    if name not in STUDIES:
        raise LearningError(f'unknown study {name!r}; known: {", ".join(STUDIES)}')
    try:
        module = importlib.import_module(STUDIES[name])
    except ModuleNotFoundError as error:
        raise LearningError(f'study {name} cannot run here: {error}') from error
    return module.study(quick)
