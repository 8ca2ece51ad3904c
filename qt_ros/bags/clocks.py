"""One clock for a whole bag: where messages without a stamp stand on the clock of the headers.

Log time serves as long as the headers agree with it, as it does live. Where they do not
(simulation time, the clock of another machine), such a message is placed where it was recorded: at
its log time plus what the stamped messages around it show of the difference, which may drift.

    log time   1000.0  1000.1  1000.2      a command without header, recorded at 1000.15,
    header        0.0     0.1     0.2      stands at 0.15
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qt_ros.bags.index import TopicIndex

FAR_NS = 1_000_000_000  # what headers may differ from log time: latency, and clocks set by hand
_BLOCK = 25  # messages of which the middle difference counts
_SOME = 10_000  # messages of a topic say how far its clock is off

Ints = NDArray[np.int64]


def place_unstamped(
    index: Mapping[str, TopicIndex], placed_by: Collection[str]
) -> tuple[dict[str, TopicIndex], list[str]]:
    """Give a stamp to messages that lack one, where header stamps are far from log time.

    `placed_by` are the topics whose stamps tell how far. Returns the index and, where something
    was placed, a sentence that says so.
    """
    found = dict(index)
    bare = {name: ~each.stamped for name, each in index.items() if not each.stamped.all()}
    stamped = [index[name] for name in placed_by if name in index]
    some_ns = np.concatenate([np.zeros(0, np.int64), *(_some_ahead_ns(each) for each in stamped)])
    if not bare or not len(some_ns) or np.percentile(np.abs(some_ns), 95) <= FAR_NS:
        return found, []
    log_ns, ahead_ns = _differences(stamped)
    for name, without in bare.items():
        each = index[name]
        header_ns = each.header_ns.copy()
        header_ns[without] = each.log_ns[without] + _interpolate(
            each.log_ns[without], log_ns, ahead_ns
        )
        found[name] = replace(each, header_ns=header_ns)
    count = sum(int(without.sum()) for without in bare.values())
    return found, [
        f'{", ".join(sorted(bare))}: {count} messages without a stamp are placed where they were'
        f' recorded, since header stamps are {_side(_middle(ahead_ns))} log time; for log'
        ' time throughout write clock: log'
    ]


def disagreement(index: Mapping[str, TopicIndex], topics: Collection[str]) -> list[str]:
    """Say so where the headers of these topics were stamped by different clocks."""
    middles = {
        name: _middle(_some_ahead_ns(index[name]))
        for name in topics
        if name in index and index[name].stamped.any()
    }
    if not middles or max(middles.values()) - min(middles.values()) <= FAR_NS:
        return []
    each = ', '.join(f'{name} is {_side(ahead_ns)} it' for name, ahead_ns in middles.items())
    return [f'header stamps are apart: measured by log time, {each}; use clock: log']


def span(ms: float) -> str:
    """Say a length of time in the unit that people use."""
    for limit, factor, unit in (
        (1e3, 1, 'ms'),
        (12e4, 1e3, 's'),
        (72e5, 6e4, 'min'),
        (17e7, 36e5, 'h'),
        (63e9, 864e5, 'days'),
    ):
        if ms < limit:
            return f'{ms / factor:.3g} {unit}'
    return f'{ms / 31557600000:.3g} years'


def _side(ahead_ns: int) -> str:
    if abs(ahead_ns) < 1_000_000:
        return 'level with'
    return f'{span(abs(ahead_ns) / 1e6)} {"ahead of" if ahead_ns > 0 else "behind"}'


def _some_ahead_ns(topic: TopicIndex) -> Ints:
    """Return how far headers are ahead of log time [ns], of every n-th message of a long topic."""
    stamped = np.flatnonzero(topic.stamped)
    some = stamped[:: max(1, len(stamped) // _SOME)]
    return topic.header_ns[some] - topic.log_ns[some]


def _differences(topics: Collection[TopicIndex]) -> tuple[Ints, Ints]:
    """Return log times, rising, and how far headers are ahead of them, (N,) both [ns]."""
    none = np.zeros(0, np.int64)
    log_ns = np.concatenate([none, *(each.log_ns[each.stamped] for each in topics)])
    header_ns = np.concatenate([none, *(each.header_ns[each.stamped] for each in topics)])
    order = np.argsort(log_ns, kind='stable')
    return log_ns[order], (header_ns - log_ns)[order]


def _middle(values: Ints) -> int:
    """Return the middle value as it is: a mean of two, or a double, would not be exact."""
    return int(np.sort(values)[len(values) // 2])


def _interpolate(at_ns: Ints, log_ns: Ints, ahead_ns: Ints) -> Ints:
    """Return how far headers are ahead at some log times, from the middles of blocks."""
    cuts = range(_BLOCK, len(log_ns), _BLOCK)
    times = np.array([_middle(part) for part in np.split(log_ns, cuts)])
    ahead = np.array([_middle(part) for part in np.split(ahead_ns, cuts)])
    # Counted from the first of each: nanoseconds since 1970 do not fit into a double.
    found = np.interp(at_ns - times[0], times - times[0], ahead - ahead[0])
    return ahead[0] + np.rint(found).astype(np.int64)
