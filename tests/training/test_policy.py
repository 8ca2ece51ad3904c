from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.cache import Cache
from training.data import Replay
from training.errors import TrainingError
from training.policy import GUESSED, Policy
from training.text import encode_text
from training.train import train


@dataclass(frozen=True)
class Seen:
    images: dict
    state: np.ndarray


@pytest.fixture(params=[1, 3])
def run(request, cache, tmp_path, small_config):
    config = small_config(f'model.window={request.param}', 'optim.lr=0.02', 'data.shift_px=0')
    return train([cache], tmp_path / 'run', config).run


def observations(cache, episode):
    opened = Cache.open(cache)
    meta = opened.meta.episodes[episode]
    return [
        Seen({'front': np.array(opened.images['front'][row])}, np.array(opened.state[row]))
        for row in range(meta.start, meta.stop)
    ], opened.meta.instructions[meta.instruction]


def test_acting_equals_the_uncached_chain_on_the_training_batch(run, cache, small_config):
    """Frames kept one by one at run time give the bins that whole training windows give."""
    policy = Policy.load(run)
    model = policy.model
    window = model.config.window
    seen, instruction = observations(cache, 0)
    config = small_config('data.segment=1', 'data.batch=1', 'data.shift_px=0')
    data = Replay([cache], config.data, window=window, gamma=0.9, text_encoder='hashed',
                  text_size=16)  # fmt: skip
    policy.reset(instruction)
    for row, observation in enumerate(seen):
        decision = policy.act(observation)
        batch = data.gather(np.array([0]), np.array([row]), np.zeros((1, 1, 2), int))
        chain = torch.zeros(1, 3, dtype=torch.long)
        with torch.no_grad():
            for dim in range(3):
                text = batch.text.repeat(window, 1)
                images = {'front': batch.images['front'][0, :window]}
                tokens = model.encode_frames(images, batch.state[0, :window], text)[None]
                logits = model.logits(tokens, batch.present[:, :window], batch.text, chain)
                chain[0, dim] = logits[0, dim].argmax()
        assert decision.bins.tolist() == chain[0].tolist()
        q = torch.sigmoid(logits[0])
        for dim, count in enumerate(policy.signature.bins):
            assert decision.q_values[dim].shape == (count,)
        assert decision.q[2] == pytest.approx(float(q[2, chain[0, 2]]), abs=1e-5)


def test_a_decision_holds_bin_centres_and_their_q(run, cache):
    policy = Policy.load(run)
    seen, instruction = observations(cache, 1)
    policy.reset(instruction)
    decision = policy.act(seen[0])
    assert (decision.action.dtype, decision.bins.dtype) == (np.float64, np.int64)
    assert np.array_equal(decision.action, policy.signature.action.to_values(decision.bins))
    assert [int(q.argmax()) for q in decision.q_values] == decision.bins.tolist()
    assert [q.max() for q in decision.q_values] == decision.q.tolist()
    assert [dim['name'] for dim in policy.action] == ['x', 'y', 'grip']


def test_reset_forgets_the_episode_before(run, cache):
    policy = Policy.load(run)
    seen, instruction = observations(cache, 0)
    policy.reset(instruction)
    first = [policy.act(o) for o in seen[:4]]
    policy.reset(instruction)
    again = [policy.act(o) for o in seen[:4]]
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.q, two.q)


def test_it_runs_the_averaged_weights_and_knows_where_it_comes_from(run):
    policy = Policy.load(run)
    newest = sorted((run / 'checkpoints').iterdir())[-1]
    from safetensors.torch import load_file

    target = load_file(newest / 'target.safetensors')
    assert all(torch.equal(v, target[k]) for k, v in policy.model.state_dict().items())
    assert policy.policy_id.startswith('run@12-')
    assert (policy.contract_text, policy.contract_hash) == ('name: test\n', 'hash')
    assert dict(policy.cameras) == {'front': (16, 20)}
    older = Policy.load(run / 'checkpoints' / 'step_0000006')
    assert older.policy_id.startswith('run@6-')


def test_any_instruction_is_allowed(run, cache):
    policy = Policy.load(run)
    seen, _ = observations(cache, 0)
    policy.reset('please juggle')
    unknown = policy.act(seen[0]).q
    stored = policy.embeddings['go left']
    assert np.array_equal(stored, encode_text('go left', 'hashed', 16))
    policy.reset('go left')
    assert not np.array_equal(policy.act(seen[0]).q, unknown)


