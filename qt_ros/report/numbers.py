"""Numbers as a person reads them: 12345 is 12 345, 754 seconds are 12 min 34 s."""

from __future__ import annotations


def words(value: object) -> str:
    """Write one value; None is a dash."""
    if value is None:
        return '–'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, int):
        return f'{value:,}'.replace(',', '\u202f')
    if isinstance(value, float):
        return f'{value:.3g}' if abs(value) < 1000 else words(round(value))
    return str(value)


def percent(rate: float | None) -> str:
    """Write a rate as a percentage: 0.875 is '88%'."""
    return '–' if rate is None else f'{100 * rate:.0f}%'


def interval(pair: object) -> str:
    """Write a 95% interval of a rate: '68–96%'."""
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        return '–'
    return f'{100 * pair[0]:.0f}–{100 * pair[1]:.0f}%'


def duration(seconds: float | None) -> str:
    """Write a time span: '41 s', '12 min 34 s', '2 h 5 min'."""
    if seconds is None:
        return '–'
    if seconds < 99.5:
        return f'{seconds:.1f} s' if seconds < 9.95 else f'{seconds:.0f} s'
    whole = round(seconds)
    if whole < 3600:
        return f'{whole // 60} min {whole % 60} s'
    return f'{whole // 3600} h {whole % 3600 // 60} min'
