"""The report of a conversion: every message accounted for, ages, validity, cuts, speed."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qt_ros.bags.accounting import add_up
from qt_ros.bags.ages import Ages
from qt_ros.contract import Contract

if TYPE_CHECKING:
    from qt_ros.bags.work import BagResult

REPORT = 'conversion_report.json'


def summarise(
    results: Sequence[BagResult], contract: Contract, out: Path, status: int, seconds: float
) -> dict[str, Any]:
    """Return the report of one run: totals first, then each bag."""
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
            'by_outcome': dict(Counter(row['outcome'] for row in episodes)),
            'by_source': dict(Counter(row['source'] for row in episodes)),
        },
        'rows': sum(row['rows'] for row in episodes),
        'declared_ticks': sum(row['declared_ticks'] for row in episodes),
        'ticks': _totals([bag.get('ticks', {}) for bag in bags]),
        'cuts': sum(bag.get('cuts', 0) for bag in bags),
        'streams': {stream: _stream(results, stream) for stream in contract.streams},
        'topics': add_up(bag['topics'] for bag in bags),
        'seconds': round(seconds, 3),
        'recorded_s': round(recorded_s, 3),
        'times_real_time': round(recorded_s / seconds, 2) if seconds > 0 else 0.0,
        'per_bag': bags,
    }


def write_report(out: Path, report: dict[str, Any]) -> Path:
    """Write the report into the dataset's folder, whole or not at all."""
    path = out / REPORT
    temporary = path.with_suffix('.json.tmp')
    temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding='utf-8')
    os.replace(temporary, path)
    return path


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
