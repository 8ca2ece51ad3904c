"""Checks between the sections of a contract: what one says must fit what the others say."""

from __future__ import annotations

from collections.abc import Sequence

from qt_ros.contract import ActionDim, Contract, JointLimit
from qt_ros.contract_text.yaml_reader import Value, nearest

Dims = Sequence[tuple[ActionDim, str, Value]]  # each with its source and where it is written


def check_limit(dims: Dims, name: str, limit: JointLimit, value: Value) -> None:
    """Check that a limit names a dimension, and leaves it something to command."""
    names = [dim.name for dim, _, _ in dims if dim.name]
    if name not in names:
        value.problem(
            f'no action dimension is called {name!r}; the dimensions are '
            f'{", ".join(names) or "none"}{nearest(name, names)}'
        )
        return
    dim = next(dim for dim, _, _ in dims if dim.name == name)
    if limit.position is None:
        return
    if dim.mode == 'velocity':
        value.problem(
            f'{name} is a velocity, its command has no position to limit; '
            'use "velocity" (largest command) or "step" (largest change)'
        )
    elif dim.mode == 'absolute':
        low, high = limit.position
        if dim.low < dim.high and (high < dim.low or low > dim.high):
            value.problem(
                f'position [{low:g}, {high:g}] shares nothing with the action range '
                f'[{dim.low:g}, {dim.high:g}]; every command would be cut'
            )


def check_state_references(dims: Dims, contract: Contract) -> None:
    """Check that the state measures what delta, `base` and next_state dimensions refer to."""
    if not contract.state:
        return
    known = [*dict.fromkeys(f for s in contract.state for f in s.fields)]
    shown = ', '.join(known)
    for dim, source, value in dims:
        if not dim.field:
            continue
        if source == 'next_state':
            if contract.state_index(dim.field) is None:
                value.problem(
                    f'field {dim.field!r} is not in the state, from which next_state takes '
                    f'it; allowed: {shown}{nearest(dim.field, known)}'
                )
        elif dim.base and contract.state_index(dim.base) is None:
            value.problem(
                f'base {dim.base!r} is not in the state; '
                f'allowed: {shown}{nearest(dim.base, known)}'
            )
        elif dim.mode == 'delta' and contract.base_index(dim) is None:
            measured = f'position.{dim.field.removeprefix("position.")}'
            value.problem(
                f'a delta starts from the measured value, and {measured} is not in the state; '
                'add it there, or name what measures it with "base" (commands by index need '
                f'it); allowed: {shown}{nearest(measured, known)}'
            )


def check_fallback(dims: Dims, section: Value, contract: Contract) -> None:
    """Check that the fallback moves no joint to a position that nobody chose."""
    if contract.safety.fallback != 'zero':
        return
    keys = {key: value for key, value in section.entries()}
    for dim, _, _ in dims:
        limit = contract.safety.limits.get(dim.name, JointLimit()).position
        if dim.mode == 'delta' or (limit and not limit[0] <= 0.0 <= limit[1]):
            keys['fallback'].problem(
                f'zero would send {dim.name} to position 0; allowed here: hold, none'
            )


def check_start(section: Value, contract: Contract) -> None:
    """Check that the state measures what the start pose names."""
    given = dict(section.entries()).get('start')
    known = [*dict.fromkeys(f for s in contract.state for f in s.fields)]
    for name, value in given.entries() if given is not None else []:
        if contract.state_index(name) is None:
            value.problem(
                f'{name!r} is not in the state; allowed: {", ".join(known)}{nearest(name, known)}'
            )
