"""The control loop's rhythm: periods, ages, where a tick's time goes, and what was lost.

Every number is read from the `PolicyStep` messages of real runs, one row for each tick:

    episode_id  command_stamp_ns  age_s  inference_s  late
    ep_0        1_000_000_000     0.031  0.012        False   first command: no period
    ep_0        1_100_400_000     0.035  0.011        False   period 100.4 ms
    ep_1        9_000_000_000     0.030  0.012        False   another episode: no period

A period is the time between two commands of one episode. A late decision sends nothing, so the gap
that it leaves is a period of two ticks: it counts. Two periods are told apart: of decisions, each
when its first command was out; and of commands, of which there may be several for a decision.

    asked for                 counts as over budget
    t_0   t_1   t_2   t_3
    sent  late  busy  -       late: decided after the next tick. busy: nobody was free to decide.
                              -: no row, the tick itself was not reached ('missed').
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP_TYPE = 'q_transformer_ros/msg/PolicyStep'

CADENCE_KEYS = (
    'rate_hz',
    'period_std_ms',
    'period_max_ms',
    'observation_age_p50_ms',
    'observation_age_p99_ms',
    'inference_p50_ms',
)

# Where the time of a tick goes, in the order in which it passes.
PARTS = ('wait', 'decode', 'encode', 'infer', 'limit', 'publish')
OVER_BUDGET = ('late', 'busy', 'missed')  # fates of ticks whose time was not enough

NEEDED = (  # fields that the first version of the message had already
    'episode_id', 'step', 'tick', 'streams', 'stream_valid', 'observation_age_s', 'dims',
    'requested', 'command_stamp', 'late', 'q', 'inference_s',
)  # fmt: skip

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StepRow:
    """What one `PolicyStep` says about timing, and the Q-values of what was chosen."""

    episode_id: str
    step: int
    command_stamp_ns: int  # [ns]; 0: nothing was sent
    age_s: float  # command stamp minus the newest camera stamp
    inference_s: float
    late: bool
    dims: tuple[str, ...] = ()
    q: tuple[float, ...] = ()  # Q of the chosen bins, in the order of dims
    tick_ns: int = 0  # t_k [ns]; 0: not known
    fate: str = ''  # what became of the tick; '': told by `late` and the stamp
    parts_s: tuple[float, ...] = ()  # PARTS [s]; (): not measured
    command_age_s: float | None = None  # end of publishing minus the newest camera stamp
    asked_command_hz: float | None = None
    published_ns: tuple[int, ...] = ()  # when each command since the row before was out
    received: Mapping[str, int] = field(default_factory=dict)  # stream -> since the episode began
    lost: Mapping[str, int] = field(default_factory=dict)
    source: str = ''  # recording and topic: episodes of two sources are never the same

    @property
    def decided_ns(self) -> int:
        """When the first command of this decision was out [ns]; 0: nothing was sent.

        The stamp of the commands tells where the split of the tick was not measured. Otherwise it
        is that of the decision's last command, which is kept within the tick.
        """
        if not (self.command_stamp_ns and self.parts_s and self.tick_ns):
            return self.command_stamp_ns
        return self.tick_ns + round(sum(self.parts_s) * 1e9)


@dataclass(frozen=True)
class Timing:
    """The samples behind the numbers: arrays in milliseconds."""

    periods_ms: Floats  # between decisions that were sent
    ages_ms: Floats
    inference_ms: Floats
    command_periods_ms: Floats  # between all commands
    command_ages_ms: Floats


def timing(rows: Iterable[StepRow]) -> Timing:
    """Collect periods within episodes, ages of what was sent, and inference times."""
    decided: dict[tuple[str, str], list[int]] = {}
    published: dict[tuple[str, str], set[int]] = {}
    ages, command_ages, inference = [], [], []
    for row in rows:
        inference.append(row.inference_s * 1e3)
        episode = (row.source, row.episode_id)
        out_ns = row.published_ns or ((row.command_stamp_ns,) if row.command_stamp_ns else ())
        published.setdefault(episode, set()).update(out_ns)
        if row.late or row.command_stamp_ns == 0:
            continue
        decided.setdefault(episode, []).append(row.decided_ns)
        ages.append(row.age_s * 1e3)
        if row.command_age_s is not None:
            command_ages.append(row.command_age_s * 1e3)
    return Timing(
        periods_ms=_periods_ms(decided.values()),
        ages_ms=np.asarray(ages, dtype=float),
        inference_ms=np.asarray(inference, dtype=float),
        command_periods_ms=_periods_ms(published.values()),
        command_ages_ms=np.asarray(command_ages, dtype=float),
    )


def _periods_ms(episodes: Iterable[Iterable[int]]) -> Floats:
    """Return the times [ms] between the stamps [ns] of each episode, in any order."""
    periods = [np.diff(np.sort(np.fromiter(each, np.int64))) / 1e6 for each in episodes]
    return np.concatenate(periods) if periods else np.empty(0)


def cadence(rows: Iterable[StepRow]) -> dict[str, float | None]:
    """Sum up the rhythm of a run in six numbers; one that nothing was measured for is None.

    `rate_hz` is decisions sent per second of driving: one over the mean period.
    """
    return _six(timing(rows))


def _six(measured: Timing) -> dict[str, float | None]:
    periods = _spread(measured.periods_ms)
    ages = _middle(measured.ages_ms)
    return {
        'rate_hz': periods['hz'],
        'period_std_ms': periods['period_std_ms'],
        'period_max_ms': periods['period_max_ms'],
        'observation_age_p50_ms': ages['p50_ms'],
        'observation_age_p99_ms': ages['p99_ms'],
        'inference_p50_ms': _middle(measured.inference_ms)['p50_ms'],
    }


def cadence_report(rows: Iterable[StepRow]) -> dict[str, Any]:
    """Sum up the rhythm of a run: the six numbers, and

    decisions, commands   asked_hz, hz, period_std_ms, period_p99_ms, period_max_ms
    observation_age       p50_ms, p99_ms of the command's stamp minus the newest image's
    command_age           p50_ms, p99_ms of the end of publishing minus the newest image's stamp
    ticks                 total, over_budget, over_budget_share, and how many ended in which fate
    split                 {part of a tick: p50_ms, p99_ms} of decisions that were sent
    streams               {stream: received, lost, lost_share}
    """
    rows = list(rows)
    measured = timing(rows)
    split = split_ms(rows)
    return {
        'episodes': len({(row.source, row.episode_id) for row in rows}),
        **_six(measured),
        'decisions': {'asked_hz': _decisions_asked(rows), **_spread(measured.periods_ms)},
        'commands': {'asked_hz': _commands_asked(rows), **_spread(measured.command_periods_ms)},
        'observation_age': _middle(measured.ages_ms),
        'command_age': _middle(measured.command_ages_ms),
        'ticks': _ticks(rows),
        'split': {part: _middle(split[:, i]) for i, part in enumerate(PARTS)},
        'streams': _streams(rows),
    }


def split_ms(rows: Iterable[StepRow]) -> Floats:
    """Return where the time of each decision that was sent went: (N, 6) [ms] as in PARTS."""
    found = [row.parts_s for row in rows if row.parts_s and row.command_stamp_ns]
    return np.asarray(found, dtype=float).reshape(-1, len(PARTS)) * 1e3


def fate_of(row: StepRow) -> str:
    """Return what became of a row's tick."""
    return row.fate or ('late' if row.late else 'sent' if row.command_stamp_ns else 'unknown')