def test_warm_up_leaves_a_running_episode_alone(run, cache):
    seen, instruction = observations(cache, 0)
    policy, other = Policy.load(run), Policy.load(run)
    for each in (policy, other):
        each.reset(instruction)
        each.act(seen[0])
    policy.warm_up()
    assert np.array_equal(policy.act(seen[1]).q, other.act(seen[1]).q)
    fresh = Policy.load(run)
    fresh.warm_up()
    with pytest.raises(TrainingError, match='reset'):
        fresh.act(seen[0])


def test_an_observation_that_does_not_fit_is_refused_with_all_reasons(run, cache):
    policy = Policy.load(run)
    seen, instruction = observations(cache, 0)
    policy.reset(instruction)
    good = seen[0]
    bad = Seen({'front': np.zeros((8, 8, 3), np.uint8)}, np.array([0, np.nan, 0], np.float32))
    with pytest.raises(TrainingError) as error:
        policy.act(bad)
    assert len(error.value.problems) == 2
    assert 's1' in str(error.value)
    for wrong, word in (
        (replace(good, images={}), 'front is missing'),
        (replace(good, state=np.zeros(2, np.float32)), r'expected \(3,\)'),
        (replace(good, images={'front': good.images['front'].astype(np.float32)}), 'uint8'),
    ):
        with pytest.raises(TrainingError, match=word):
            policy.act(wrong)
    # A refused observation leaves no trace in the window.
    twin = Policy.load(run)
    twin.reset(instruction)
    assert np.array_equal(policy.act(good).q, twin.act(good).q)


def test_loading_what_is_not_there_says_so(tmp_path):
    with pytest.raises(TrainingError, match='train one first'):
        Policy.load(tmp_path)


def test_scores_of_actions_are_those_of_the_training_pass(run, cache):
    """One shared prefix for all actions gives the Q of the whole window repeated for each."""
    policy, other = Policy.load(run), Policy.load(run)
    seen, instruction = observations(cache, 4)
    for each in (policy, other):
        each.reset(instruction)
        for observation in seen[:2]:
            each.act(observation)
    decision = other.act(seen[2])
    rng = np.random.default_rng(0)
    chosen = [[rng.integers(n) for n in policy.signature.bins] for _ in range(7)]
    actions = np.stack([*policy.signature.action.to_values(np.array(chosen)), decision.action])
    scores = policy.score(seen[2], actions)
    assert scores.shape == (8,)
    assert scores[-1] == pytest.approx(decision.q[-1], abs=1e-5)
    model, session = policy.model, policy._session
    with torch.no_grad():
        frames, present = session.window(policy._encode([seen[2]], session.text))
        bins = torch.from_numpy(policy.signature.action.to_bins(actions))
        inputs = (x.expand(8, *x.shape[1:]) for x in (frames, present, session.text))
        q = model.q(model.logits(*inputs, bins))
    assert np.allclose(scores, q[:, -1].gather(-1, bins[:, -1:])[:, 0].numpy(), atol=1e-5)
    # The greedy action is the best at every dimension, others fall short.
    assert np.allclose(policy.advantage(seen[2], decision.action), 0, atol=1e-6)
    short = np.stack([policy.advantage(seen[2], action) for action in actions[:-1]])
    assert short.max() <= 1e-6
    assert short.min() < 0
    assert np.array_equal(policy.act(seen[2]).q, decision.q)  # asking changed nothing


def test_several_episodes_at_once_decide_as_each_alone(run, cache):
    policy = Policy.load(run)
    runs = [observations(cache, episode) for episode in (0, 1, 2)]
    sessions = [policy.start(instruction) for _, instruction in runs]
    together = [policy.act_all(sessions, [seen[step] for seen, _ in runs]) for step in range(4)]
    for number, (seen, instruction) in enumerate(runs):
        policy.reset(instruction)
        for step in range(4):
            alone = policy.act(seen[step])
            assert alone.bins.tolist() == together[step][number].bins.tolist()
            assert np.allclose(alone.q, together[step][number].q, atol=1e-5)
    before = [frame.clone() for frame in sessions[0].frames]
    with pytest.raises(TrainingError, match='state'):
        policy.act_all(sessions[:2], [runs[0][0][0], replace(runs[1][0][0], state=np.zeros(9))])
    assert all(map(torch.equal, before, sessions[0].frames))


