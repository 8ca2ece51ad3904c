"""A line on stderr that says how far a long measurement is."""

from __future__ import annotations

import sys
import time

EVERY_S = 1.0


class Progress:
    """Tells about work of a known amount, once a second; silent where `show` is false."""

    def __init__(self, what: str, total: float, show: bool = True) -> None:
        self._what, self._total, self._show = what, total, show
        self._began = self._told = time.monotonic()

    def at(self, done: float) -> None:
        """Say how much is done, if it is time to."""
        now = time.monotonic()
        if now - self._told < EVERY_S or not self._show:
            return
        self._told = now
        share = min(done / self._total, 1.0) if self._total else 1.0
        self._print(f'{share:4.0%} after {now - self._began:.0f} s')

    def done(self) -> None:
        """Say that it is over."""
        if self._show:
            self._print(f'done in {time.monotonic() - self._began:.1f} s\n')

    def _print(self, text: str) -> None:
        sys.stderr.write(f'\r{self._what}: {text:<24}')
        sys.stderr.flush()