def words(report: Mapping[str, Any]) -> str:
    """Say a report in one line, for a log: what was asked for, what was done, what was lost."""
    parts = []
    for name, verb in (('decisions', 'decided'), ('commands', 'published')):
        rhythm = report[name]
        if rhythm['hz'] is not None:
            asked = f' of {rhythm["asked_hz"]:g}' if rhythm['asked_hz'] else ''
            parts.append(
                f'{verb} {rhythm["hz"]:.2f}{asked} Hz (std {rhythm["period_std_ms"]:.1f}, max '
                f'{rhythm["period_max_ms"]:.1f} ms)'
            )
    for name in ('observation_age', 'command_age'):
        age = report[name]
        if age['p50_ms'] is not None:
            said = name.replace('_', ' ')
            parts.append(f'{said} {age["p50_ms"]:.0f} ms, p99 {age["p99_ms"]:.0f} ms')
    ticks = report['ticks']
    parts.append(f'{ticks["over_budget"]} of {ticks["total"]} ticks over budget')
    lost = [f'{name} {each["lost"]}' for name, each in report['streams'].items() if each['lost']]
    return ', '.join(parts) + (f'; messages lost: {", ".join(lost)}' if lost else '')


def flat(report: Mapping[str, Any], prefix: str = '') -> dict[str, str]:
    """Return a report as {'commands.period_std_ms': '0.41'}, for diagnostics; None is left out."""
    found: dict[str, str] = {}
    for name, value in report.items():
        if isinstance(value, Mapping):
            found |= flat(value, f'{prefix}{name}.')
        elif value is not None:
            found[f'{prefix}{name}'] = f'{value:g}'
    return found


