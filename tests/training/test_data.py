import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_caches import random_episodes, write_cache

from training.cache import CacheAction
from training.config import DataConfig
from training.data import Replay
from training.errors import TrainingError
from training.q_math import monte_carlo_returns


def replay(*paths, window=3, **options):
    config = DataConfig(**{'batch': 8, 'segment': 4, 'shift_px': 0, **options})
    return Replay(
        paths, config, window=window, gamma=0.9, text_encoder='hashed', text_size=16, seed=5
    )


def test_only_labelled_episodes_take_part_unless_asked_for(cache):
    assert len(replay(cache)) == 7 + 5 + 6 + 10
    assert len(replay(cache, outcomes=('success', 'unknown'))) == 7 + 4 + 10
    with pytest.raises(TrainingError, match='aborted'):
        replay(cache, outcomes=('aborted',))


@pytest.mark.parametrize('segment', [1, 2, 4])
def test_one_pass_draws_every_transition_equally_often(cache, segment):
    data = replay(cache, segment=segment, batch=segment)
    total = int(data._pools[0][0].ends[-1])
    seen = np.zeros(32, int)
    for step in range(total):
        batch = data.batch(step)
        rows = batch.state[:, data.window - 1 : -1, 0][batch.valid].long()
        np.add.at(seen, rows.numpy(), 1)
    drawn = np.r_[0:18, 22:32]
    assert (seen[drawn] == segment).all()
    assert seen.sum() == segment * len(drawn)


def test_every_field_belongs_to_its_row(cache):
    data = replay(cache)
    opened = data.caches[0]
    bins = data.signature.action.to_bins(opened.action)
    starts = np.array([e.start for e in opened.meta.episodes])
    returns = monte_carlo_returns(opened.reward, starts, 0.9)
    last = np.zeros(len(opened), bool)
    last[[e.stop - 1 for e in opened.meta.episodes]] = True
    for step in range(20):
        batch = data.batch(step)
        frames = batch.state[..., 0].long().numpy()
        assert np.array_equal(batch.images['front'].numpy(), opened.images['front'][frames])
        for b, t in zip(*np.nonzero(batch.valid.numpy()), strict=True):
            row = frames[b, data.window - 1 + t]
            assert batch.present[b, data.window - 1 + t]
            assert batch.bins[b, t].tolist() == bins[row].tolist()
            assert float(batch.returns[b, t]) == pytest.approx(returns[row])
            assert float(batch.reward[b, t]) == opened.reward[row]
            assert bool(batch.terminated[b, t]) == bool(opened.terminated[row])
            assert bool(batch.has_next[b, t]) == (not last[row])
            if batch.has_next[b, t]:
                assert frames[b, data.window + t] == row + 1
                assert batch.bins[b, t + 1].tolist() == bins[row + 1].tolist()
            episode = next(e for e in opened.meta.episodes if e.start <= row < e.stop)
            assert bool(batch.success[b]) == (episode.outcome == 'success')
            text = data.embeddings[episode.instruction]
            assert np.array_equal(batch.text[b].numpy(), text)


def test_frames_outside_the_episode_are_marked(cache):
    data = replay(cache, window=3, batch=4)
    batch = data.gather(np.array([0]), np.array([-2]), np.zeros((1, 1, 2), int))
    assert batch.present[0].tolist() == [False] * 4 + [True] * 3
    assert batch.valid[0].tolist() == [False, False, True, True]
    batch = data.gather(np.array([0]), np.array([5]), np.zeros((1, 1, 2), int))
    assert batch.present[0].tolist() == [True] * 4 + [False] * 3
    assert batch.valid[0].tolist() == [True, True, False, False]
    assert batch.has_next[0].tolist() == [True, False, False, False]


def test_shift_is_one_for_the_whole_segment_and_repeats_the_border(cache):
    data = replay(cache, shift_px=2, batch=4)
    offsets = np.array([[[4, 1]]])  # 2 px down, 1 px to the left in the source
    batch = data.gather(np.array([0]), np.array([1]), offsets)
    plain = data.gather(np.array([0]), np.array([1]), np.array([[[2, 2]]]))
    shifted, still = batch.images['front'][0], plain.images['front'][0]
    assert torch.equal(shifted[:, :-2, 1:], still[:, 2:, :-1])
    assert torch.equal(shifted[:, -1], shifted[:, -3])
    assert torch.equal(plain.images['front'], replay(cache, batch=4).gather(
        np.array([0]), np.array([1]), np.zeros((1, 1, 2), int)).images['front'])  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    split=st.integers(0, 3),
    window=st.integers(1, 6),
    segment=st.integers(1, 5),
    shift=st.integers(0, 3),
    draw=st.data(),
)
def test_every_pixel_is_the_nearest_one_of_its_frame(
    tmp_path_factory, lengths, split, window, segment, shift, draw
):
    """Frame j of a segment is row clip(first - window + 1 + j), pixel (y + down, x + right)."""
    folder, size = tmp_path_factory.mktemp('caches'), {'front': (6, 8), 'wrist': (4, 10)}
    parts = [part for part in (lengths[:split], lengths[split:]) if part]
    made = [
        random_episodes(part, ['failure'] * len(part), i, size) for i, part in enumerate(parts)
    ]
    paths = [write_cache(folder / str(i), part, cameras=size) for i, part in enumerate(made)]
    data = replay(*paths, window=window, segment=segment, batch=segment, shift_px=shift)
    frames = [episode['images'] for part in made for episode in part]
    number = draw.draw(st.integers(1, 4))
    episode = np.array([draw.draw(st.integers(0, len(frames) - 1)) for _ in range(number)])
    first = np.array([draw.draw(st.integers(-12, 12)) for _ in range(number)])
    corner = st.integers(0, 2 * shift)
    offsets = np.array([[[draw.draw(corner)] * 2 for _ in range(number)] for _ in size])
    offsets[..., 1] = offsets[..., 1][:, ::-1]
    batch = data.gather(episode, first, offsets)
    for at, (camera, (height, width)) in enumerate(size.items()):
        for b in range(number):
            held = frames[episode[b]][camera]
            row = np.clip(first[b] - window + 1 + np.arange(window + segment), 0, len(held) - 1)
            down, right = offsets[at, b] - shift
            y = np.clip(np.arange(height) + down, 0, height - 1)
            x = np.clip(np.arange(width) + right, 0, width - 1)
            wanted = held[row][:, y][:, :, x]
            assert np.array_equal(batch.images[camera][b].numpy(), wanted)


