"""The action and the limits of a suggested contract, with ranges taken from the recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qt_ros import message_types as types
from qt_ros.bags.guesses import Guess, is_gripper
from qt_ros.bags.recorded_numbers import Numbers
from qt_ros.bags.suggest_text import Names, identifier, quoted

BINS = 129  # odd: one bin is exactly the middle
STILL = 1e-4  # what moved less did not move
MARGIN = 0.1  # limits are so much wider than what was recorded
_UNSURE = 10  # ticks of which no range can be told

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Dim:
    """One dimension of the action, and its values at ticks, (T,)."""

    name: str
    field: str
    mode: str
    values: Floats

    @property
    def steps(self) -> Floats:
        """The changes from tick to tick, (T - 1,) or fewer."""
        steps = np.diff(self.values)
        return steps[np.isfinite(steps)]

    @property
    def moved(self) -> bool:
        """True if it did, as far as there are ticks to tell."""
        return (
            len(self.steps) < _UNSURE
            or float(np.ptp(self.values[np.isfinite(self.values)])) > STILL
        )


class ActionLines:
    """The lines of `action:` and `safety:` for a guess."""

    def __init__(self, guessed: Guess) -> None:
        self._guess = guessed
        self._names = Names('terminate')
        self._measured = {
            field for item in guessed.state if not item.by_index for field in item.fields
        }
        self._rate_hz = guessed.rate_hz
        sources = guessed.commands or guessed.state[:1]
        self._topics = [(item, self._dims(item)) for item in sources]

    def lines(self) -> list[str]:
        """Take commands that were recorded; without any, derive them from the next state."""
        lines = ['action:  # low and high: 1st and 99th percentile of the recording, per tick']
        for item, dims in self._topics:
            if self._guess.next_state:
                lines.append(
                    '  - from: next_state  # no commands were recorded: the action is where'
                )
                lines.append('    dims:             # the joints go next')
            else:
                lines.append(f'  - topic: {_topic(item.topic)}  # guess: {_why(item)}')
                lines.append(f'    type: {item.type}')
                if item.by_index:
                    lines.append('    by_index: true  # the message names no joints')
                lines.append('    dims:')
            lines += self._dim_lines(dims)
        if self._guess.spare:
            spare = ', '.join(item.topic for item in self._guess.spare)
            lines.append(f'  # Recorded too, and not taken: {spare}. A joint needs one command.')
        return lines

    def safety_lines(self) -> list[str]:
        """Write limits a little wider than what was recorded, where enough was."""
        limits = [
            f'    {dim.name}: {limit}'
            for _, dims in self._topics
            for dim in dims
            if self._kept(dim) and (limit := self._limit(dim))
        ]
        if not limits:
            return [
                'safety:',
                '  limits: {}  # nothing protects the robot: add position, velocity and step',
            ]
        return [
            'safety:',
            '  limits:  # guess: what the recording kept to, and a tenth more; check them!',
            *limits,
        ]

    def _dims(self, item: Numbers) -> list[_Dim]:
        """Make one dimension of each field: a delta where the state measures its start."""
        dims = []
        for column, field in enumerate(item.fields):
            values = item.values[:, column]
            if item.type in (types.TWIST, types.TWIST_STAMPED, types.JOINT_JOG):
                mode = 'velocity' if not field.startswith('displacement') else 'absolute'
            elif not item.by_index and {field, f'position.{field}'} & self._measured:
                mode = 'delta' if not field.isdigit() else 'absolute'
            else:
                mode = 'absolute'
            short = field.partition('.')[2] if field.startswith('position.') else field
            name = identifier(short)
            if not name.strip('_0123456789') or item.by_index:
                name = identifier(f'{item.topic.rsplit("/", 1)[-1]}_{short}')
            dims.append(_Dim(self._names.new(name), field, mode, values))
        return dims

    def _kept(self, dim: _Dim) -> bool:
        """Leave out, of the next state, what did not move and wheels, which turn without end."""
        return not self._guess.next_state or (dim.moved and 'wheel' not in dim.name.lower())

    def _dim_lines(self, dims: Sequence[_Dim]) -> list[str]:
        kept = [dim for dim in dims if self._kept(dim)] or list(dims)
        notes = {_range(dim)[2] for dim in kept}
        same = notes.pop() if len(notes) == 1 and len(kept) > 1 else ''
        lines = [f'      # {same}'] if same else []
        for dim in dims:
            low, high, note = _range(dim)
            note = '' if note == same else f'  # {note}'
            bins = 2 if _is_switch(dim) else BINS
            line = (
                f'{{name: {dim.name}, field: {quoted(dim.field)}, mode: {dim.mode},'
                f' low: {low:.6g}, high: {high:.6g}, bins: {bins}}}'
            )
            if dim in kept:
                lines.append(f'      - {line}{note}')
            else:
                why = 'it did not move' if not dim.moved else 'a wheel'
                lines.append(f'      # - {line}  # left out: {why}')
        return lines

    def _limit(self, dim: _Dim) -> str:
        values = dim.values[np.isfinite(dim.values)]
        steps = np.abs(dim.steps)
        if len(steps) < _UNSURE or not dim.moved:
            return ''
        step = float(steps.max()) * (1 + MARGIN)
        parts = []
        if dim.mode != 'velocity':
            low, high = float(values.min()), float(values.max())
            wider = MARGIN * (high - low)
            parts.append(f'position: [{low - wider:.4g}, {high + wider:.4g}]')
            parts.append(f'velocity: {step * self._rate_hz:.3g}')
        else:
            parts.append(f'velocity: {float(np.abs(values).max()) * (1 + MARGIN):.3g}')
        if not _is_switch(dim):
            parts.append(f'step: {step:.3g}')
        return f'{{{", ".join(parts)}}}'


def _is_switch(dim: _Dim) -> bool:
    """Return True if the values are two only, as those of many grippers."""
    values = dim.values[np.isfinite(dim.values)]
    return dim.mode == 'absolute' and len(values) > _UNSURE and len(np.unique(values)) == 2


def _range(dim: _Dim) -> tuple[float, float, str]:
    """Return low, high and a remark; what never moved gets a range all the same."""
    numbers = dim.steps if dim.mode == 'delta' else dim.values[np.isfinite(dim.values)]
    if len(dim.steps) < _UNSURE:
        return *_placeholder(dim), 'a placeholder: too few messages tell no range'
    low, high = (float(each) for each in np.percentile(numbers, (1, 99)))
    note = f'measured {low:.3g} to {high:.3g}'
    if dim.mode == 'absolute':
        if _is_switch(dim):
            low, high = float(numbers.min()), float(numbers.max())
            note = 'only these two values were sent'
        low, high = float(f'{low:.4g}'), float(f'{high:.4g}')
        if high - low < STILL:
            return *_placeholder(dim), f'{note}: it hardly moved, leave it out?'
        return low, high, note
    # A symmetric range with an odd number of bins has one that means "stay".
    reach = float(f'{max(abs(low), abs(high)):.3g}')
    if reach < STILL:
        return *_placeholder(dim), f'{note}: it hardly moved, leave it out?'
    return -reach, reach, note


def _placeholder(dim: _Dim) -> tuple[float, float]:
    """Return a small range around what the dimension was."""
    known = dim.values[np.isfinite(dim.values)]
    middle = float(f'{known[0]:.4g}') if dim.mode == 'absolute' and len(known) else 0.0
    reach = max(0.1, abs(middle) / 100)
    return middle - reach, middle + reach


def _why(item: Numbers) -> str:
    if item.type == types.JOINT_TRAJECTORY:
        return 'a trajectory is a command'
    return 'a gripper' if is_gripper(item.topic) else 'its name says command'


def _topic(name: str) -> str:
    return quoted(name if name.startswith('/') else f'/{name}')
