"""Read YAML by hand, node by node, so that every problem is found and carries its line.

    root = read_yaml(text, 'arm.yaml', problems)
    keys = root.mapping(known=('name', 'rate_hz'), required=('name',))
    keys['rate_hz'].number(above=0.0)

A reader never raises: it notes the problem and returns None, and `Problems.raise_if_any` raises
one ContractError with all of them at the end.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from qt_ros.contract_text.yaml_limits import check_yaml
from qt_ros.errors import ContractError

MAX_CHARACTERS = 200_000  # this parser takes seconds for that many
_NULL = 'tag:yaml.org,2002:null'
_BOOL = 'tag:yaml.org,2002:bool'


class Problems:
    """What is wrong with one file: (line, text), sorted by line when raised."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, text: str) -> None:
        """Note a problem at `line`, counted from 1."""
        if (line, text) not in self._found:
            self._found.append((line, text))

    def raise_if_any(self) -> None:
        """Raise ContractError with every problem noted so far."""
        if self._found:
            ordered = sorted(self._found, key=lambda item: item[0])
            raise ContractError(f'{self.origin}:{line}: {text}' for line, text in ordered)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return '; did you mean WORD?' with the closest known word, '' where none is close."""
    options = list(known)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.55)
    if not close:
        by_case = [option for option in options if option.lower() == word.lower()]
        close = by_case[:1]
    return f'; did you mean {close[0]}?' if close else ''


class Value:
    """One YAML node with the path of keys that leads to it."""

    def __init__(self, node: Node, path: str, problems: Problems) -> None:
        self._node = node
        self.path = path
        self._problems = problems

    @property
    def line(self) -> int:
        """Line of the node, counted from 1."""
        return int(self._node.start_mark.line) + 1

    def problem(self, text: str) -> None:
        """Note what is wrong here."""
        where = f'{self.path}: ' if self.path else ''
        self._problems.add(self.line, where + text)

    @property
    def is_null(self) -> bool:
        """Whether the value was left empty."""
        return isinstance(self._node, ScalarNode) and self._node.tag == _NULL

    @property
    def is_mapping(self) -> bool:
        """Whether this is a mapping of keys to values."""
        return isinstance(self._node, MappingNode)

    @property
    def written(self) -> str:
        """The scalar as it is written, '' for anything else."""
        return str(self._node.value) if isinstance(self._node, ScalarNode) else ''

    def text(self) -> str | None:
        """Return the scalar as it is written; `0`, `on` and `"0"` are all text here."""
        if not isinstance(self._node, ScalarNode) or self.is_null or not self._node.value:
            self.problem('needs a text')
            return None
        return str(self._node.value)

    def choice(self, allowed: Sequence[str], what: str = 'value') -> str | None:
        """Return the text if it is one of `allowed`."""
        text = self.text()
        if text is None or text in allowed:
            return text
        self.problem(
            f'unknown {what} {text!r}; allowed: {", ".join(allowed)}{nearest(text, allowed)}'
        )
        return None

    def boolean(self) -> bool | None:
        """Return true or false."""
        if isinstance(self._node, ScalarNode) and self._node.tag == _BOOL:
            return self._node.value.lower() in ('true', 'yes', 'on')
        self.problem('needs true or false')
        return None

    def number(
        self,
        above: float | None = None,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> float | None:
        """Return a finite float within the limits that are given; `above` itself is outside."""
        limits = [f'> {above:g}'] if above is not None else []
        limits += [f'>= {at_least:g}'] if at_least is not None else []
        limits += [f'<= {at_most:g}'] if at_most is not None else []
        allowed = 'allowed: a finite number' + ''.join(f' {limit}' for limit in limits)
        number = _to_float(self._node)
        if number is None:
            self.problem(f'{self._shown()} is not a number; {allowed}')
            return None
        low_ok = (above is None or number > above) and (at_least is None or number >= at_least)
        high_ok = at_most is None or number <= at_most
        if not math.isfinite(number) or not low_ok or not high_ok:
            self.problem(f'{self._shown()} is out of range; {allowed}')
            return None
        return number

    def integer(self, low: int, high: int) -> int | None:
        """Return a whole number from `low` to `high`."""
        number = _to_float(self._node)
        if number is None or not math.isfinite(number) or number != int(number):
            self.problem(f'{self._shown()} is not a whole number; allowed: {low} to {high}')
            return None
        if not low <= number <= high:
            self.problem(f'{self._shown()} is out of range; allowed: {low} to {high}')
            return None
        return int(number)

    def items(self, at_least: int = 1) -> list[Value]:
        """Return the entries of a list; [] with a problem where it is none or too short."""
        if not isinstance(self._node, SequenceNode):
            self.problem('needs a list, e.g. "- ..." lines or [a, b]')
            return []
        if len(self._node.value) < at_least:
            self.problem(f'needs at least {at_least} entry')
        return [
            Value(node, f'{self.path}[{i}]', self._problems)
            for i, node in enumerate(self._node.value)
        ]

    def pair(self, read: str = 'number') -> tuple[Value, Value] | None:
        """Return the two entries of a list such as [low, high]."""
        if not isinstance(self._node, SequenceNode) or len(self._node.value) != 2:
            self.problem(f'needs a list of two {read}s')
            return None
        first, second = self.items()
        return first, second

    def entries(self) -> list[tuple[str, Value]]:
        """Return (key, value) in order for a mapping with free keys; a repeated key is noted."""
        if not isinstance(self._node, MappingNode):
            self.problem('needs "key: value" entries')
            return []
        found: dict[str, Value] = {}
        for key_node, node in self._node.value:
            key_value = Value(key_node, self.path, self._problems)
            if not isinstance(key_node, ScalarNode):
                key_value.problem('keys must be plain text')
                continue
            key = str(key_node.value)
            child = Value(node, f'{self.path}.{key}' if self.path else key, self._problems)
            if key in found:
                key_value.problem(f'{key} is given twice (first in line {found[key].line})')
            else:
                found[key] = child
        return list(found.items())

    def mapping(self, known: Sequence[str], required: Sequence[str] = ()) -> dict[str, Value]:
        """Return {key: value}; unknown, repeated and missing keys are noted, empty left out."""
        if not isinstance(self._node, MappingNode):
            self.problem(f'needs "key: value" entries; known keys: {", ".join(known)}')
            return {}
        found: dict[str, Value] = {}
        for key, value in self.entries():
            if key in known:
                found[key] = value
            else:
                value.problem(f'unknown key; known keys: {", ".join(known)}{nearest(key, known)}')
        for key in required:
            if key not in found:
                self.problem(f'key {key!r} is missing')
            elif found[key].is_null:
                found[key].problem('is empty')
        return {key: value for key, value in found.items() if not value.is_null}

    def _shown(self) -> str:
        return repr(self._node.value) if isinstance(self._node, ScalarNode) else 'this'


def read_yaml(text: str, problems: Problems) -> Value:
    """Parse YAML text; ContractError at once where it is no YAML at all or empty."""
    if len(text) > MAX_CHARACTERS:
        problems.add(1, f'has {len(text)} characters; at most {MAX_CHARACTERS} are read')
        problems.raise_if_any()
    try:
        check_yaml(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.add(mark.line + 1 if mark else 1, f'not valid YAML: {error.problem}')
        problems.raise_if_any()
        raise
    except yaml.YAMLError as error:
        problems.add(1, f'not valid YAML: {error}')
        problems.raise_if_any()
        raise
    if node is None:
        problems.add(1, 'the file is empty; start from config/robots/block_arm.yaml')
        problems.raise_if_any()
    assert node is not None
    return Value(node, '', problems)


def _to_float(node: Node) -> float | None:
    if not isinstance(node, ScalarNode) or node.tag in (_NULL, _BOOL) or node.style in ('"', "'"):
        return None
    try:
        return float(node.value)  # also reads 1e-3, which YAML 1.1 takes for text
    except ValueError:
        return {'.inf': math.inf, '-.inf': -math.inf, '.nan': math.nan}.get(node.value.lower())
