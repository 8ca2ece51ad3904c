"""The last word before a command goes out: a limiter, a watchdog and a fallback.

Pure state machines: time comes in as a number, nothing here waits, logs or publishes.

The limiter takes each dimension on its own. What comes first wins, and what comes later is kept
wherever that leaves it a choice:

1. finite        a target that is NaN or infinite is taken for the last one: the robot stops
2. position      a target outside the range is taken for the nearest one inside
3. step          largest change from one command to the next
4. velocity      largest change per second
5. acceleration  largest change of that speed per second

None of 1 to 4 can demand what another forbids: each only brings the target nearer to the last one.
Acceleration can, for it forbids to stop at once. Towards the end of the range the speed therefore
stays below sqrt(2 a d), a the acceleration and d the way that is left: from there the robot can
stop in time, at whatever times commands come. So only a step that takes longer than the one before
can ask for harder braking, and then it gets it.

    speed        ____
                /    \\___            towards a target that stands, the same holds: the robot
          _____/         \\_____      arrives there slowly, and does not shoot over it
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qt_ros.contract import Contract, JointLimit

Vector = NDArray[np.float64]
FAR = 1e100  # beyond it squares overflow; no robot goes there
SHORTEST_S = 1e-9  # the clocks' last digit; what is shorter is no time at all


@dataclass(frozen=True, eq=False)
class Limited:
    """What the limiter let through."""

    targets: Vector  # (A,) NaN only where nothing finite is known yet
    reasons: tuple[str, ...]  # per dimension: '' or e.g. 'position+step'


class Limiter:
    """Keeps targets within the contract's limits, and remembers the last ones and their speed.

    A start outside of the range is come back from within the other limits: no command is further
    out than the one before. A `velocity` dimension is itself a velocity: there the velocity limit
    caps its magnitude, and the acceleration limit its change.
    """

    def __init__(self, contract: Contract) -> None:
        limits = [contract.safety.limits.get(d.name, JointLimit()) for d in contract.action_dims]
        positions = [limit.position or (-np.inf, np.inf) for limit in limits]
        self._low = np.array([low for low, _ in positions], dtype=np.float64)
        self._high = np.array([high for _, high in positions], dtype=np.float64)
        self._step = _or_infinite([limit.step for limit in limits])
        velocity = _or_infinite([limit.velocity for limit in limits])
        acceleration = _or_infinite([limit.acceleration for limit in limits])
        is_velocity = np.array([d.mode == 'velocity' for d in contract.action_dims], dtype=bool)
        self._is_velocity = is_velocity
        # What bounds the change per second of the number that is commanded.
        self._rate = np.where(is_velocity, acceleration, velocity)
        self._magnitude = np.where(is_velocity, velocity, np.inf)
        self._acceleration = np.where(is_velocity, np.inf, acceleration)
        self._period_s = 1.0 / contract.rate_hz
        self._last: Vector = np.full(len(limits), np.nan)
        self._speed: Vector = np.zeros(len(limits))  # of the last command, per second

    @property
    def last(self) -> Vector:
        """The targets let through last, (A,); NaN where there are none yet."""
        return self._last.copy()

    def reset(self, targets: Vector) -> None:
        """Start at rest from these targets (A,); NaN: unknown, the first may be any."""
        targets = self._checked(targets)
        known = np.where(np.isfinite(targets), targets, np.nan)
        self._last = np.clip(known, -self._magnitude, self._magnitude)
        self._speed = np.zeros(len(known))

    def limit(self, targets: Vector, dt_s: float, speed: Vector | None = None) -> Limited:
        """Return `targets` (A,) within limits, `dt_s` [s] after the previous call.

        A `dt_s` below a nanosecond allows no movement where speed is limited. One of more than a
        period counts as a period, and after more than two of them the robot has come to rest.
        speed: (A,) per second, with which the targets themselves move; a limited acceleration
        follows them at that speed, and brakes for a target that stands.
        """
        wanted = self._checked(targets)
        known = ~np.isnan(self._last)
        if not dt_s <= 2 * self._period_s:  # NaN too
            self._speed = np.zeros(len(wanted))
        dt_s = min(dt_s, self._period_s) if dt_s >= SHORTEST_S else 0.0
        with np.errstate(all='ignore'):  # infinite limits, and numbers that overflow
            finite = np.where(np.isfinite(wanted), wanted, self._last)
            position = np.clip(finite, self._low, self._high)
            step = self._near_last(position, self._step)
            slow = np.clip(step, -self._magnitude, self._magnitude)
            change = np.where(np.isfinite(self._rate), self._rate * dt_s, np.inf)
            rate = self._near_last(slow, change)
            moving = np.zeros(1) if speed is None else np.nan_to_num(speed)
            out = self._accelerated(rate, dt_s, moving)
            if dt_s:
                self._speed = np.where(known, (out - self._last) / dt_s, 0.0)
        self._last = out
        hits = {
            'nonfinite': ~np.isfinite(wanted),
            'position': _differs(position, finite),
            'step': _differs(step, position),
            'velocity': np.where(self._is_velocity, _differs(slow, step), _differs(rate, slow)),
            'acceleration': np.where(self._is_velocity, _differs(rate, slow), _differs(out, rate)),
        }
        changed = out != wanted  # limits that undid each other limited nothing
        joined = tuple(
            '+'.join(name for name, hit in hits.items() if hit[i] and changed[i])
            for i in range(len(wanted))
        )
        return Limited(out.copy(), joined)

    def _accelerated(self, targets: Vector, dt_s: float, moving: Vector) -> Vector:
        """Return where the acceleration limits lead on the way to `targets`."""
        limited = np.isfinite(self._acceleration) & ~np.isnan(self._last)
        if not limited.any():
            return targets
        if not dt_s:
            return np.where(limited, self._last, targets)
        a = np.where(limited, self._acceleration, 1.0)
        # As fast as still allows to meet the target at its own speed, as far as that is allowed...
        ahead = targets - self._last - moving * dt_s
        speed = moving + np.sign(ahead) * _braking(np.abs(ahead), a, dt_s)
        speed = np.clip(speed, self._speed - a * dt_s, self._speed + a * dt_s)
        # ... and what wins over that: velocity, step and the end of the range.
        most = np.minimum(self._rate, self._step / dt_s)
        up = np.minimum(_braking(np.maximum(self._high - self._last, 0.0), a, dt_s), most)
        down = np.minimum(_braking(np.maximum(self._last - self._low, 0.0), a, dt_s), most)
        out = self._last + np.clip(speed, -down, up) * dt_s
        # Rounding must not carry it out of the range, or further out.
        low, high = np.minimum(self._low, self._last), np.maximum(self._high, self._last)
        return np.where(limited, np.clip(out, low, high), targets)

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


def _braking(way: Vector, a: Vector, dt_s: float) -> Vector:
    """Return the largest speed over the next `dt_s` from which braking at `a` ends within `way`.

    It solves v * dt + v**2 / (2 * a) = way. Braking in steps, however long, goes no further than
    braking evenly. An infinite way allows any speed.
    """
    gained = a * dt_s
    # The same as sqrt(gained**2 + 2 * a * way) - gained, without its loss of digits.
    return np.where(way > FAR, np.inf, 2 * a * way / (gained + np.sqrt(gained**2 + 2 * a * way)))


def _or_infinite(values: list[float | None]) -> Vector:
    return np.array([np.inf if v is None else v for v in values], dtype=np.float64)


def _differs(after: Vector, before: Vector) -> NDArray[np.bool_]:
    return (after != before) & ~np.isnan(before)
