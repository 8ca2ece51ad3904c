"""Say how much memory converting takes, for bags of growing length: it should not grow.

    python bench/memory.py                  # 10 and 60 minutes; takes a while and 6 GB of disk
    python bench/memory.py --minutes 1 6

Makes bags of two 640x480 JPEG cameras at 30 Hz and joints at 200 Hz and converts each in a process
of its own, once cut into episodes of 20 s and once as one long episode. The peak is that of the
whole process as Linux counts it (VmHWM). Bags and datasets are deleted again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from camera_bag import BagPlan, contract, write_bag

from qt_ros.bags.converter import convert
from qt_ros.contract import Contract

MODES = {'episodes of 20 s': None, 'one episode': 'one_per_bag'}
EVERY_S = 2.0


def peak_mb() -> float:
    """Return the largest memory of this process so far [MB]; pages count once they are touched."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmHWM:'):
            return int(line.split()[1]) / 1024
    raise RuntimeError('/proc/self/status has no VmHWM; this needs Linux')


def convert_here(bag: Path, spec_file: Path, out: Path) -> None:
    """Convert in this process and print the figures, for the parent to read."""
    spec = Contract.load(spec_file)
    before = peak_mb()
    result = convert([bag], spec, out)
    report = result.report
    print(
        json.dumps(
            {
                'status': result.status,
                'problems': report['per_bag'][0]['problems'],
                'before_mb': before,
                'peak_mb': peak_mb(),
                'cpu_s': time.process_time(),
                'episodes': report['episodes']['new'],
                'rows': report['rows'],
                'messages': report['messages'],
            }
        )
    )


def measure(bag: Path, spec: Contract, what: str) -> dict[str, Any]:
    """Convert the bag in a child and return its figures."""
    with tempfile.TemporaryDirectory(prefix='qt-ros-bench-') as folder:
        spec_file, out = Path(folder) / 'contract.yaml', Path(folder) / 'dataset'
        spec_file.write_text(spec.to_yaml(), encoding='utf-8')
        began = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, __file__, '--child', str(bag), str(spec_file), str(out)],
            stdout=subprocess.PIPE,
            text=True,
        )
        while child.poll() is None:
            sys.stderr.write(f'\r{what}: {time.monotonic() - began:.0f} s ')
            sys.stderr.flush()
            time.sleep(EVERY_S)
        sys.stderr.write('\n')
        text = child.stdout.read() if child.stdout else ''
    if child.returncode:
        sys.exit(f'{what}: the conversion ended with status {child.returncode}')
    figures = json.loads(text)
    if figures['status']:
        sys.exit(f'{what}: not converted: {figures["problems"]}')
    return figures


def main() -> None:
    """Run from the command line."""
    if sys.argv[1:2] == ['--child']:
        convert_here(*map(Path, sys.argv[2:5]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, nargs='+', default=[10.0, 60.0])
    parser.add_argument('--rate-hz', type=float, default=10.0, help='of ticks and commands')
    parser.add_argument('--size', default='96x96', help='HEIGHTxWIDTH of the frames')
    parser.add_argument('--quality', type=int, default=40, help='of the JPEGs: 60 min take 5 GB')
    parser.add_argument('--json', type=Path, help='write the figures to this file')
    args = parser.parse_args()
    size = tuple(map(int, args.size.split('x')))
    plan = BagPlan(rate_hz=args.rate_hz, quality=args.quality)
    found = []
    for minutes in args.minutes:
        with tempfile.TemporaryDirectory(prefix='qt-ros-bench-') as folder:
            bag = Path(folder) / 'bag.mcap'
            write_bag(bag, replace(plan, seconds=60 * minutes))
            gigabytes = bag.stat().st_size / 1e9
            for mode, episodes in MODES.items():
                spec = contract(args.rate_hz, (size[0], size[1]), episodes)
                figures = measure(bag, spec, f'{minutes:g} min, {mode}')
                found.append({'minutes': minutes, 'gb': gigabytes, 'mode': mode, **figures})
    print(
        f'{"bag":>8} {"size":>8} {"cut into":18}{"rows":>8} {"at start":>10} {"peak":>10}'
        f' {"against the first":>18}'
    )
    first: dict[str, float] = {}
    for row in found:
        base = first.setdefault(row['mode'], row['peak_mb'])
        print(
            f'{row["minutes"]:5g} min {row["gb"]:5.2f} GB {row["mode"]:18}{row["rows"]:>8}'
            f' {row["before_mb"]:7.1f} MB {row["peak_mb"]:7.1f} MB {row["peak_mb"] / base:17.2f}x'
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding='utf-8')


if __name__ == '__main__':
    main()
