"""Tasks: instructions, start states, and what counts as success."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qt_ros.errors import SimError
from qt_ros.sim.scene import BIN, BLOCK_HALF, PLATE
from qt_ros.sim.tasks import (
    GAP,
    INSTRUCTIONS,
    KINDS,
    LANE,
    TASKS,
    WORKSPACE,
    Task,
    parse,
    scatter,
    succeeded,
)


def test_there_are_21_different_instructions_of_five_kinds():
    assert len(set(INSTRUCTIONS)) == 21
    assert {task.kind for task in TASKS} == set(KINDS)


@given(st.sampled_from(TASKS), st.data())
def test_instructions_are_read_whatever_case_and_spacing(task, data):
    words = task.instruction.split()
    spaces = [data.draw(st.sampled_from([' ', '  ', '\t', '\n'])) for _ in words]
    text = ''.join(itertools.chain.from_iterable(zip(spaces, words, strict=True)))
    assert parse(data.draw(st.sampled_from([text, text.upper(), text + '.']))) == task


@pytest.mark.parametrize('text', ['', ' ', 'push the red block', 'stack the red block on the red'])
def test_unknown_instructions_are_refused_with_all_known_ones(text):
    with pytest.raises(SimError) as error:
        parse(text)
    assert all(instruction in str(error.value) for instruction in INSTRUCTIONS)


def test_a_misspelt_instruction_names_the_nearest():
    with pytest.raises(SimError, match="nearest: 'push the red block to the left'"):
        parse('push the red blok to the left')


@given(st.sampled_from(TASKS), st.integers(0, 2**32 - 1))
def test_blocks_start_in_the_workspace_with_room_to_work(task, seed):
    positions, yaws = scatter(task, np.random.default_rng(seed))
    low, high = np.array(WORKSPACE).T
    assert ((positions >= low) & (positions <= high)).all()
    assert (np.abs(yaws) <= np.pi / 4).all()
    for a, b in itertools.combinations(positions, 2):
        assert np.linalg.norm(a - b) >= GAP
    if task.kind == 'push':
        others = np.delete(positions, task.index, axis=0)
        assert (np.abs(others[:, 0] - positions[task.index, 0]) >= LANE).all()


@given(st.sampled_from(('red', 'green', 'blue')), st.integers(0, 2**32 - 1))
def test_only_the_words_tell_to_which_side_a_block_is_to_be_pushed(block, seed):
    scenes = [
        scatter(parse(f'push the {block} block to the {side}'), np.random.default_rng(seed))
        for side in ('left', 'right')
    ]
    for left, right in zip(*scenes, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.fixture
def start():
    return np.array([[0.25, 0.0, BLOCK_HALF], [0.35, 0.1, BLOCK_HALF], [0.35, -0.1, BLOCK_HALF]])


def moved(start, row, position):
    blocks = start.copy()
    blocks[row] = position
    return blocks


@pytest.mark.parametrize('task', TASKS)
def test_nothing_has_succeeded_at_the_start(task, start):
    assert not succeeded(task, start, start, 0.0, 1.0)


def test_a_push_counts_only_to_its_side_and_on_the_table(start):
    left, right = Task('push', 'red', 'left'), Task('push', 'red', 'right')
    pushed = moved(start, 0, (0.25, 0.081, BLOCK_HALF))
    assert succeeded(left, pushed, start, 1.0, 0.0)
    assert not succeeded(right, pushed, start, 1.0, 0.0)
    assert not succeeded(left, moved(start, 0, (0.25, 0.079, BLOCK_HALF)), start, 0.0, 0.0)
    assert not succeeded(left, moved(start, 0, (0.25, 0.2, 0.1)), start, 0.0, 0.0)
    assert not succeeded(left, moved(start, 0, (0.25, 0.5, -0.3)), start, 0.0, 0.0)


def test_the_wrong_block_does_not_count(start):
    lifted = moved(start, 1, (0.35, 0.1, 0.2))
    assert succeeded(Task('pick', 'green'), lifted, start, 0.0, 0.5)
    assert not succeeded(Task('pick', 'red'), lifted, start, 0.0, 0.5)


@pytest.mark.parametrize(
    ('task', 'place'),
    [
        (Task('bin', 'red'), (*BIN, 0.0285)),
        (Task('plate', 'red'), (*PLATE, BLOCK_HALF)),
        (Task('stack', 'red', 'green'), (0.35, 0.1, 3 * BLOCK_HALF)),
    ],
)
def test_a_placed_block_has_to_be_let_go_and_at_rest(task, place, start):
    blocks = moved(start, 0, place)
    assert succeeded(task, blocks, start, 0.0, 1.0)
    assert not succeeded(task, blocks, start, 0.0, 0.5)
    assert not succeeded(task, blocks, start, 0.1, 1.0)
    assert not succeeded(task, moved(start, 0, np.add(place, (0, 0, 0.05))), start, 0.0, 1.0)
    assert not succeeded(task, moved(start, 0, np.add(place, (0.07, 0, 0))), start, 0.0, 1.0)
