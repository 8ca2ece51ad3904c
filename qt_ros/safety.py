"""The last word before a command goes out: a limiter, a watchdog and a fallback.

Pure state machines: time comes in as a number, nothing here waits, logs or publishes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qt_ros.contract import Contract, JointLimit

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Limited:
    """What the limiter let through."""

    targets: Vector  # (A,) NaN only where nothing finite is known yet
    reasons: tuple[str, ...]  # per dimension: '' or e.g. 'position+step'


class Limiter:
    """Keeps targets within the contract's limits, dimension by dimension.

    Order: finite (a NaN or infinite target repeats the last one), position range, largest step,
    largest velocity. The last two count from the last target that was let through. As that one
    was in range and each rule only moves a target towards it, what goes out respects all of them.
    A `velocity` dimension is itself a velocity: there the velocity limit caps its magnitude.
    """

    def __init__(self, contract: Contract) -> None:
        limits = [contract.safety.limits.get(d.name, JointLimit()) for d in contract.action_dims]
        positions = [limit.position or (-np.inf, np.inf) for limit in limits]
        self._low = np.array([low for low, _ in positions], dtype=np.float64)
        self._high = np.array([high for _, high in positions], dtype=np.float64)
        self._step = _or_infinite([limit.step for limit in limits])
        velocity = _or_infinite([limit.velocity for limit in limits])
        is_velocity = np.array([d.mode == 'velocity' for d in contract.action_dims], dtype=bool)
        self._velocity = np.where(is_velocity, np.inf, velocity)
        self._magnitude = np.where(is_velocity, velocity, np.inf)
        self._last: Vector = np.full(len(limits), np.nan)

    @property
    def last(self) -> Vector:
        """The targets let through last, (A,); NaN where there are none yet."""
        return self._last.copy()

    def reset(self, targets: Vector) -> None:
        """Start from these targets (A,), moved into range; NaN: unknown, the first may be any."""
        targets = self._checked(targets)
        known = np.where(np.isfinite(targets), targets, np.nan)
        self._last = self._in_magnitude(self._in_position(known))

    def limit(self, targets: Vector, dt_s: float) -> Limited:
        """Return `targets` (A,) within limits, `dt_s` [s] after the previous call.

        A `dt_s` that is not positive allows no movement where a velocity limit holds.
        """
        wanted = self._checked(targets)
        finite = np.where(np.isfinite(wanted), wanted, self._last)
        position = self._in_position(finite)
        step = self._near_last(position, self._step)
        allowed = self._allowed(dt_s)
        velocity = self._in_magnitude(self._near_last(step, allowed))
        self._last = velocity
        reasons = {
            'nonfinite': ~np.isfinite(wanted),
            'position': _differs(position, finite),
            'step': _differs(step, position),
            'velocity': _differs(velocity, step),
        }
        joined = tuple(
            '+'.join(name for name, hit in reasons.items() if hit[i]) for i in range(len(wanted))
        )
        return Limited(velocity.copy(), joined)

    def _allowed(self, dt_s: float) -> Vector:
        """Largest movement within `dt_s` [s], (A,); infinite where no velocity limit holds."""
        if not dt_s > 0:  # NaN too
            return np.where(np.isfinite(self._velocity), 0.0, np.inf)
        with np.errstate(over='ignore'):
            return self._velocity * dt_s

    def _in_position(self, targets: Vector) -> Vector:
        return np.clip(targets, self._low, self._high)

    def _in_magnitude(self, targets: Vector) -> Vector:
        return np.clip(targets, -self._magnitude, self._magnitude)

    def _near_last(self, targets: Vector, distance: Vector) -> Vector:
        """Move each target to within `distance` of the last one, where that is known."""
        near = np.clip(targets, self._last - distance, self._last + distance)
        return np.where(np.isnan(self._last), targets, near)

    def _checked(self, targets: Vector) -> Vector:
        found = np.asarray(targets, dtype=np.float64)
        if found.shape != self._last.shape:
            raise ValueError(f'targets of shape {found.shape}; needed: {self._last.shape}')
        return found


class Watchdog:
    """Says when nothing has come for `timeout_s`; it starts to count at the first `feed`."""

    def __init__(self, timeout_s: float, fallback: str) -> None:
        self.timeout_ns = round(timeout_s * 1e9)
        self.fallback = fallback  # what to do then: hold | zero | none
        self._fed_ns: int | None = None

    def feed(self, now_ns: int) -> None:
        """Note that a decision came at `now_ns` (steady clock)."""
        self._fed_ns = int(now_ns)

    def expired(self, now_ns: int) -> bool:
        """Say whether the last feed is longer than the timeout ago; never before the first."""
        return self._fed_ns is not None and int(now_ns) - self._fed_ns > self.timeout_ns


def fallback_targets(contract: Contract, last: Vector) -> Vector | None:
    """Return the targets (A,) to send when decisions stop coming, None: send nothing.

    hold: the last targets again, and 0 for velocities, for a held velocity would be a movement.
    zero: 0 everywhere. none: nothing. Where `last` is not known there is nothing to hold: None.
    """
    fallback = contract.safety.fallback
    if fallback == 'none':
        return None
    zeros = np.zeros(len(contract.action_dims))
    if fallback == 'zero':
        return zeros
    is_velocity = [dim.mode == 'velocity' for dim in contract.action_dims]
    targets = np.where(is_velocity, zeros, np.asarray(last, dtype=np.float64))
    return targets if np.isfinite(targets).all() else None


def _or_infinite(values: list[float | None]) -> Vector:
    return np.array([np.inf if v is None else v for v in values], dtype=np.float64)


def _differs(after: Vector, before: Vector) -> NDArray[np.bool_]:
    return (after != before) & ~np.isnan(before)
