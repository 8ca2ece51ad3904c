"""The report of a conversion: every message accounted for, ages, validity, cuts, speed.

`conversion_report.json` in the dataset's folder is about the last run alone, whatever it did. A
run that brought episodes is also kept, as one line of `meta/conversions.jsonl`: so the account of
a bag stays when a later run passes it over, and runs that bring nothing push nothing out. The
newest `HISTORY_BYTES` of it are kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qt_ros.bags.accounting import add_up
from qt_ros.bags.ages import Ages
from qt_ros.contract import Contract
from qt_ros.dataset.files import write_text

if TYPE_CHECKING:
    from qt_ros.bags.work import BagResult

REPORT = 'conversion_report.json'
HISTORY = 'meta/conversions.jsonl'
HISTORY_BYTES = 32 << 20  # some 10 000 bags


@dataclass(frozen=True)
class Cost:
    """What a run took. cpu_s: of all processes and machines, the committer's included."""

    seconds: float
    cpu_s: float
    committer_cpu_s: float


def summarise(
    results: Sequence[BagResult], contract: Contract, out: Path, status: int, cost: Cost
) -> dict[str, Any]:
    """Return the report of one run: totals first, then each bag.

    The counts of a topic add up: read = used + skipped; over all topics of a bag, read = messages.
    """
    bags = [result.report for result in results]
    episodes = [row for bag in bags for row in bag['episodes']]
    recorded_s = sum(bag['duration_s'] for bag in bags)
    return {
        'status': status,
        'dataset': str(out),
        'contract': contract.name,
        'contract_hash': contract.hash,
        'bags': {'total': len(bags), **Counter(bag['result'] for bag in bags)},
        'messages': sum(bag['messages'] for bag in bags),
        'episodes': {
            'new': len(episodes),
            'already_there': sum(bag.get('stored', 0) for bag in bags),
            'left_out': sum(bag.get('left_out', 0) for bag in bags),
            'replaced': sum(bag.get('replaced', 0) for bag in bags),  # of before, that went
            'by_outcome': dict(Counter(row['outcome'] for row in episodes)),
            'by_source': dict(Counter(row['source'] for row in episodes)),
        },
        'rows': sum(row['rows'] for row in episodes),
        'declared_ticks': sum(row['declared_ticks'] for row in episodes),
        'ticks': _totals([bag.get('ticks', {}) for bag in bags]),
        'cuts': sum(bag.get('cuts', 0) for bag in bags),
        'streams': {stream: _stream(results, stream) for stream in contract.streams},
        'topics': add_up(bag['topics'] for bag in bags),
        'recorded_s': round(recorded_s, 3),
        'seconds': round(cost.seconds, 3),
        'times_real_time': _ratio(recorded_s, cost.seconds),
        'cpu_seconds': round(cost.cpu_s, 3),
        'committer_cpu_seconds': round(cost.committer_cpu_s, 3),
        'times_real_time_per_core': _ratio(recorded_s, cost.cpu_s),
        'per_bag': bags,
    }


def write_report(out: Path, report: dict[str, Any]) -> None:
    """Write the report into the dataset's folder; keep it if the run brought episodes."""
    write_text(out / REPORT, json.dumps(report, indent=1, ensure_ascii=False))
    if not report['episodes']['new']:
        return
    kept = [json.dumps(report, ensure_ascii=False)]
    size = len(kept[0])
    for line in reversed(_lines(out / HISTORY)):
        size += len(line)
        if size > HISTORY_BYTES:
            break
        kept.append(line)
    # Written anew, not appended to: the file may be shared with a copy of the dataset.
    write_text(out / HISTORY, '\n'.join(reversed(kept)) + '\n')


def history(out: Path) -> list[dict[str, Any]]:
    """Return the reports of the runs that brought episodes, the oldest first."""
    found = []
    for line in _lines(out / HISTORY):
        # A line that someone has edited must not hide the others.
        with suppress(ValueError, RecursionError):
            found.append(json.loads(line))
    return found


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding='utf-8').split('\n') if line]
    except (FileNotFoundError, UnicodeDecodeError):
        return []


def _ratio(recorded_s: float, seconds: float) -> float:
    return round(recorded_s / seconds, 2) if seconds > 0 else 0.0


def _stream(results: Sequence[BagResult], stream: str) -> dict[str, Any]:
    """Return the ages [ms] and the share of valid rows of a stream; None without rows."""
    total = Ages()
    for result in results:
        if stream in result.ages:
            total.merge(result.ages[stream])
    counts = [r.report['streams'][stream] for r in results if 'streams' in r.report]
    return {**total.summary(), **_totals(counts)}


def _totals(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
