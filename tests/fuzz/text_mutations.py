"""Damage texts: YAML contracts and metadata, CSV labels, JSON. Pure functions of (text, rng)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from byte_mutations import damage
from numpy.random import Generator

NUMBERS = (
    *('0', '-1', '1e308', '-1e308', '1e-308', '1e400', '.inf', '-.inf', '.nan', 'nan', 'inf'),
    *('1_000', '0x7fffffff', '0o17', '1:30:00', '9' * 400, '-0.0', '4294967296', '1e9'),
    *('9223372036854775808', '0.1', '1e-9', '100000', '2026-01-01', '١٢'),
)
ODD_WORDS = (
    *('null', '~', 'true', 'on', '""', "''", '[]', '{}', '[[]]', '{a: {b: c}}', '[1, 2, 3]'),
    *('!!binary aGk=', '!!python/object/apply:os.system [id]', '!!set {a}', '!!float x'),
    *('*nowhere', '&a [*a]', '<<: *a', '|', '>', '? a', '- - - -', '%YAML 9.9', '---', '...'),
    *('../../../etc/passwd', '/', '//', 'a/b', 'a' * 5000, '$(id)', '%s%s%n', '`id`', 'C:\\x'),
    *(
        '\u202e',
        '\u0000',
        '\ufeff',
        '\ud7ff',
        '\U0001f980',
        'e\u0301',
        '\u2028',
        '\x85',
        '\x1b[2J',
    ),
    *('ß' * 100, 'İ', '\t', '\r', '\x0b', '"', "'", '#', ': ', ' #', '"unclosed', "'unclosed"),
)
_TOKEN = re.compile(r'[^\s,\[\]{}:]+')
_NUMBER = re.compile(r'(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.])')
MAX_DEPTH = 30_000


def _pick(options: Sequence[str], rng: Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _replace(pattern: re.Pattern[str], text: str, new: str, rng: Generator) -> str:
    places = list(pattern.finditer(text))
    if not places:
        return text + new
    place = places[int(rng.integers(len(places)))]
    return text[: place.start()] + new + text[place.end() :]


def odd_number(text: str, rng: Generator) -> str:
    """Write an odd number in place of a number."""
    return _replace(_NUMBER, text, _pick(NUMBERS, rng), rng)


def odd_word(text: str, rng: Generator) -> str:
    """Write something of another type, or hostile, in place of a word."""
    return _replace(_TOKEN, text, _pick((*ODD_WORDS, *NUMBERS), rng), rng)


def other_word(text: str, rng: Generator) -> str:
    """Write a word of the text itself in place of another one."""
    return _replace(_TOKEN, text, _pick(_TOKEN.findall(text) or [''], rng), rng)


def drop_line(text: str, rng: Generator) -> str:
    """Leave out a line."""
    lines = text.split('\n')
    del lines[int(rng.integers(len(lines)))]
    return '\n'.join(lines)


def double_line(text: str, rng: Generator) -> str:
    """Write a line again, somewhere."""
    lines = text.split('\n')
    lines.insert(int(rng.integers(len(lines))), _pick(lines, rng))
    return '\n'.join(lines)


def indent_line(text: str, rng: Generator) -> str:
    """Move a line to the right or to the left."""
    lines = text.split('\n')
    at = int(rng.integers(len(lines)))
    lines[at] = ' ' * int(rng.integers(1, 5)) + lines[at] if rng.integers(2) else lines[at].strip()
    return '\n'.join(lines)


def nest(text: str, rng: Generator) -> str:
    """Put a value into very many brackets, lists or maps."""
    depth = int(10 ** rng.uniform(1, 4.4))
    opening, closing = (('[', ']'), ('{a: ', '}'), ('- ', ''), ('[', ''))[int(rng.integers(4))]
    return _replace(_TOKEN, text, opening * min(depth, MAX_DEPTH) + 'x' + closing * depth, rng)


def alias_bomb(text: str, rng: Generator) -> str:
    """Put a billion laughs into a value: lists of lists that refer to each other."""
    levels, width = int(rng.integers(2, 30)), int(rng.integers(2, 12))
    lines = ['bomb0: &b0 [x, x]']
    for level in range(1, levels):
        refers = ', '.join([f'*b{level - 1}'] * width)
        lines.append(f'bomb{level}: &b{level} [{refers}]')
    bombed = _replace(_TOKEN, text, f'*b{levels - 1}', rng)
    return '\n'.join(lines) + '\n' + bombed


def damaged_bytes(text: str, rng: Generator) -> str:
    """Damage the bytes; what is no UTF-8 then stays as it is when written with surrogateescape."""
    return damage(text.encode('utf-8', 'surrogateescape'), rng).decode('utf-8', 'surrogateescape')


def many_lines(text: str, rng: Generator) -> str:
    """Repeat a line thousands of times."""
    lines = text.split('\n')
    at = int(rng.integers(len(lines)))
    return '\n'.join([*lines[:at], *([lines[at]] * int(rng.integers(100, 5000))), *lines[at:]])


TextMutation = Callable[[str, Generator], str]
WAYS: tuple[TextMutation, ...] = (
    *(odd_number, odd_number, odd_word, odd_word, other_word, other_word, drop_line, double_line),
    *(indent_line, nest, alias_bomb, damaged_bytes, many_lines),
)


def damage_text(text: str, rng: Generator, most: int = 3) -> bytes:
    """Apply one to `most` ways of damage; the text is UTF-8, or was before the damage."""
    # Half of them are damaged in one place only: these are read furthest.
    for _ in range(int(rng.integers(1, most + 1)) if rng.integers(2) else 1):
        text = WAYS[int(rng.integers(len(WAYS)))](text, rng)
    return text.encode('utf-8', 'surrogateescape')
