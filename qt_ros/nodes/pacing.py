"""How far a simulator may run: with the wall clock, or in step with whoever drives it.

In lockstep, while an episode is driven,

    hold = stamp of the last complete command + one period

rounded down to physics steps, so the simulator waits for its driver however slow, and the driver
never waits for more than the computation. Sensors captured at the hold itself would be published
after it; time therefore moves one step past them before it stands still. Nobody driving, it runs
with the wall clock.
"""

from __future__ import annotations

from collections.abc import Callable

IDLE_SLACK_NS = 20_000_000
PATIENCE_NS = 5_000_000_000  # wall time after which a silent driver counts as gone


class WallPace:
    """Follows the wall clock; after a stall time goes on from where it was.

    wall_ns: a clock that never runs backwards (ns).
    """

    SLACK_NS = 200_000_000

    def __init__(self, wall_ns: Callable[[], int], time_ns: int, slack_ns: int = SLACK_NS) -> None:
        """slack_ns: behind by more than this, the lost time is given up."""
        self._wall_ns = wall_ns
        self._slack_ns = slack_ns
        self.given_up_ns = 0
        self.restart(time_ns)

    def restart(self, time_ns: int) -> None:
        """Let `time_ns` be now."""
        self._offset_ns = time_ns - self._wall_ns()

    def until_ns(self, time_ns: int) -> int:
        """Return how far a simulator that stands at `time_ns` may run."""
        now_ns = self._wall_ns() + self._offset_ns
        lost_ns = now_ns - time_ns - self._slack_ns
        if lost_ns > 0:
            self._offset_ns -= lost_ns
            self.given_up_ns += lost_ns
            now_ns -= lost_ns
        return now_ns


class Lockstep:
    """Waits for the driver of an episode; arm and gripper command of a tick both count.

    Times are simulated time (ns) unless they say wall.
    """

    def __init__(
        self,
        wall_ns: Callable[[], int],
        time_ns: int,
        period_ns: int,
        step_ns: int,
        captured_at: Callable[[int], bool],
    ) -> None:
        """captured_at(time_ns): whether sensors are captured at that time."""
        self._wall_ns = wall_ns
        # Little slack: no leap may carry time past the first tick of an episode that just began.
        self._idle = WallPace(wall_ns, time_ns, IDLE_SLACK_NS)
        self._period_ns = period_ns
        self._step_ns = step_ns
        self._captured_at = captured_at
        self._hold_ns: int | None = None  # None: nobody drives
        self._arm_stamp_ns = 0
        self._arm_count = self._gripper_count = 0
        self._heard_ns = 0  # wall

    @property
    def driven(self) -> bool:
        """True while somebody drives."""
        return self._hold_ns is not None

    def begin(self, stamp_ns: int) -> None:
        """An episode starts at this stamp; its first command is due within a period."""
        self._arm_count = self._gripper_count = 0
        self._move_hold(stamp_ns)

    def end(self, time_ns: int) -> None:
        """Nobody drives any more; go on with the wall clock."""
        self._hold_ns = None
        self._arm_count = self._gripper_count = 0
        self._idle.restart(time_ns)

    def arm_command(self, stamp_ns: int) -> None:
        """An arm command with this stamp has come."""
        self._arm_count += 1
        self._arm_stamp_ns = stamp_ns
        self._commanded()

    def gripper_command(self) -> None:
        """A gripper command has come."""
        # The one of the next tick may come first; more than that do not count for later ones.
        self._gripper_count = min(self._gripper_count, self._arm_count) + 1
        self._commanded()

    def until_ns(self, time_ns: int) -> int:
        """Return how far a simulator that stands at `time_ns` may run."""
        if self._hold_ns is None:
            return self._idle.until_ns(time_ns)
        return max(self._hold_ns, time_ns)

    def abandoned(self) -> bool:
        """Say whether the driver has been silent for too long."""
        return self.driven and self._wall_ns() - self._heard_ns > PATIENCE_NS

    def _commanded(self) -> None:
        self._heard_ns = self._wall_ns()
        if self._arm_count and self._gripper_count >= self._arm_count:
            self._move_hold(self._arm_stamp_ns)

    def _move_hold(self, stamp_ns: int) -> None:
        self._heard_ns = self._wall_ns()
        hold_ns = (stamp_ns + self._period_ns) // self._step_ns * self._step_ns
        if self._captured_at(hold_ns):
            hold_ns += self._step_ns
        self._hold_ns = max(hold_ns, self._hold_ns or 0)
