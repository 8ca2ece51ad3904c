"""`qt-ros report` on recordings of a policy: what it draws is what the messages say."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bags import MS, T0, Bag, steady, time

from qt_ros.cli import main
from qt_ros.report.film import MOMENTS
from qt_ros.report.step_figures import limits_over_time, q_strips, times_over_time
from qt_ros.report.steps import DrivenEpisode, film_frames, read_episodes

COUNTS = (5, 2)
PNG, SVG = b'\x89PNG', b'<?xml'


def q_of(k: int) -> np.ndarray:
    """Q of both dimensions at tick k, (7,); its numbers name their tick and bin."""
    return np.array([0.01 * k + 0.001 * i for i in range(sum(COUNTS))], np.float32)


def driven(ticks: int = 20, episode: str = 'e', spoil: dict[int, Any] | None = None) -> Bag:
    """A policy that drove: images every 50 ms, a command 30 ms after each tick."""
    bag = steady(0.1 * ticks)
    if episode == 'e':
        bag.event(0, 0, episode, instruction='push it')
        bag.event(100.0 * ticks, 1, episode, outcome='success')
    for k in range(ticks):
        given = {
            'command_stamp': time(T0 + (100 * k + 30) * MS),
            'command_stamps': [time(T0 + (100 * k + ms) * MS) for ms in (-37, -3, 30)],
            'command_age_s': 0.032,
            'observation_age_s': 0.03,
            'fate': 'sent',
            'infer_s': 0.005,
            'dims': ['a', 'grip'],
            'bins': [k % 5, k % 2],
            'q': [0.1, 0.2],
            'q_values': q_of(k),
            'bin_counts': COUNTS,
            'limit_reasons': ['position+step' if k == 7 else '', ''],
        }
        stamps = {'front': 100.0 * k, 'joints': 100.0 * k}
        bag.step(k, 100.0 * k, stamps, episode, **{**given, **(spoil or {}).get(k, {})})
    return bag


@pytest.fixture
def late() -> dict[int, Any]:
    """Tick 3 came too late, and 4 found nobody free: neither sent anything."""
    nothing = {'command_stamp': time(0), 'command_stamps': [], 'limit_reasons': []}
    undecided = {'q_values': [], 'bins': [], 'q': [], 'bin_counts': []}
    return {
        3: {**nothing, 'fate': 'late', 'late': True},
        4: {**nothing, **undecided, 'fate': 'busy'},
    }


def only(path: Path) -> DrivenEpisode:
    problems: list[str] = []
    (episode,) = read_episodes([path], problems)
    assert problems == []
    return episode


def test_q_of_every_bin_lies_at_its_tick(tmp_path: Path, late: dict[int, Any]) -> None:
    episode = only(driven(spoil=late).write(tmp_path / 'bag'))
    assert (episode.instruction, episode.outcome) == ('push it', 'success')
    assert episode.dims == ('a', 'grip')
    np.testing.assert_allclose(episode.times_s, 0.1 * np.arange(20), atol=1e-9)
    arm, grip = episode.q_of(0), episode.q_of(1)
    assert (arm.shape, grip.shape) == ((20, 5), (20, 2))
    for k in range(20):
        expected = np.full(7, np.nan) if k == 4 else q_of(k)
        np.testing.assert_array_equal(np.concatenate([arm[k], grip[k]]), expected)
    chosen = episode.chosen(0)
    assert np.isnan(chosen[4])
    np.testing.assert_array_equal(np.delete(chosen, 4), np.delete(np.arange(20) % 5, 4))


def test_frames_are_those_that_the_policy_used(tmp_path: Path) -> None:
    """steady() paints each image in a grey of its own: 10 + 5 * number."""
    episode = only(driven().write(tmp_path / 'bag'))
    frames, rate_hz, problems = film_frames(episode, MOMENTS)
    assert problems == []
    assert list(frames) == ['front']
    ticks = np.unique(np.linspace(0, 19, MOMENTS).round().astype(int))
    assert len(frames['front']) == len(ticks)
    assert rate_hz == pytest.approx((len(ticks) - 1) / 1.9)
    for tick, frame in zip(ticks, frames['front'], strict=True):
        grey = 10 + 5 * (2 * tick + 1) % 240  # image number n was at 50 n - 50 ms
        assert abs(float(frame.mean()) - grey) < 4, tick


def test_pictures_that_are_not_in_the_recording_are_told(tmp_path: Path) -> None:
    bag = driven()
    bag.rows = [row for row in bag.rows if row[1] != '/front' or row[0] % (300 * MS)]
    episode = only(bag.write(tmp_path / 'bag'))
    frames, _, problems = film_frames(episode, MOMENTS)
    assert frames == {}
    assert problems == ['/front: images that the policy saw are not in the recording']


def test_the_plots_are_drawn(tmp_path: Path, late: dict[int, Any]) -> None:
    episode = only(driven(spoil=late).write(tmp_path / 'bag'))
    strips = q_strips(episode)
    assert strips is not None
    assert strips.startswith(PNG)
    for draw in (times_over_time, limits_over_time):
        drawn = draw(episode)
        assert drawn is not None
        assert drawn.startswith(SVG)
    text = (limits_over_time(episode) or b'').decode()
    assert all(f'>{word}<' in text for word in ('late', 'busy', 'position', 'grip', 'ticks'))


def test_nothing_to_draw_draws_nothing(tmp_path: Path) -> None:
    nothing = {
        'command_stamp': time(0), 'command_stamps': [], 'q_values': [], 'bins': [],
        'bin_counts': [], 'limit_reasons': [], 'fate': 'sent',
    }  # fmt: skip
    episode = only(driven(3, spoil=dict.fromkeys(range(3), nothing)).write(tmp_path / 'bag'))
    assert q_strips(episode) is times_over_time(episode) is limits_over_time(episode) is None


def test_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of recordings, one of them without a policy; nothing is written among them."""
    folder = tmp_path / 'bags'
    driven().write(folder / 'one')
    driven(episode='another').write(folder / 'two')
    steady().write(folder / 'teleop')
    before = sorted(folder.rglob('*'))
    assert main(['report', str(folder)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == tmp_path / 'bags.report.html'
    assert sorted(folder.rglob('*')) == before
    text = page.read_text()
    for words in ('Recording bags', 'success: push it', 'episode: another', '10.00'):
        assert words in text
    assert text.count('data:image/png') >= 4  # a film strip and the strips of Q, of each
    assert 'http' not in text.replace('http://www.w3.org', '')


def test_one_file_of_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = driven().write(tmp_path / 'bag')
    file = next(bag.glob('*.mcap'))
    alone = tmp_path / 'alone' / 'drive.mcap'
    alone.parent.mkdir()
    shutil.copy(file, alone)
    assert main(['report', str(alone), '--out', str(tmp_path / 'page.html')]) == 0
    assert (tmp_path / 'page.html').is_file()
    assert capsys.readouterr().out.strip() == str(tmp_path / 'page.html')


def test_recordings_without_a_policy_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = steady().write(tmp_path / 'teleop')
    assert main(['report', str(bag)]) == 1
    said = capsys.readouterr().err
    assert f'{bag}: no policy was recorded there' in said
    assert list(tmp_path.iterdir()) == [bag]
