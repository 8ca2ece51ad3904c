"""Rows, pictures and words of imported episodes, worked out by hand from the made set."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from made_sets import SIZE, MadeSet, contract, grey

from qt_ros.dataset import Dataset
from qt_ros.lerobot import import_lerobot


def files_of(root: Path) -> dict[str, str]:
    """Return {file: sha256} of everything below a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def test_rows_stand_as_they_are_where_the_rates_agree(tmp_path: Path) -> None:
    made = MadeSet()
    source = made.write(tmp_path / 'theirs')
    before = files_of(source)
    result = import_lerobot(source, tmp_path / 'ours', contract())
    assert result.status == 0
    found = Dataset(tmp_path / 'ours')
    assert [episode.length for episode in found.episodes] == list(made.lengths)
    for e in range(3):
        rows, state, action = found.rows(e), made.state(e), made.action(e)
        np.testing.assert_array_equal(rows['observation.state'], state)
        # A delta is from target to target, the first from the measured value.
        previous = np.concatenate([state[:1, :2], action[:-1, :2]]).astype(np.float64)
        expected = (action[:, :2].astype(np.float64) - previous).astype(np.float32)
        np.testing.assert_array_equal(rows['action'][:, :2], expected)
        np.testing.assert_array_equal(rows['action'][:, 2], action[:, 2])
        np.testing.assert_array_equal(rows['action.requested'], rows['action'])
        np.testing.assert_array_equal(rows['stamp_ns.joints'], np.arange(len(state)) * 10**8)
        assert rows['valid.top'].all()
        assert not rows['intervention'].any()
    assert files_of(source) == before


@pytest.mark.parametrize('codec', ['libx264', 'libsvtav1'])
def test_every_row_has_its_own_picture(tmp_path: Path, codec: str) -> None:
    made = MadeSet(codec=codec, cameras={'top': SIZE, 'side': (96, 64)})
    source = made.write(tmp_path / 'theirs')
    import_lerobot(source, tmp_path / 'ours', contract())
    found = Dataset(tmp_path / 'ours')
    for e, length in enumerate(made.lengths):
        frames = found.frames(e, 'top')
        assert frames.shape == (length, 32, 48, 3)
        for k in range(length):
            red, green, blue = frames[k].reshape(-1, 3).mean(axis=0)
            assert abs(green - grey(e, k)) < 2.4, (e, k)  # neighbours differ by 5
            assert red > green > blue


def test_pictures_that_lie_in_the_rows_as_png(tmp_path: Path) -> None:
    made = MadeSet(as_images=True, row_groups=False, lengths=(6, 40, 4))
    source = made.write(tmp_path / 'theirs')
    assert import_lerobot(source, tmp_path / 'ours', contract()).status == 0
    found = Dataset(tmp_path / 'ours')
    for e, length in enumerate(made.lengths):
        means = found.frames(e, 'top').mean(axis=(1, 2))
        expected = np.array([[g + 9, g, g - 9] for g in (grey(e, k) for k in range(length))])
        assert np.abs(means - expected).max() < 2.4


def test_the_crop_of_the_contract_is_cut_out_of_their_picture(tmp_path: Path) -> None:
    class Halves(MadeSet):
        def frame(self, camera: str, episode: int, frame: int) -> np.ndarray:
            picture = np.zeros((*SIZE, 3), np.uint8)
            picture[:, 48:] = 200
            return picture

    source = Halves(lengths=(3,)).write(tmp_path / 'theirs')
    made_with = contract(crop=', crop: [0, 48, 64, 48]')
    import_lerobot(source, tmp_path / 'ours', made_with)
    assert abs(Dataset(tmp_path / 'ours').frames(0, 'top').mean() - 200) < 2


def test_a_lower_rate_sees_the_newest_frame_and_acts_by_the_newest_command(
    tmp_path: Path,
) -> None:
    made = MadeSet(fps=30, lengths=(8,))
    source = made.write(tmp_path / 'theirs')
    import_lerobot(source, tmp_path / 'ours', contract(rate_hz=10))
    found = Dataset(tmp_path / 'ours')
    rows, state, action = found.rows(0), made.state(0), made.action(0)
    # Ticks at 0, 0.1 and 0.2 s see frames 0, 3, 6; the commands of frames 2, 5 and 7 belong there.
    np.testing.assert_array_equal(rows['observation.state'], state[[0, 3, 6]])
    chain = np.concatenate([state[:1], action[[2, 5, 7]]]).astype(np.float64)
    np.testing.assert_array_equal(
        rows['action'][:, :2], np.diff(chain[:, :2], axis=0).astype(np.float32)
    )
    np.testing.assert_array_equal(rows['action'][:, 2], action[[2, 5, 7], 2])
    greens = found.frames(0, 'top')[..., 1].mean(axis=(1, 2))
    assert np.abs(greens - [grey(0, k) for k in (0, 3, 6)]).max() < 2.4


