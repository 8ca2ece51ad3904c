"""The sums that every report of a conversion must keep; checked on each one that a test makes."""

from __future__ import annotations

from collections import Counter
from typing import Any


def wrong_sums(report: dict[str, Any]) -> list[str]:
    """Return what does not add up in a conversion report; empty when all of it does."""
    wrong = []
    for bag in report['per_bag']:
        wrong += [f'{bag["bag"]}: {text}' for text in _wrong_topics(bag['topics'])]
        read = sum(entry['read'] for entry in bag['topics'].values())
        if read != bag['messages']:
            wrong.append(f'{bag["bag"]}: {read} read of {bag["messages"]} messages')
        wrong += [f'{bag["bag"]}: {text}' for text in _wrong_ticks(bag)]
    wrong += _wrong_topics(report['topics'])
    for key in ('read', 'used'):
        totals: Counter[str] = Counter()
        for bag in report['per_bag']:
            totals.update({name: entry[key] for name, entry in bag['topics'].items()})
        if totals != Counter({name: entry[key] for name, entry in report['topics'].items()}):
            wrong.append(f'{key} of the topics is not the sum over the bags')
    episodes = [row for bag in report['per_bag'] for row in bag['episodes']]
    made = report['episodes']
    for name, found, expected in (
        ('messages', report['messages'], sum(bag['messages'] for bag in report['per_bag'])),
        ('bags', report['bags']['total'], len(report['per_bag'])),
        ('results', sum(report['bags'].values()), 2 * len(report['per_bag'])),
        ('episodes', made['new'], len(episodes)),
        ('outcomes', sum(made['by_outcome'].values()), len(episodes)),
        ('sources', sum(made['by_source'].values()), len(episodes)),
        ('rows', report['rows'], sum(row['rows'] for row in episodes)),
    ):
        if found != expected:
            wrong.append(f'{name}: {found}, not {expected}')
    return wrong


def _wrong_topics(topics: dict[str, Any]) -> list[str]:
    wrong = []
    for name, entry in topics.items():
        counts = [entry['read'], entry['used'], *entry['skipped'].values()]
        if any(not isinstance(count, int) or count < 0 for count in counts):
            wrong.append(f'{name} has counts {counts}')
        if entry['read'] != entry['used'] + sum(entry['skipped'].values()):
            wrong.append(f'{name} reads {entry["read"]} but accounts for {counts[1:]}')
        if not all(reason.strip() for reason in entry['skipped']):
            wrong.append(f'{name} has an empty reason')
    return wrong


def _wrong_ticks(bag: dict[str, Any]) -> list[str]:
    """Every planned tick is a row or was left out; rows that were there before are not counted."""
    ticks = bag.get('ticks')
    if not ticks or bag['result'] != 'converted' or bag['stored']:
        return []
    rows = sum(row['rows'] for row in bag['episodes'])
    lost = ticks['leading'] + ticks['in_gaps'] + ticks['without_command']
    return [] if ticks['planned'] == rows + lost else [f'{ticks} for {rows} rows']
