"""Counting what came and what did not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qt_ros.arrivals import UNKNOWN, Arrivals


def counted(*messages: tuple[int, bytes] | tuple[int]) -> tuple[int, int]:
    arrivals = Arrivals()
    for message in messages:
        arrivals.add(*message)
    return arrivals.counts


def test_gaps_are_losses() -> None:
    assert counted((7,), (8,), (11,)) == (3, 2)
    assert counted((7,), (9,), (8,)) == (3, 0)  # late, not lost
    assert counted((7, b'a'), (8, b'a'), (1, b'b'), (2, b'b'), (11, b'a')) == (5, 2)


def test_without_numbers_nothing_is_known_to_be_lost() -> None:
    arrivals = Arrivals()
    for sequence in (None, UNKNOWN, None):
        arrivals.add(sequence)
    assert arrivals.counts == (3, 0)


def test_counting_from_a_moment_on() -> None:
    arrivals = Arrivals()
    for number in (1, 4):
        arrivals.add(number)
    before = arrivals.counts
    for number in (5, 7):
        arrivals.add(number)
    assert arrivals.since(before) == (2, 1)


@given(
    st.integers(1, 1000),
    st.lists(st.booleans(), min_size=1, max_size=200),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_every_message_that_was_sent_is_received_or_lost(
    first: int, arrive: list[bool], publishers: int, random: object
) -> None:
    """However the streams of several publishers mix; what came before the first does not count."""
    streams = []
    for publisher in range(publishers):
        name = bytes([publisher])
        streams.append([(first + i, name) for i, came in enumerate(arrive) if came])
    sent = sum(each[-1][0] - each[0][0] + 1 for each in streams if each)
    mixed = []
    while any(streams):
        mixed.append(random.choice([each for each in streams if each]).pop(0))  # type: ignore[attr-defined]
    received, lost = counted(*mixed)
    assert received == len(mixed)
    assert received + lost == sent


@given(st.integers(2, 100), st.randoms(use_true_random=False))
def test_order_does_not_matter_once_all_have_come(count: int, random: object) -> None:
    numbers = list(range(2, count + 1))
    random.shuffle(numbers)  # type: ignore[attr-defined]
    # The first to come is the first that counts: those before it are late, and there.
    received, lost = counted((1,), *((number,) for number in numbers))
    assert (received, lost) == (count, 0)