def test_a_higher_rate_holds_frames_and_says_when_they_are_old(tmp_path: Path) -> None:
    made = MadeSet(fps=2, lengths=(3,))
    source = made.write(tmp_path / 'theirs')
    import_lerobot(source, tmp_path / 'ours', contract(rate_hz=10))
    rows = Dataset(tmp_path / 'ours').rows(0)
    # 3 frames at 0, 0.5 and 1 s: ticks 0 to 10; each frame is held for 5 ticks.
    seen = [0] * 5 + [1] * 5 + [2]
    np.testing.assert_array_equal(rows['observation.state'], made.state(0)[seen])
    # 0.25 s is allowed: ticks 0, 100 and 200 ms behind a frame are fresh.
    assert rows['valid.joints'].tolist() == [True, True, True, False, False] * 2 + [True]
    # Within a held command nothing moves.
    np.testing.assert_array_equal(rows['action'][[1, 2, 3, 4], 0], 0)
    np.testing.assert_array_equal(rows['stamp_ns.top'], np.array(seen) * 5 * 10**8)


def test_actions_from_the_next_state_drop_the_last_frame(tmp_path: Path) -> None:
    made = MadeSet()
    source = made.write(tmp_path / 'theirs')
    text = contract().to_yaml()
    head = text[: text.index('action:')]
    tail = text[text.index('episodes:') :]
    derived = """action:
- from: next_state
  dims:
  - {name: pan, field: position.shoulder_pan, mode: delta, low: -0.2, high: 0.2, bins: 9}
"""
    import_lerobot(source, tmp_path / 'ours', contract().parse(head + derived + tail))
    rows, state = Dataset(tmp_path / 'ours').rows(0), made.state(0).astype(np.float64)
    np.testing.assert_array_equal(rows['observation.state'], made.state(0)[:-1])
    np.testing.assert_array_equal(rows['action'][:, 0], np.diff(state[:, 0]).astype(np.float32))


def test_changes_are_taken_bit_for_bit_or_added_up_over_a_tick(tmp_path: Path) -> None:
    made = MadeSet(fps=20, lengths=(7,))
    source = made.write(tmp_path / 'theirs')
    action = made.action(0)
    for rate in (20, 10):
        out = tmp_path / f'ours{rate}'
        import_lerobot(source, out, contract(rate_hz=rate), actions='changes')
        found = Dataset(out).rows(0)['action']
        if rate == 20:
            np.testing.assert_array_equal(found, action)
        else:
            pairs = [action[0:2], action[2:4], action[4:6], action[6:7]]
            expected = np.array([pair[:, :2].sum(axis=0) for pair in pairs])
            np.testing.assert_allclose(found[:, :2], expected, atol=1e-6)
            np.testing.assert_array_equal(found[:, 2], action[[1, 3, 5, 6], 2])


def test_terminate_is_one_where_a_success_ends(tmp_path: Path) -> None:
    source = MadeSet(success={0: True}).write(tmp_path / 'theirs')
    import_lerobot(source, tmp_path / 'ours', contract(more='terminate: {bins: 2}'))
    found = Dataset(tmp_path / 'ours')
    assert found.rows(0)['action'][:, 3].tolist() == [0, 0, 0, 0, 0, 1]
    assert not found.rows(1)['action'][:, 3].any()


def test_a_task_of_several_is_the_first_and_told(tmp_path: Path) -> None:
    made = MadeSet(tasks=('grasp', 'lift'), task_of={1: [1] * 4 + [0] * 5})
    source = made.write(tmp_path / 'theirs')
    result = import_lerobot(source, tmp_path / 'ours', contract())
    told = [episode.instruction for episode in Dataset(tmp_path / 'ours').episodes]
    assert told == ['grasp', 'lift', 'grasp']
    assert any('episode 1: it has several tasks' in text for text in result.report['problems'])


def test_interventions_are_kept(tmp_path: Path) -> None:
    made = MadeSet(extra={'intervention': lambda e, n: np.arange(n) == 2})
    source = made.write(tmp_path / 'theirs')
    import_lerobot(source, tmp_path / 'ours', contract())
    taken = Dataset(tmp_path / 'ours').rows(0)['intervention']
    assert np.flatnonzero(taken).tolist() == [2]
