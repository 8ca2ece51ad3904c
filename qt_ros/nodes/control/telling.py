"""What the control loop counts and tells: every tick once, every condition once per edge."""

from __future__ import annotations

from dataclasses import replace

from qt_ros.interlocks import Edges
from qt_ros.nodes.control.outputs import Outputs
from qt_ros.nodes.control.records import StepRecord
from qt_ros.nodes.control.timing import LoopStats

Reports = list[tuple[str, StepRecord]]  # fate, record


class Telling:
    """Counts for the episode and in total, and hands reports out."""

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self.total = LoopStats()
        self.edges = Edges()
        self.begin()

    def begin(self) -> None:
        """Start to count an episode."""
        self.episode = LoopStats()
        self._published_ns = 0  # when the last command was published
        self._told_ns = 0  # stamp of the last command of the last report
        self._stamps: list[int] = []  # when commands were published since the last report

    @property
    def _both(self) -> tuple[LoopStats, LoopStats]:
        return self.episode, self.total

    def missed(self, ticks: int) -> None:
        """Count ticks that were not reached in time."""
        for stats in self._both:
            stats.fates['missed'] += ticks

    def finished(self, fault: bool, fell_back: bool) -> None:
        """Count an episode's end by a fault, and with the fallback."""
        for stats in self._both:
            stats.faults += fault
            stats.fallbacks += fell_back

    def published(self, now_ns: int, took_s: float) -> None:
        """Note commands that were published from `now_ns` on and took so long."""
        if self._published_ns:
            for stats in self._both:
                stats.period_s.add((now_ns - self._published_ns) / 1e9)
        self._published_ns = now_ns
        self._stamps.append(now_ns + round(took_s * 1e9))

    def report(self, reports: Reports) -> None:
        """Tell what became of ticks."""
        for fate, record in reports:
            period_ns = 0
            if record.command_ns:
                period_ns = record.command_ns - self._told_ns if self._told_ns else 0
                self._told_ns = record.command_ns
            stamps, self._stamps = tuple(self._stamps), []
            told = replace(record, fate=fate, stamps_ns=stamps, period_ns=period_ns)
            for stats in self._both:
                stats.record(fate, told)
            self._outputs.report(told)

    def notice(self, present: set[str]) -> None:
        """Tell which conditions began and which ended."""
        began, ended = self.edges.update(present)
        if began or ended:
            self._outputs.noticed(began, ended)
