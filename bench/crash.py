"""Kill converting processes at 200 random moments and check what is left after each.

    python bench/crash.py [--kills 200] [--seed 0]

The same trials as `tests/bags/test_killing.py`, which runs 50 of them: conversions into new and
existing datasets with one worker and with two, `--replace`, and relabelling, killed (SIGKILL) at a
random time or at a random step in the file system.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests' / 'bags'))


def main() -> None:
    """Run the trials and print how often each kind of work was killed."""
    from killing import Killer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='crash_') as folder:
        killer = Killer(Path(folder), args.seed)
        killer.campaign(args.kills)
    for what, count in sorted(killer.seen.items()):
        print(f'{count:6d}  {what}')
    print(f'every committed episode was whole after each; {time.monotonic() - begin:.0f} s')


if __name__ == '__main__':
    main()
