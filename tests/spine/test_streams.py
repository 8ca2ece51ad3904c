"""Streams against brute force: whatever comes in, in whatever order."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from qt_ros.streams import Sample, Stream

STAMPS = st.integers(-50, 50)


def brute_force(added: list[int], t: int, max_age: int) -> Sample | None:
    """Newest stamp <= t; of equal stamps the last added. Items are positions in `added`."""
    found = [(stamp, item) for item, stamp in enumerate(added) if stamp <= t]
    if not found:
        return None
    stamp, item = max(found)
    return Sample(item, stamp, t - stamp, t - stamp <= max_age)


@given(st.lists(STAMPS), st.lists(STAMPS, min_size=1), st.integers(0, 40))
def test_at_is_what_brute_force_finds(added: list[int], times: list[int], max_age: int) -> None:
    stream = Stream('s', max_age)
    for item, stamp in enumerate(added):
        stream.add(stamp, item)
    assert [stream.at(t) for t in times] == [brute_force(added, t, max_age) for t in times]
    assert len(stream) == len(set(added))
    assert stream.duplicates == len(added) - len(set(added))
    assert stream.backwards == sum(s < max(added[:i]) for i, s in enumerate(added) if i)
    assert stream.first_ns == min(added, default=None)
    assert stream.last_ns == max(added, default=None)


@given(st.lists(STAMPS), STAMPS)
def test_exactly_finds_that_stamp_only(added: list[int], stamp: int) -> None:
    stream = Stream('s', 10)
    for item, s in enumerate(added):
        stream.add(s, item)
    found = stream.exactly(stamp, stamp + 11)
    if stamp not in added:
        assert found is None
    else:
        last = len(added) - 1 - added[::-1].index(stamp)
        assert found == Sample(last, stamp, 11, False)
        assert stream.exactly(stamp) == Sample(last, stamp, 0, True)


@given(st.lists(STAMPS, min_size=1), st.integers(0, 30), STAMPS)
def test_a_bounded_stream_answers_alike_within_its_bound(
    added: list[int], keep: int, back: int
) -> None:
    bounded, whole = Stream('s', 5, keep_ns=keep), Stream('s', 5)
    for item, stamp in enumerate(added):
        bounded.add(stamp, item)
        whole.add(stamp, item)
        assert len(bounded) >= 1
        assert bounded.first_ns >= whole.last_ns - keep
        assert bounded.last_ns == whole.last_ns
    newest = max(added)
    t = newest - min(abs(back), keep)
    expected = whole.at(t)
    if expected is not None and expected.stamp_ns >= newest - keep:
        assert bounded.at(t) == expected


def test_a_sample_is_held_when_stale_and_never_from_the_future() -> None:
    stream = Stream('s', 5)
    assert stream.at(10**18) is None
    stream.add(10, 'a')
    assert stream.at(9) is None
    assert stream.at(10) == Sample('a', 10, 0, True)
    assert stream.at(15) == Sample('a', 10, 5, True)
    assert stream.at(16) == Sample('a', 10, 6, False)


def test_threads_do_not_lose_samples() -> None:
    stream = Stream('s', 5)

    def fill(offset: int) -> None:
        for stamp in range(offset, 4000, 4):
            stream.add(stamp, stamp)
            sample = stream.at(stamp)
            assert sample is not None
            assert sample.item == sample.stamp_ns

    threads = [threading.Thread(target=fill, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stream) == 4000
    assert [stream.at(t).item for t in range(4000)] == [*range(4000)]