def _decisions_asked(rows: Sequence[StepRow]) -> float | None:
    """Return the rate [Hz] of the ticks' grid, which is the contract's."""
    newest: dict[tuple[str, str], StepRow] = {}
    periods = []
    for row in sorted((r for r in rows if r.tick_ns), key=lambda r: r.tick_ns):
        before = newest.get((row.source, row.episode_id))
        newest[row.source, row.episode_id] = row
        if before is not None and row.step > before.step:
            periods.append((row.tick_ns - before.tick_ns) / (row.step - before.step))
    return round(1e9 / float(np.median(periods)), 3) if periods else None


def _commands_asked(rows: Sequence[StepRow]) -> float | None:
    asked = [row.asked_command_hz for row in rows if row.asked_command_hz]
    return round(float(np.median(asked)), 3) if asked else None


def _ticks(rows: Sequence[StepRow]) -> dict[str, Any]:
    """Count ticks by what became of them; ticks between rows that have no row are missed."""
    fates = Counter(fate_of(row) for row in rows)
    steps: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        steps.setdefault((row.source, row.episode_id), set()).add(row.step)
    fates['missed'] += sum(max(each) - min(each) + 1 - len(each) for each in steps.values())
    total = sum(fates.values())
    over = sum(fates[fate] for fate in OVER_BUDGET)
    return {
        'total': total,
        'over_budget': over,
        'over_budget_share': round(over / total, 6) if total else None,
        **{fate: count for fate, count in sorted(fates.items()) if count},
    }


def _streams(rows: Sequence[StepRow]) -> dict[str, dict[str, Any]]:
    """Add up what each episode received and lost; its counts only grow, so the largest count."""
    largest: dict[tuple[str, str, str], tuple[int, int]] = {}
    for row in rows:
        for name, received in row.received.items():
            key = (row.source, row.episode_id, name)
            before = largest.get(key, (0, 0))
            largest[key] = (max(before[0], received), max(before[1], row.lost.get(name, 0)))
    found: dict[str, dict[str, Any]] = {}
    for (_, _, name), (received, lost) in largest.items():
        stream = found.setdefault(name, {'received': 0, 'lost': 0})
        stream['received'] += received
        stream['lost'] += lost
    for stream in found.values():
        sent = stream['received'] + stream['lost']
        stream['lost_share'] = round(stream['lost'] / sent, 6) if sent else None
    return found


