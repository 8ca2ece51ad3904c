"""Feed `qt-ros` thousands of mutated bags, contracts, label files and datasets.

    python bench/fuzz.py                          10 000 inputs; go on where a run was stopped
    python bench/fuzz.py --count 500 --seed 7
    python bench/fuzz.py --seed 1 --only 1234     one input again, with what it says

Every input runs through all commands that can reach it, in a watched process: no traceback, no
exit status but 0, 1 and 3, less than 10 s of CPU (60 s by the clock) and 2 GB, nothing written
beside a bag, datasets whole. Inputs that break a rule are copied to `<out>/failures/`, and the
exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from queue import Queue

TESTS = Path(__file__).resolve().parent.parent / 'tests'
sys.path[:0] = [str(TESTS / name) for name in ('fuzz', 'bags', 'lerobot')]

from fuzz_cases import Outcome, input_of  # noqa: E402
from fuzz_inputs import family_of  # noqa: E402
from fuzz_material import Material, prepare  # noqa: E402
from fuzz_workers import Worker  # noqa: E402

REAL_BAGS = Path(os.environ.get('QT_REAL_BAGS', TESTS.parent.parent / 'shared' / 'bags'))
RESULTS = ('converted', 'partial', 'refused', 'failed')


def main() -> int:
    """Run the inputs that are still missing, and print the table of all."""
    args = _arguments()
    real = REAL_BAGS if REAL_BAGS.is_dir() else None
    if real is None:
        print(f'no recordings at {REAL_BAGS}: hand-made bags only', file=sys.stderr)
    args.out.mkdir(parents=True, exist_ok=True)
    ground = args.out / 'material'
    shutil.rmtree(ground, ignore_errors=True)
    material = prepare(ground, real)
    if args.only is not None:
        return _one(args, material)
    log = args.out / f'seed_{args.seed}.jsonl'
    known = _read(log)
    missing = [n for n in range(args.start, args.start + args.count) if n not in known]
    if known:
        print(f'{len(known)} inputs were run before; {len(missing)} are left', file=sys.stderr)
    begin = time.perf_counter()
    with log.open('a', encoding='utf-8') as file:
        for done, outcome in enumerate(_outcomes(args, material, missing), start=1):
            file.write(json.dumps(asdict(outcome)) + '\n')
            file.flush()
            known[outcome.number] = outcome
            if outcome.failures:
                print(f'\n{outcome.number} {outcome.family} {outcome.kind}', file=sys.stderr)
                print('\n'.join(each[-400:] for each in outcome.failures), file=sys.stderr)
            if done % 100 == 0 or done == len(missing):
                _progress(done, len(missing), time.perf_counter() - begin)
    chosen = [known[n] for n in sorted(known) if args.start <= n < args.start + args.count]
    print_table(chosen, args.seed)
    return 1 if any(outcome.failures for outcome in chosen) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--count', type=int, default=10_000, help='inputs (%(default)s)')
    parser.add_argument('--seed', type=int, default=1, help='of all inputs (%(default)s)')
    parser.add_argument('--start', type=int, default=0, help='number of the first input')
    parser.add_argument('--only', type=int, help='run one input and leave it in OUT/only')
    parser.add_argument('--jobs', type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument('--out', type=Path, default=Path('runs/fuzz'), help='(%(default)s)')
    return parser.parse_args()


def _outcomes(args: argparse.Namespace, material: Material, numbers: list[int]):
    """Yield outcomes as they come; as many workers as jobs, each with a folder of its own."""
    free: Queue[Worker] = Queue()
    workers = [Worker(material, args.out / f'worker_{n}') for n in range(max(args.jobs, 1))]
    for worker in workers:
        free.put(worker)

    def run(number: int) -> Outcome:
        worker = free.get()
        try:
            outcome = worker.run(args.seed, number)
            if outcome.failures:
                _keep(args, worker.folder / 'case', outcome)
            return outcome
        finally:
            free.put(worker)

    waiting = iter(numbers)
    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            while batch := list(islice(waiting, 50 * len(workers))):
                yield from pool.map(run, batch)
        finally:
            for worker in workers:
                worker.stop()


def _keep(args: argparse.Namespace, case: Path, outcome: Outcome) -> None:
    """Copy the input of a failure, with how to run it again."""
    name = f'{args.seed}_{outcome.number:06d}_{outcome.family}'
    folder = args.out / 'failures' / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if input_of(case).is_dir():
        shutil.copytree(input_of(case), folder / 'input')
    again = f'python bench/fuzz.py --seed {args.seed} --only {outcome.number}'
    (folder / 'how.txt').write_text('\n\n'.join((again, *outcome.failures)) + '\n')


def _one(args: argparse.Namespace, material: Material) -> int:
    worker = Worker(material, args.out / 'only')
    outcome = worker.run(args.seed, args.only)
    worker.stop()
    print(json.dumps({**asdict(outcome), 'failures': len(outcome.failures)}))
    print('\n'.join(outcome.failures))
    print(f'its input lies in {input_of(args.out / "only/case")}')
    return 1 if outcome.failures else 0


def _read(log: Path) -> dict[int, Outcome]:
    found = {}
    for line in log.read_text(encoding='utf-8').splitlines() if log.exists() else ():
        entry = json.loads(line)
        found[entry['number']] = Outcome(**{**entry, 'failures': tuple(entry['failures'])})
    return found


def _progress(done: int, total: int, seconds: float) -> None:
    left_min = seconds / done * (total - done) / 60
    print(f'{done} of {total}, {seconds:.0f} s, {left_min:.0f} min left', file=sys.stderr)


def print_table(outcomes: list[Outcome], seed: int) -> None:
    """Print a row per kind of input, then what was slowest and largest."""
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for each in outcomes:
        family = each.family or family_of(seed, each.number)
        groups[family, each.kind].append(each)
        groups[family, 'ALL'].append(each)
    groups['ALL', ''] = outcomes
    print(f'{"input":<44} {"count":>6} {"converted":>9} {"partial":>8} {"refused":>8}'
          f' {"failed":>7} {"slowest s":>9} {"peak MB":>8}')  # fmt: skip
    for (family, kind), group in sorted(groups.items(), key=lambda item: item[0]):
        counts = Counter(each.result for each in group)
        shown = ' '.join(
            f'{counts[result]:>{width}}'
            for result, width in zip(RESULTS, (9, 8, 8, 7), strict=True)
        )
        slowest, peak = max(e.cpu_s for e in group), max(e.peak_mb for e in group)
        name = family if kind in ('', 'ALL') else f'  {kind}'
        print(f'{name:<44} {len(group):>6} {shown} {slowest:>9.2f} {peak:>8.0f}')
    worst = max(outcomes, key=lambda each: each.cpu_s)
    largest = max(outcomes, key=lambda each: each.peak_mb)
    broken = [each.number for each in outcomes if each.failures]
    print(f'slowest: {worst.cpu_s:.2f} s of CPU, input {worst.number} ({worst.family})')
    print(f'largest: {largest.peak_mb:.0f} MB, input {largest.number} ({largest.family})')
    print(f'{len(broken)} of {len(outcomes)} broke a rule: {broken[:20] or "none"}')


if __name__ == '__main__':
    sys.exit(main())