def test_looking_ahead_and_observing_first_change_no_decision(run, cache):
    """Whatever is done early, the decisions are those of `act`, to the bit."""
    plain, ahead, apart = (Policy.load(run) for _ in range(3))
    seen, instruction = observations(cache, 0)
    for each in (plain, ahead, apart):
        each.reset(instruction)
    ahead.look_ahead()  # nothing to look ahead from yet
    for number, observation in enumerate(seen):
        expected = plain.act(observation)
        early = ahead.act(observation)
        ahead.look_ahead()
        if number % 2:
            ahead.look_ahead()
        apart.observe(observation)
        late = apart.decide()
        again = apart.decide()
        assert np.array_equal(early.q, expected.q)
        assert np.array_equal(late.q, expected.q)
        assert again.bins.tolist() == late.bins.tolist()
    ahead.reset(instruction)  # a new episode does not see what was prepared for the old one
    plain.reset(instruction)
    assert np.array_equal(ahead.act(seen[0]).q, plain.act(seen[0]).q)


def test_an_observation_between_looking_ahead_and_deciding_is_seen(run, cache):
    policy, other = Policy.load(run), Policy.load(run)
    seen, instruction = observations(cache, 0)
    for each in (policy, other):
        each.reset(instruction)
        each.act(seen[0])
    policy.look_ahead()
    for each in (policy, other):
        each.observe(seen[1])
        each.observe(seen[2])
    decided, expected = policy.decide(), other.decide()
    assert decided.bins.tolist() == expected.bins.tolist()
    assert np.allclose(decided.q, expected.q, atol=1e-6)


def test_deciding_before_any_observation_says_so(run):
    policy = Policy.load(run)
    for act in (policy.decide, lambda: policy.observe(Seen({}, np.zeros(3)))):
        with pytest.raises(TrainingError, match='reset'):
            act()
    policy.look_ahead()
    policy.reset('go left')
    with pytest.raises(TrainingError, match='no observation yet'):
        policy.decide()


def test_more_episodes_than_are_guessed_for_decide_as_each_alone(run, cache):
    policy = Policy.load(run)
    seen, instruction = observations(cache, 0)
    sessions = [policy.start(instruction) for _ in range(GUESSED + 2)]
    policy.reset(instruction)
    for observation in seen[:3]:
        together = policy.act_all(sessions, [observation] * len(sessions))
        alone = policy.act(observation)
        assert all(each.bins.tolist() == alone.bins.tolist() for each in together)


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_score_and_advantage_are_what_they_are_defined_to_be(steady, data):
    """Q of the last dimension; Q of each dimension minus its best, both given those before."""
    policy, seen, instruction = steady
    steps = data.draw(st.integers(0, 3), label='steps before')
    policy.reset(instruction)
    for observation in seen[:steps]:
        policy.act(observation)
    number = data.draw(st.integers(1, 5), label='actions')
    bins = np.array(
        [[data.draw(st.integers(0, n - 1)) for n in policy.signature.bins] for _ in range(number)]
    )
    actions = policy.signature.action.to_values(bins)
    passes, run = [], policy.model._run
    policy.model._run = lambda *given: passes.append(len(given[0])) or run(*given)
    try:
        scores = policy.score(seen[steps], actions)
    finally:
        policy.model._run = run
    assert passes == [1, number]  # the window once, then one pass for all actions and dimensions
    model, session = policy.model, policy._session
    with torch.no_grad():
        frames, present = session.window(policy._encode([seen[steps]], session.text))
        for row in range(number):
            chosen = torch.from_numpy(bins[row : row + 1])
            q = model.q(model.logits(frames, present, session.text, chosen))[0].numpy()
            taken = q[np.arange(3), bins[row]]
            assert scores[row] == pytest.approx(taken[-1], abs=1e-5)
            short = policy.advantage(seen[steps], actions[row])
            assert np.allclose(short, taken - q.max(-1), atol=1e-5)
            assert (short <= 0).all()


@pytest.fixture
def steady(run, cache):
    policy = Policy.load(run)
    return policy, *observations(cache, 0)
