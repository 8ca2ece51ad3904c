"""Break the algorithm in one place after the other and see which test notices.

    python bench/mutants.py [--only 3]

Works on a copy of `training` and its tests. Prints one line per broken place; exit status 1 if a
mutant survives its test. About two minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutant:
    """One place, broken: `old` becomes `new` in training/`file`."""

    invariant: int  # whose tests must fail
    what: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant(1, 'the reward is ignored', 'q_math.py', 'return reward + gamma *', 'return gamma *'),
    Mutant(
        2,
        'an end does not stop the bootstrap',
        'q_math.py',
        'torch.where(terminated, torch.zeros_like(next_q), next_q)',
        'next_q',
    ),
    Mutant(
        2,
        'a time-out is an end',
        'data.py',
        "self._terminated = column('terminated').astype(bool)",
        "self._terminated = (column('terminated') | column('truncated')).astype(bool)",
    ),
    Mutant(
        2,
        'a row that was cut off aims at its reward alone',
        'learner.py',
        'bootstraps = batch.terminated | batch.has_next',
        'bootstraps = batch.terminated | batch.valid',
    ),
    Mutant(
        3,
        'what is sent is one bin off',
        'tokens.py',
        'values[..., i] = centres[bins[..., i]]',
        'values[..., i] = centres[bins[..., i] - 1]',
    ),
    Mutant(
        3,
        'decoding takes the second bin where the first is best',
        'model.py',
        'answer = q.argmax(-1)',
        'answer = q.argmax(-1) ^ 1',
    ),
    Mutant(
        3,
        'the newest frame stands in the wrong place of the cached window',
        'model.py',
        'newest + self.slot[-1]',
        'newest + self.slot[0] + self.slot[-1]',
    ),
    Mutant(
        4,
        'the loss is a sum over the batch',
        'q_math.py',
        'return kept.sum() / (mask.sum() if count is None else count).clamp(min=1)',
        'return kept.sum()',
    ),
    Mutant(
        5,
        'discount between dimensions of one step',
        'q_math.py',
        'torch.cat([best_now[..., 1:],',
        'torch.cat([gamma * best_now[..., 1:],',
    ),
    Mutant(
        5,
        'a dimension aims at its own best instead of the next one',
        'q_math.py',
        'torch.cat([best_now[..., 1:],',
        'torch.cat([best_now[..., :-1],',
    ),
    Mutant(
        6,
        'the conservative term acts on logits',
        'q_math.py',
        'low = torch.where(others, errors, zero)',
        'low = torch.where(others, 0.5 * logits**2, zero)',
    ),
    Mutant(
        6,
        "the conservative term pulls the data's bin down too",
        'q_math.py',
        'others = bin_mask(counts).to(logits.device) & ~is_data',
        'others = bin_mask(counts).to(logits.device) | is_data',
    ),
    Mutant(
        7,
        'the return-to-go starts one step late',
        'q_math.py',
        'returns[row] = total',
        'returns[row] = total - float(reward[row])',
    ),
    Mutant(
        7,
        'the return-to-go is no lower bound',
        'q_math.py',
        'return torch.maximum(targets, returns.unsqueeze(-1))',
        'return targets',
    ),
    Mutant(
        8,
        'a dimension sees the token behind it',
        'model.py',
        'device=present.device).tril()',
        'device=present.device).tril(1)',
    ),
    Mutant(
        9,
        'the seed does not reach the weights',
        'train.py',
        'torch.manual_seed(config.optim.seed)',
        'torch.seed()',
    ),
    Mutant(
        9,
        'shifts are drawn without the seed',
        'data.py',
        'np.random.default_rng([self.seed, 1, step])',
        'np.random.default_rng()',
    ),
    Mutant(
        9,
        'resuming forgets the moments of the optimiser',
        'train.py',
        '    checkpoint.load_optimizer(folder, learner.model, learner.optimizer)\n',
        '',
    ),
)


def copied(folder: Path) -> None:
    """Copy what the tests need into an empty folder."""
    unwanted = shutil.ignore_patterns('__pycache__')
    shutil.copytree(ROOT / 'training', folder / 'training', ignore=unwanted)
    shutil.copytree(ROOT / 'tests' / 'training', folder / 'tests' / 'training', ignore=unwanted)
    shutil.copy(ROOT / 'pyproject.toml', folder)


def broken(mutant: Mutant) -> str:
    """Return the text of the mutant's file with the place broken; it must be there once."""
    text = (ROOT / 'training' / mutant.file).read_text(encoding='utf-8')
    if text.count(mutant.old) != 1:
        raise ValueError(f'{mutant.file} has {text.count(mutant.old)} times {mutant.old!r}')
    return text.replace(mutant.old, mutant.new)


def failures(folder: Path, invariant: int) -> list[str]:
    """Run the tests of an invariant in the copy; return which fail."""
    chosen = (
        ['tests/training/test_tabular.py', '-k', 'two-dims and not n-step and not hl']
        if invariant == 5
        else ['tests/training/test_invariants.py', '-k', f'test_{invariant}_']
    )
    command = [sys.executable, '-m', 'pytest', '-q', '-x', '--no-header', '-p', 'no:cacheprovider']
    environment = {**os.environ, 'PYTHONPATH': str(folder), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [*command, *chosen], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f'pytest ended with {done.returncode}: {done.stdout}{done.stderr}')
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith('FAILED')]


def results(only: int | None) -> Iterator[tuple[Mutant, list[str]]]:
    """Yield each mutant with the tests that it fails."""
    for mutant in MUTANTS:
        if only in (None, mutant.invariant):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                copied(folder)
                (folder / 'training' / mutant.file).write_text(broken(mutant), encoding='utf-8')
                yield mutant, failures(folder, mutant.invariant)


def main() -> int:
    """Print what became of every mutant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', type=int, metavar='N', help='mutants of one invariant only')
    survivors = 0
    for mutant, failed in results(parser.parse_args().only):
        survivors += not failed
        seen = failed[0].partition('::')[2] if failed else 'NOBODY NOTICED'
        print(f'{mutant.invariant}  {mutant.what:<66} {seen}', flush=True)
    return int(survivors > 0)


if __name__ == '__main__':
    sys.exit(main())
