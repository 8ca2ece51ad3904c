"""Episode rows that another program wrote: LeRobot resuming the set, or an older version of this.

They lack some of our columns. A reader completes them in passing; a writer puts the completed rows
in their place when it opens the set (`recovery`), so that all rows have the same columns from then
on, which `datasets` (LeRobot's loader) asks of the files of one folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

NO_DIGEST = 'statistics:'  # begins a digest that names the content without the rows' own bytes


def complete(row: Mapping[str, Any], contract_hash: str) -> dict[str, Any]:
    """Return an episode row with every column of ours, from what LeRobot stores about it.

    The outcome follows from the statistics of `next.*`; without those it is unknown. Who recorded
    it, where and when is not known either: no bag, no policy, stamp 0.
    """
    index = row['episode_index']
    outcome = row.get('outcome') or _outcome(row)
    unknown = {
        'episode_id': f'lerobot-{index}',
        'source': 'teleop',
        'policy_id': '',
        'bag_uri': '',
        'contract_hash': contract_hash,
        'start_stamp_ns': 0,
        'fingerprint': '',
    }
    found = {**row, 'outcome': outcome, 'success': outcome == 'success'}
    found.update({name: value for name, value in unknown.items() if found.get(name) is None})
    if found.get('digest') is None:
        stats = {name: row[name] for name in sorted(row) if name.startswith('stats/')}
        text = json.dumps([row['tasks'], row['length'], stats])
        found['digest'] = NO_DIGEST + hashlib.sha256(text.encode()).hexdigest()
    return found


def _outcome(row: Mapping[str, Any]) -> str:
    def ever(name: str) -> bool:
        value = row.get(f'stats/{name}/max') or [0]
        return value[0] > 0

    if ever('next.success') or (ever('next.reward') and ever('next.done')):
        return 'success'
    if ever('next.done'):
        return 'failure'
    return 'timeout' if ever('next.truncated') else 'unknown'
