"""`python -m bench.learning`."""

import sys

from bench.learning.cli import main

if __name__ == '__main__':
    sys.exit(main())