def test_memory_of_a_batch_is_used_again_only_once_nothing_refers_to_it(cache):
    data = replay(cache)
    kept = data.batch(0).images['front'][1:, ::2]  # a view outlives its batch
    copy = kept.clone()
    places = {data.batch(step).images['front'].data_ptr() for step in range(1, 9)}
    assert torch.equal(kept, copy)
    assert kept.untyped_storage().data_ptr() not in places
    assert len(places) == 1
    del kept
    assert len({data.batch(step).images['front'].data_ptr() for step in range(4)} | places) <= 2


def test_a_batch_depends_on_seed_and_step_only(cache):
    first, second = replay(cache, shift_px=2), replay(cache, shift_px=2)
    later = [second.batch(step) for step in (9, 3, 0)]
    for step, batch in zip((9, 3, 0), later, strict=True):
        again = first.batch(step)
        assert torch.equal(again.images['front'], batch.images['front'])
        assert torch.equal(again.bins, batch.bins)
    assert not torch.equal(first.batch(1).state, first.batch(2).state)


def test_success_fraction_is_kept_in_every_batch(cache):
    data = replay(cache, segment=1, batch=8, success_fraction=0.75)
    assert all(int(data.batch(step).success.sum()) == 6 for step in range(15))


def test_several_caches_are_one(cache, tmp_path):
    other = write_cache(tmp_path / 'b', random_episodes([6, 3], ['failure', 'success'], seed=3))
    data = replay(cache, other, segment=1, batch=1)
    assert len(data) == 28 + 9
    single = replay(other, segment=1, batch=1)
    joined = data.gather(np.array([4]), np.array([2]), np.zeros((1, 1, 2), int))
    alone = single.gather(np.array([0]), np.array([2]), np.zeros((1, 1, 2), int))
    assert torch.equal(joined.images['front'], alone.images['front'])
    assert torch.equal(joined.bins, alone.bins)
    assert not torch.equal(joined.text, torch.zeros_like(joined.text))


def test_caches_of_different_contracts_are_refused(cache, tmp_path):
    from training.cache import CacheMeta
    from training.cache_writer import CacheWriter

    meta = CacheMeta('name: other\n', 'else', {'front': (16, 20)}, ('a', 'b', 'c'),
                     (CacheAction('x', -1.0, 1.0, 5),))  # fmt: skip
    with CacheWriter(tmp_path / 'b', meta) as writer:
        writer.append(
            id='0', instruction='x', outcome='success', source='teleop', policy_id='',
            images={'front': np.zeros((2, 16, 20, 3), np.uint8)}, state=np.zeros((2, 3), 'f4'),
            action=np.zeros((2, 1), 'f4'), reward=np.array([0, 1], 'f4'),
            terminated=np.array([0, 1]), truncated=np.zeros(2),
        )  # fmt: skip
    with pytest.raises(TrainingError, match='another contract'):
        replay(cache, tmp_path / 'b')


def test_rewards_that_a_sigmoid_cannot_reach_are_refused(tmp_path):
    episodes = random_episodes([3], ['success'])
    episodes[0]['reward'] = np.array([1, 1, 1], np.float32)
    with pytest.raises(TrainingError, match='sigmoid'):
        replay(write_cache(tmp_path / 'c', episodes))


def test_state_statistics_cover_the_rows_drawn_and_spare_constants(tmp_path):
    episodes = random_episodes([20, 9], ['success', 'unknown'])
    for episode in episodes:
        episode['state'][:, 2] = 4.0
    mean, std = replay(write_cache(tmp_path / 'c', episodes)).state_statistics()
    assert mean[0] == pytest.approx(9.5)
    assert std[0] == pytest.approx(np.arange(20).std(), rel=1e-5)
    assert (mean[2], std[2]) == (4.0, pytest.approx(1e-3))
