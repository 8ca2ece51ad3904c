"""Argument types that say what is allowed."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    return _at_least(text, 1)


def natural(text: str) -> int:
    """Parse a whole number of at least 0."""
    return _at_least(text, 0)


def seconds(text: str) -> float:
    """Parse a time of more than 0 [s]."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f'{text!r}: a number of seconds above 0 is needed')
    return value


def _at_least(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f'{text!r}: a whole number of at least {least} is needed')
    return value
