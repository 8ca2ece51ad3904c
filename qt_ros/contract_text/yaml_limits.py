"""Refuse YAML that would exhaust its reader: nesting without end, aliases that multiply.

Parsers compose nested values by recursion; libyaml's crashes the process where Python's would
raise. So the events, which come one after the other, are looked at first.
"""

from __future__ import annotations

from typing import Any

import yaml

MAX_DEPTH = 100
GROWTH = 10  # aliases may write a text out to this many times its length ...
LEAST = 1_000_000  # ... or to this many characters
LOADER: Any = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


class TooMuchError(yaml.YAMLError):
    """YAML that nobody writes by hand or by program."""


def check_yaml(text: str | bytes) -> None:
    """Raise `yaml.YAMLError` if the text is no YAML, or more of it than a reader can take.

    `a: &x [b, b]`, `c: &y [*x, *x]`, ... doubles with each line: a kilobyte means gigabytes.
    """
    limit = GROWTH * len(text) + LEAST
    sizes: dict[Any, int] = {}  # {anchor: characters that its value is written with}
    unfinished: list[tuple[str | None, int]] = []
    total = 0  # of the innermost value that is not finished
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent):
            total += sizes.get(event.anchor, 1)  # 1: refers to what it is a part of
        elif isinstance(event, yaml.ScalarEvent):
            total += 1 + len(event.value)
            if event.anchor:
                sizes[event.anchor] = 1 + len(event.value)
        elif isinstance(event, yaml.CollectionStartEvent):
            unfinished.append((event.anchor, total))
            total = 1
            if len(unfinished) > MAX_DEPTH:
                raise TooMuchError(f'nested more than {MAX_DEPTH} deep')
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = unfinished.pop()
            if anchor:
                sizes[anchor] = total
            total += before
        if total > limit:
            raise TooMuchError(f'its aliases multiply to more than {limit} characters')


def load_yaml(text: str | bytes) -> Any:
    """Return plain data; raise `yaml.YAMLError` for whatever is wrong with the text.

    With the C parser where there is one: it is 10 times faster.
    """
    check_yaml(text)
    try:
        return yaml.load(text, Loader=LOADER)  # a safe loader: plain data only
    except (ValueError, OverflowError, RecursionError) as exc:
        # Numbers of thousands of digits, dates that do not exist.
        raise yaml.YAMLError(f'a value cannot be read: {exc}') from exc
