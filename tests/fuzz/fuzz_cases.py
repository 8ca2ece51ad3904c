"""Run one case: make its input, run every command that can reach it, check the rules."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fuzz_checks import (
    Ended,
    call,
    check_dataset,
    check_kept,
    check_report,
    fingerprint,
)
from fuzz_inputs import BAGS, Made, make_case
from fuzz_material import Material

from qt_ros.contract import Contract
from qt_ros.dataset import Dataset, build_cache
from training.errors import UserError

MAX_CPU_S = 10.0
RESULTS = {0: 'converted', 3: 'partial', 1: 'refused'}


@dataclass(frozen=True)
class Outcome:
    """What became of one case; without `failures` all rules were kept."""

    seed: int
    number: int
    family: str
    kind: str
    result: str  # converted | partial | refused | failed
    failures: tuple[str, ...]
    wall_s: float
    cpu_s: float
    peak_mb: float = 0.0


def run_case(seed: int, number: int, material: Material, folder: Path) -> Outcome:
    """Run a case in `folder`, which is empty; its input stays there for whoever wants it."""
    (folder / 'input').mkdir(parents=True)
    scratch = folder / 'tmp'
    scratch.mkdir()
    made = make_case(seed, number, material, folder / 'input')
    before = fingerprint(folder / 'input')
    tempfile.tempdir = str(scratch)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        if made.family in BAGS:
            status, failures = _run_bag(made, material, folder)
        else:
            status, failures = _RUNNERS[made.family](made, folder)
    finally:
        tempfile.tempdir = None
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if made.family in GUARDED and fingerprint(folder / 'input') != before:
        failures.append('something was written beside the input')
    failures += [f'{name} was left in the temporary folder' for name in os.listdir(scratch)]
    if cpu > MAX_CPU_S:
        failures.append(f'took {cpu:.1f} s of CPU')
    result = 'failed' if failures else RESULTS[status]
    kept = tuple(failures)
    return Outcome(seed, number, made.family, made.kind, result, kept, wall, cpu)


def _convert(made: Made, out: Path, contract: Path, *more: str) -> Ended:
    labels = ['--labels', made.labels] if made.labels is not None else []
    return call(
        *('convert', made.bag, '--contract', contract, '--out', out),
        *('--workers', 1, *more, *labels),
    )


def _fresh(made: Made, out: Path) -> tuple[int, list[str]]:
    """Convert into a new set, which is whole or not there afterwards."""
    ended = _convert(made, out, made.contract, '--json')
    if ended.failure:
        return 1, [ended.failure]
    if ended.status == 1:
        return 1, ['a refused conversion left a dataset'] if out.exists() else []
    return ended.status, [*check_report(ended.data), *check_dataset(out)]


def _onto(made: Made, contract: Path, dataset: Path, folder: Path) -> list[str]:
    """Convert onto a set that has an episode already."""
    copy = folder / 'existing'
    shutil.copytree(dataset, copy)
    ended = _convert(made, copy, contract)
    found = [ended.failure] if ended.failure else []
    found += check_kept(dataset, copy, ended.status)
    shutil.rmtree(copy)
    return found


def _run_bag(made: Made, material: Material, folder: Path) -> tuple[int, list[str]]:
    suggestion = folder / 'suggested.yaml'
    seen = call('inspect', made.bag, '--json', '--suggest', suggestion)
    shown = call('inspect', made.bag)
    failures = [each.failure for each in (seen, shown) if each.failure]
    if seen.status != 1 and not isinstance(seen.data, dict):
        failures.append('inspect --json printed no JSON')
    if suggestion.exists():
        try:
            Contract.load(suggestion)
        except UserError as exc:
            failures.append(f'the suggested contract does not load: {exc}')
    status, found = _fresh(made, folder / 'fresh')
    failures += found
    if made.ground.dataset is not None:
        failures += _onto(made, made.ground.contract, made.ground.dataset, folder)
    else:
        other = material.ground('events')
        assert other.dataset is not None
        failures += _onto(made, other.contract, other.dataset, folder)
    return status, failures


def _run_contract(made: Made, folder: Path) -> tuple[int, list[str]]:
    status, failures = _fresh(made, folder / 'fresh')
    assert made.ground.dataset is not None
    return status, failures + _onto(made, made.contract, made.ground.dataset, folder)


def _run_labels(made: Made, folder: Path) -> tuple[int, list[str]]:
    assert made.dataset is not None
    assert made.ground.dataset is not None
    status, failures = _fresh(made, folder / 'fresh')
    failures += _onto(made, made.contract, made.ground.dataset, folder)
    before = fingerprint(made.dataset)
    ended = call('label', made.dataset, '--csv', made.labels, '--by', 'me', '--json')
    failures += [ended.failure] if ended.failure else []
    if ended.status == 1:
        after = fingerprint(made.dataset)
        failures += [
            f'a refused label file changed {name}'
            for name in after
            if after[name] != before.get(name) and not name.endswith('.lock')
        ]
    failures += check_dataset(made.dataset)
    return status, failures


def _run_dataset(made: Made, folder: Path) -> tuple[int, list[str]]:
    """Read, relabel and extend a damaged set: clear words, and no exception of another kind."""
    dataset = made.dataset
    assert dataset is not None
    failures = []
    statuses = []
    for arguments in (
        ('info', dataset, '--json'),
        ('label', dataset, '--csv', made.labels, '--by', 'me', '--json'),
    ):
        ended = call(*arguments)
        failures += [ended.failure] if ended.failure else []
        statuses.append(ended.status)
    try:
        opened = Dataset(dataset)
        for index in range(len(opened)):
            opened.problems(index)
            opened.rows(index)
            for camera in opened.contract.cameras:
                for _ in opened.iter_frames(index, camera.name):
                    pass
        build_cache(dataset)
    except UserError:
        statuses.append(1)
    except Exception as exc:  # noqa: BLE001 - this is what is looked for
        failures.append(f'reading the dataset: {type(exc).__name__}: {exc}')
    ended = _convert(made, dataset, made.contract)
    failures += [ended.failure] if ended.failure else []
    return 1 if 1 in (*statuses, ended.status) else 0, failures


def _run_lerobot(made: Made, folder: Path) -> tuple[int, list[str]]:
    """Import a damaged set into a new dataset, by a suggested contract, and onto another one."""
    fresh, suggestion = folder / 'fresh', folder / 'suggested.yaml'
    known = call('import-lerobot', made.bag, '--contract', made.contract, '--out', fresh, '--json')
    failures = [known.failure] if known.failure else []
    if known.status != 1 and not known.failure:
        failures += check_dataset(fresh)
    elif fresh.exists():
        failures.append('a refused import left a dataset')
    guessed = call('import-lerobot', made.bag, '--suggest', suggestion, '--json')
    failures += [guessed.failure] if guessed.failure else []
    assert made.ground.dataset is not None
    copy = folder / 'existing'
    shutil.copytree(made.ground.dataset, copy)
    ended = call('import-lerobot', made.bag, '--out', copy, '--json')
    failures += [ended.failure] if ended.failure else []
    return known.status, failures + check_kept(made.ground.dataset, copy, ended.status)


def _run_redone(made: Made, folder: Path) -> tuple[int, list[str]]:
    """Convert a bag that was damaged since it was converted, again and with --replace."""
    dataset, before = made.dataset, folder / 'before'
    assert dataset is not None
    shutil.copytree(dataset, before)
    again = _convert(made, dataset, made.contract)
    failures = [again.failure] if again.failure else []
    failures += check_kept(before, dataset, again.status)
    shutil.rmtree(dataset)
    shutil.copytree(before, dataset)
    redone = call('convert', made.bag, '--contract', made.contract, '--out', dataset,
                  '--workers', 1, '--replace', '--json')  # fmt: skip
    failures += [redone.failure] if redone.failure else []
    if redone.status == 1:
        return 1, failures + check_kept(before, dataset, 1)
    failures += check_dataset(dataset)
    if not Dataset(dataset).episodes:
        failures.append('a damaged bag took the episodes of before with it')
    return redone.status, failures


_RUNNERS = {
    'contract': _run_contract,
    'labels': _run_labels,
    'dataset': _run_dataset,
    'lerobot': _run_lerobot,
    'redone': _run_redone,
}
GUARDED = (*BAGS, 'lerobot')  # inputs that are only read


def input_of(folder: Path) -> Path:
    """Return where `run_case` leaves the input of a case."""
    return folder / 'input'
