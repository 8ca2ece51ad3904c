import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import TrainingError
from training.text import encode_text
from training.tokens import ActionDim, ActionSpace

SPACE = ActionSpace([ActionDim('x', -0.15, 0.15, 129), ActionDim('grip', 0.0, 1.0, 2)])


@given(st.floats(-0.15, 0.15), st.floats(0, 1))
def test_values_come_back_within_half_a_bin(x, grip):
    value = np.array([x, grip])
    back = SPACE.to_values(SPACE.to_bins(value))
    assert np.all(np.abs(back - value) <= np.array([0.3 / 128 / 2, 0.5]) + 1e-12)


@given(st.integers(2, 300), st.floats(-10, 10), st.floats(1e-3, 10))
def test_every_centre_is_its_own_bin_and_is_kept_exactly(bins, low, span):
    space = ActionSpace([ActionDim('x', low, low + span, bins)])
    centres = np.linspace(low, low + span, bins)[:, None]
    numbers = space.to_bins(centres)
    assert numbers[:, 0].tolist() == list(range(bins))
    assert np.array_equal(space.to_values(numbers), centres)
    # A cache stores float32; the bin must survive that.
    assert np.array_equal(space.to_bins(centres.astype(np.float32)), numbers)


def test_values_outside_are_clipped_and_ends_and_zero_are_exact():
    bins = SPACE.to_bins(np.array([[-9.0, -1.0], [9.0, 2.0], [0.0, 0.0]]))
    assert bins.tolist() == [[0, 0], [128, 1], [64, 0]]
    assert SPACE.to_values(bins)[:, 0].tolist() == [-0.15, 0.15, 0.0]


def test_not_finite_names_the_dimension():
    with pytest.raises(TrainingError, match='grip'):
        SPACE.to_bins(np.array([0.0, np.nan]))


def test_impossible_dimensions_are_reported_together():
    with pytest.raises(TrainingError) as error:
        ActionSpace([ActionDim('a', 1.0, 1.0, 5), ActionDim('b', 0.0, 1.0, 1)])
    assert len(error.value.problems) == 2


def test_space_survives_json():
    copy = ActionSpace.from_json(json.loads(json.dumps(SPACE.to_json())))
    assert copy.dims == SPACE.dims


@given(st.text())
def test_any_text_has_an_embedding_of_unit_variance(text):
    vector = encode_text(text, 'hashed', 64)
    assert vector.shape == (64,)
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(8.0, abs=1e-4) or not vector.any()


def test_embedding_is_the_same_in_another_process_and_ignores_case_and_punctuation():
    script = (
        'from training.text import encode_text;'
        'print(encode_text("Push the red block!", "hashed", 32).tolist())'
    )
    out = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, check=True, text=True
    )
    here = encode_text('push the red block', 'hashed', 32)
    assert json.loads(out.stdout) == here.tolist()


def test_a_typing_error_stays_nearer_than_the_other_instruction():
    left, right, typo = (
        encode_text(f'push the red block to the {word}', 'hashed', 256)
        for word in ('left', 'right', 'lefft')
    )
    assert typo @ left > typo @ right
    assert not np.allclose(left, right)


def test_unknown_encoder_says_which_exist():
    with pytest.raises(TrainingError, match='hashed'):
        encode_text('x', 'bert', 16)


def test_the_package_is_light():
    script = (
        'import sys, training, training.config, training.cache, training.tokens;'
        'print("torch" in sys.modules)'
    )
    out = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, check=True, text=True
    )
    assert out.stdout.strip() == 'False'
