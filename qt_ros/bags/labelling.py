"""What the rows of a label file mean for the episodes of a bag, and for a whole conversion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qt_ros.bags.labels import Label
from qt_ros.bags.segments import Segment, Segmentation, relabel, unique
from qt_ros.errors import BagError
from qt_ros.spelling import spelled

OVERSHOOT_NS = 1_000_000_000  # bounds are rounded by people; beyond that the end is missing


def apply_labels(
    found: Segmentation,
    labels: Sequence[Label],
    bag: Path,
    first_ns: int,
    end_ns: int | None = None,
) -> Segmentation:
    """Apply the rows of a label file that speak of this bag.

    Rows with bounds replace the segmentation of the bag: its episodes are then exactly these, and
    what an event said about the same time (who drove, interventions) stays true. `first_ns` is the
    time that `start_s` counts from, `end_ns` that of the last sample. The `applied` rows of the
    result are those that meant something for this bag.
    """
    mine = [label for label in labels if label.about(bag)]
    bounded = [label for label in mine if label.bounded and (label.bag or label.episode_id)]
    segments, problems = list(found.segments), list(found.problems)
    applied = {label.line for label in bounded}
    if bounded:
        segments = _defined(found, bounded, bag, first_ns, problems)
        _check_overlaps(segments, problems)
        if end_ns is not None:
            segments = _ended(segments, first_ns, end_ns, problems)
    for label in mine:
        if not label.bounded and _relabel_all(segments, label, problems):
            applied.add(label.line)
    return Segmentation(tuple(segments), tuple(problems), frozenset(applied))


def row_names(bounded: Sequence[Label], bag: Path) -> list[str]:
    """Return the episode id of each row with bounds of one bag: its own, or NAME/number.

    Rows about the same stretch and instruction are about the same episode.
    """
    names: dict[tuple, str] = {}
    found = []
    for label in bounded:
        times = (label.start_s, label.stop_s, label.start_stamp_ns, label.stop_stamp_ns)
        key = (*times, label.episode_id, label.instruction)
        if key not in names:
            names[key] = unique(
                label.episode_id or f'{spelled(bag.stem)}/{len(names)}', names.values()
            )
        found.append(names[key])
    return found


def check_bags(labels: Sequence[Label], bags: Sequence[Path]) -> list[str]:
    """Return a remark about rows of recordings that are not among `bags`, which is no fault.

    Raises `BagError` naming every row that does not say which one it means: an outcome given to
    the wrong episode would never be found again.
    """
    problems, elsewhere = [], []
    for label in labels:
        fitting = [bag for bag in bags if label.about(bag)]
        if not label.bag and not label.episode_id:
            problems.append(
                f'labels: {label}: episode_index counts the episodes of a dataset; for recordings'
                ' give bag, episode_id or both'
            )
        elif not fitting:
            elsewhere.append(label.bag)
        elif len(fitting) > 1 and (label.bounded or not label.episode_id):
            shown = ', '.join(str(bag) for bag in fitting[:4])
            problems.append(
                f'labels: {label} fits {len(fitting)} recordings ({shown}'
                f'{", ..." if len(fitting) > 4 else ""}); write more of the path into bag'
            )
    if problems:
        raise BagError(problems)
    names = list(dict.fromkeys(elsewhere))
    if not names:
        return []
    shown = f'{", ".join(names[:5])}{", ..." if len(names) > 5 else ""}'
    return [f'labels: {len(elsewhere)} rows are about recordings that are not given: {shown}']


def check_applied(labels: Sequence[Label], applied: set[int]) -> list[str]:
    """Return a remark about rows without a bag of which no recording had the episode."""
    unused = [label for label in labels if not label.bag and label.line not in applied]
    if not unused:
        return []
    shown = ', '.join(label.episode_id for label in unused[:5])
    more = ', ...' if len(unused) > 5 else ''
    return [f'labels: {len(unused)} rows fit no episode of any recording: {shown}{more}']


def _defined(
    found: Segmentation,
    bounded: Sequence[Label],
    bag: Path,
    first_ns: int,
    problems: list[str],
) -> list[Segment]:
    """Make the episodes that the rows define; a row that repeats another one replaces it."""
    newest = dict(zip(row_names(bounded, bag), bounded, strict=True))
    marked = [each for each in found.segments if each.instruction or each.outcome != 'unknown']
    if marked:
        problems.append(
            f'labels: {len(newest)} rows with times replace the {len(marked)} episodes that the'
            ' recording itself marks'
        )
    problems += [
        f'labels: episode id {label.episode_id!r} is used twice; the second is {name!r}'
        for name, label in newest.items()
        if label.episode_id not in ('', name)
    ]
    segments = [
        _segment(found, name, label, *label.bounds_ns(first_ns)) for name, label in newest.items()
    ]
    return sorted(segments, key=lambda each: each.start_ns)


def _segment(found: Segmentation, name: str, label: Label, start_ns: int, stop_ns: int) -> Segment:
    """Return the episode of a row; what the row leaves out is as at most of that time."""

    def common_ns(other: Segment) -> int:
        return min(stop_ns, other.stop_ns) - max(start_ns, other.start_ns)

    around = [each for each in found.segments if common_ns(each) > 0]
    main = max(around, key=common_ns, default=Segment(name, start_ns, stop_ns))
    spans = [span for each in around for span in each.interventions]
    return replace(
        main,
        episode_id=name,
        start_ns=start_ns,
        stop_ns=stop_ns,
        instruction=label.instruction or main.instruction,
        outcome=label.outcome or 'unknown',  # that of other bounds is not that of these
        source=label.source or main.source,
        interventions=tuple(s for s in spans if s[0] < stop_ns and s[1] > start_ns),
    )


def _check_overlaps(segments: Sequence[Segment], problems: list[str]) -> None:
    """Tell of episodes that share time: both keep it, it may be meant (a task and its parts)."""
    before = segments[0]
    for after in segments[1:]:
        if after.start_ns < before.stop_ns:
            problems.append(
                f'labels: episodes {before.episode_id!r} and {after.episode_id!r} overlap by'
                f' {(min(before.stop_ns, after.stop_ns) - after.start_ns) / 1e9:.3f} s; both keep'
                ' these rows'
            )
        before = max(before, after, key=lambda each: each.stop_ns)


def _ended(
    segments: Sequence[Segment], first_ns: int, end_ns: int, problems: list[str]
) -> list[Segment]:
    """Let an episode end with the recording where a row goes a little beyond it."""
    found = []
    for each in segments:
        beyond_ns = each.stop_ns - end_ns
        if each.start_ns >= end_ns or each.stop_ns <= first_ns:
            problems.append(
                f'labels: episode {each.episode_id!r} lies outside of the recording, which lasts'
                f' {(end_ns - first_ns) / 1e9:.3f} s'
            )
        elif beyond_ns > OVERSHOOT_NS:
            problems.append(
                f'labels: episode {each.episode_id!r} ends {beyond_ns / 1e9:.3f} s after the'
                f' recording; how it ended is not there, so its outcome is taken as unknown'
            )
        elif beyond_ns > 0:
            each = replace(each, stop_ns=end_ns + 1)  # the last sample still belongs to it
        found.append(each)
    return found


def _relabel_all(segments: list[Segment], label: Label, problems: list[str]) -> bool:
    """Apply a row without bounds to `segments`, in place; return whether it meant any."""
    if label.episode_id:
        at = [n for n, each in enumerate(segments) if each.episode_id == label.episode_id]
        missing = bool(label.bag) and not at
    else:
        at = list(range(len(segments)))
        missing = len(at) != 1
    if missing:
        names = [each.episode_id for each in segments]
        known = f'{", ".join(names[:8])}{", ..." if len(names) > 8 else ""}' or 'none'
        problems.append(
            f'labels: {label} fits no single episode and was ignored; its episodes: {known}'
        )
        return False
    for n in at:
        segments[n] = relabel(segments[n], label.outcome, label.instruction, label.source)
    return bool(at)