def _spread(periods_ms: Floats) -> dict[str, float | None]:
    """Return rate [Hz] and std, p99, max [ms] of some periods [ms]."""
    if not periods_ms.size:
        return dict.fromkeys(('hz', 'period_std_ms', 'period_p99_ms', 'period_max_ms'))
    mean = float(periods_ms.mean())
    return {
        'hz': round(1e3 / mean, 4) if mean > 0 else None,
        'period_std_ms': round(float(periods_ms.std()), 3),
        'period_p99_ms': round(float(np.percentile(periods_ms, 99)), 3),
        'period_max_ms': round(float(periods_ms.max()), 3),
    }


def _middle(values_ms: Floats) -> dict[str, float | None]:
    """Return p50 and p99 of some times [ms]."""
    if not values_ms.size:
        return {'p50_ms': None, 'p99_ms': None}
    p50, p99 = np.percentile(values_ms, (50, 99))
    return {'p50_ms': round(float(p50), 3), 'p99_ms': round(float(p99), 3)}


def row_of(message: Any, source: str = '') -> StepRow:
    """Turn a `PolicyStep` (rclpy's object or one read from a bag) into a row.

    Recordings from before a field was added do not have it: what it says stays unknown.
    """
    parts = tuple(float(getattr(message, f'{part}_s', 0.0)) for part in PARTS)
    sent_ns = _ns(message.command_stamp)
    return StepRow(
        episode_id=str(message.episode_id),
        step=int(message.step),
        command_stamp_ns=sent_ns,
        age_s=float(message.observation_age_s),
        inference_s=float(message.inference_s),
        late=bool(message.late),
        dims=tuple(str(name) for name in message.dims),
        q=tuple(float(value) for value in message.q),
        tick_ns=_ns(message.tick),
        fate=_fate(message, sent_ns),
        parts_s=parts if any(parts) else (),
        command_age_s=float(getattr(message, 'command_age_s', 0.0)) or None,
        asked_command_hz=float(getattr(message, 'command_rate_hz', 0.0)) or None,
        published_ns=tuple(_ns(stamp) for stamp in getattr(message, 'command_stamps', ())),
        received=_counts(message, 'stream_received'),
        lost=_counts(message, 'stream_lost'),
        source=source,
    )


def _fate(message: Any, sent_ns: int) -> str:
    """Return what became of a tick.

    Older messages do not say: 'unsent' is dry or refused, 'undecided' is busy or refused.
    """
    told = str(getattr(message, 'fate', ''))
    if told or message.late or sent_ns:
        return told or ('late' if message.late else 'sent')
    if not all(message.stream_valid):
        return 'stale'
    return 'unsent' if len(message.requested) else 'undecided'


def _counts(message: Any, name: str) -> dict[str, int]:
    counts = getattr(message, name, ())
    return dict(zip(map(str, message.streams), map(int, counts), strict=False))


def _ns(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def read_steps(bags: Iterable[Path], problems: list[str] | None = None) -> list[StepRow]:
    """Read every `PolicyStep` of some recordings, in recorded order; those without add nothing.

    `problems` takes in sentences what could not be read; without it that raises `BagError`.
    """
    return [
        row_of(message, name) for bag in bags for name, message in read_messages(bag, problems)
    ]


def read_messages(path: Path, problems: list[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield (recording and topic, message) of every `PolicyStep`; `problems` as in `read_steps`.

    They are known by their type: a policy in a namespace publishes on a topic of another name.
    """
    from qt_ros.bags import BagReader, deserialize
    from qt_ros.errors import BagError

    with BagReader(path) as bag:
        topics = [name for name, info in bag.topics.items() if info.type == STEP_TYPE]
        for record in bag.messages(topics):
            try:
                message = deserialize(bag.topics[record.topic], record.data, record.topic)
                lacking = [name for name in NEEDED if not hasattr(message, name)]
                if lacking:
                    raise BagError(f'{record.topic}: a PolicyStep without {", ".join(lacking)}')
            except BagError as error:
                if problems is None:
                    raise
                problems.append(f'{path}: {error}')
                continue
            yield f'{path} {record.topic}', message
        if problems is not None and bag.partial:
            problems += [f'{path}: {problem}' for problem in bag.problems]
