from dataclasses import replace

import pytest
import torch

from training.config import load_config
from training.errors import TrainingError
from training.model import QTransformer
from training.signature import Signature
from training.tokens import ActionDim, ActionSpace

SIGNATURE = Signature(
    'name: test\n',
    'hash',
    {'front': (16, 20), 'wrist': (12, 12)},
    ('a', 'b', 'c'),
    ActionSpace(
        [
            ActionDim('x', -1, 1, 7),
            ActionDim('y', 0, 1, 3),
            ActionDim('z', 0, 1, 5),
            ActionDim('grip', 0, 1, 2),
        ]
    ),
)


ATOMS = ['model.atoms=9', 'loss.error=hl_gauss']
BEST = torch.ones(5)  # return that `greedy` asks for
RETURN = ['model.return_token=true', 'loss.objective=cloning']
SHARED = ['model.shared_encoder=true']
LEARNER = ['model.pool=token_learner', 'model.temperature=2.0']
OPTIONS = [(1, ()), (3, ()), (2, ATOMS), (2, RETURN), (3, SHARED), (2, LEARNER)]
SIZES = {'front': (16, 20), 'wrist': (16, 20)}  # for a shared encoder


@pytest.fixture(params=OPTIONS)
def model(request, small_config):
    window, overrides = request.param
    torch.manual_seed(window)
    config = small_config(f'model.window={window}', *overrides)
    signature = replace(SIGNATURE, cameras=SIZES) if overrides == SHARED else SIGNATURE
    net = QTransformer(config.model, signature).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # far from the quiet start, so that errors show
            parameter.add_(0.3 * torch.randn_like(parameter))
    return net


def sizes(model):
    return SIZES if model.config.shared_encoder else SIGNATURE.cameras


def inputs(model, number=5):
    window = model.config.window
    text = torch.randn(number, 16)
    images = {
        name: torch.randint(0, 256, (number * window, *size, 3), dtype=torch.uint8)
        for name, size in sizes(model).items()
    }
    state = torch.randn(number * window, 3)
    tokens = model.encode_frames(images, state, text.repeat_interleave(window, 0))
    frames = tokens.unflatten(0, (number, window))
    present = torch.arange(window) >= torch.randint(0, window, (number, 1))
    bins = torch.stack([torch.randint(0, n, (number,)) for n in SIGNATURE.bins], dim=1)
    return frames, present, text, bins


def test_greedy_with_caches_equals_the_argmax_chain_without(model):
    for seed in range(10):
        torch.manual_seed(seed)
        frames, present, text, _ = inputs(model)
        bins, q = model.greedy(frames, present, text)
        chain = torch.zeros_like(bins)
        for dim in range(model.dims):
            full = model.q(model.logits(frames, present, text, chain, BEST))
            chain[:, dim] = full[:, dim].argmax(-1)
        assert torch.equal(bins, chain)
        assert torch.allclose(
            q, model.q(model.logits(frames, present, text, bins, BEST)), atol=1e-5
        )


@pytest.mark.parametrize('kind', ['right', 'wrong', 'random', 'half'])
def test_guesses_change_how_long_it_takes_and_nothing_else(model, kind):
    """Invariant 3 with dimensions guessed ahead: the chain is the same whatever the guess."""
    for seed in range(10):
        torch.manual_seed(seed)
        frames, present, text, bins = inputs(model, 1 + seed % 3)
        chain, q = model.greedy(frames, present, text)
        counts = torch.tensor(SIGNATURE.bins)
        guess = {
            'right': chain,
            'wrong': (chain + 1) % counts,
            'random': bins,
            'half': torch.where(torch.arange(4) % 2 == 0, chain, bins),
        }[kind]
        guessed, q_guessed = model.greedy(frames, present, text, guess)
        assert torch.equal(guessed, chain)
        assert torch.allclose(q_guessed, q, atol=1e-5)


def test_a_right_guess_takes_one_pass_and_the_worst_as_many_as_dimensions(model, monkeypatch):
    frames, present, text, _ = inputs(model, 1)
    past = model.look_back(frames[:, :-1], present[:, :-1], text)
    chain, _ = model.decide(past, frames[:, -1], present)
    passes, run = [], model._run
    monkeypatch.setattr(model, '_run', lambda *given: passes.append(1) or run(*given))
    model.decide(past, frames[:, -1], present, chain)
    assert len(passes) == 1
    passes.clear()
    model.decide(past, frames[:, -1], present, (chain + 1) % torch.tensor(SIGNATURE.bins))
    assert 1 < len(passes) <= model.dims


def test_the_past_does_not_depend_on_the_newest_frame(model):
    """So it can be computed before that frame is there, and the decision is the same."""
    frames, present, text, _ = inputs(model)
    past = model.look_back(frames[:, :-1], present[:, :-1], text)
    bins, q = model.decide(past, frames[:, -1], present)
    whole, q_whole = model.greedy(frames, present, text)
    assert torch.equal(bins, whole)
    assert torch.equal(q, q_whole)
    newest = torch.randn_like(frames[:, -1])
    other = torch.cat([frames[:, :-1], newest[:, None]], dim=1)
    chain = torch.zeros_like(bins)
    for dim in range(model.dims):
        full = model.q(model.logits(other, present, text, chain, BEST))
        chain[:, dim] = full[:, dim].argmax(-1)
    assert torch.equal(model.decide(past, newest, present)[0], chain)


def test_a_shared_encoder_sees_each_camera_as_one_of_its_own_would(small_config):
    torch.manual_seed(0)
    signature = replace(SIGNATURE, cameras=SIZES)
    one = QTransformer(small_config(*SHARED).model, signature).eval()
    two = QTransformer(small_config().model, signature).eval()
    shared, apart = one.cameras.state_dict(), two.cameras.state_dict()
    assert set(apart) == {k.replace('0.', f'{i}.', 1) for k in shared for i in range(2)}
    two.cameras.load_state_dict({k: shared[f'0.{k[2:]}'] for k in apart})
    two.state.load_state_dict(one.state.state_dict())
    images = {n: torch.randint(0, 256, (3, *s, 3), dtype=torch.uint8) for n, s in SIZES.items()}
    state, text = torch.randn(3, 3), torch.randn(3, 16)
    with torch.no_grad():
        together, alone = (m.encode_frames(images, state, text) for m in (one, two))
    seen = together - alone
    tokens = one.config.image_tokens
    for camera, at in enumerate((slice(0, tokens), slice(tokens, 2 * tokens))):
        assert torch.allclose(seen[:, at], one.camera[camera].expand(3, tokens, -1), atol=1e-5)
    assert torch.allclose(seen[:, -1], torch.zeros(3, 16), atol=1e-6)
    assert one.encoders == (one.cameras[0],) * 2


def test_a_shared_encoder_refuses_cameras_of_different_sizes(small_config):
    with pytest.raises(TrainingError, match=r'front 16 x 20, wrist 12 x 12.*shared_encoder=false'):
        QTransformer(small_config(*SHARED).model, SIGNATURE)
    blind = replace(SIGNATURE, cameras={})
    model = QTransformer(small_config(*SHARED).model, blind)
    assert model.encode_frames({}, torch.zeros(2, 3), torch.zeros(2, 16)).shape == (2, 1, 16)


@pytest.mark.parametrize(
    ('preset', 'millions'), [('tiny', 1.19), ('small', 4.37), ('base', 34.5), ('large', 60.7)]
)
def test_presets_have_the_size_that_they_say(preset, millions, pytestconfig):
    """With two cameras of 128 px, a state of 7 and 8 dimensions of 256 bins."""
    file = pytestconfig.rootpath / 'config' / 'training' / f'{preset}.yaml'
    cameras = {'front': (128, 128), 'wrist': (128, 128)}
    dims = [ActionDim(f'd{i}', -1, 1, 256) for i in range(8)]
    signature = Signature('', '', cameras, tuple('abcdefg'), ActionSpace(dims))
    with torch.device('meta'):
        model = QTransformer(load_config(file).model, signature)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)


def test_a_later_dimension_never_changes_an_earlier_q(model):
    frames, present, text, bins = inputs(model)
    before = model.logits(frames, present, text, bins)
    for dim in range(model.dims):
        changed = bins.clone()
        changed[:, dim] = (bins[:, dim] + 1) % SIGNATURE.bins[dim]
        after = model.logits(frames, present, text, changed)
        assert torch.equal(after[:, : dim + 1], before[:, : dim + 1])
        if dim + 1 < model.dims:
            assert not torch.allclose(after[:, dim + 1 :], before[:, dim + 1 :])


def test_bins_that_do_not_exist_have_q_zero_and_are_never_chosen(model):
    with torch.no_grad():
        model.bias.fill_(-200.0)  # every Q underflows to 0: ties everywhere
    frames, present, text, bins = inputs(model)
    q = model.q(model.logits(frames, present, text, bins, BEST))
    for dim, count in enumerate(SIGNATURE.bins):
        assert (q[:, dim, count:] == 0).all()
    chosen, _ = model.greedy(frames, present, text)
    assert (chosen < torch.tensor(SIGNATURE.bins)).all()


def test_frames_before_the_start_are_invisible(small_config):
    torch.manual_seed(0)
    model = QTransformer(small_config('model.window=3').model, SIGNATURE).eval()
    frames, _, text, bins = inputs(model)
    present = torch.tensor([[False, False, True]]).expand(5, 3)
    other = frames.clone()
    other[:, :2] = 1e3 * torch.randn_like(other[:, :2])
    assert torch.equal(
        model.logits(frames, present, text, bins), model.logits(other, present, text, bins)
    )
    everything = torch.ones_like(present)
    assert not torch.equal(
        model.logits(frames, everything, text, bins), model.logits(other, everything, text, bins)
    )


def test_q_starts_low(small_config):
    torch.manual_seed(0)
    model = QTransformer(small_config().model, SIGNATURE).eval()
    frames, present, text, bins = inputs(model)
    with torch.no_grad():
        assert float(model.q(model.logits(frames, present, text, bins, BEST)).max()) < 0.05


def test_the_answer_depends_on_every_input(model):
    torch.manual_seed(3)
    frames, present, text, bins = inputs(model, 1)
    base = model.logits(frames, present, text, bins)
    assert not torch.allclose(model.logits(frames, present, text + 1, bins), base)
    images = {n: torch.zeros(1, *s, 3, dtype=torch.uint8) for n, s in sizes(model).items()}
    state = torch.zeros(1, 3)
    tokens = model.encode_frames(images, state, text)
    for name in images:
        lit = {**images, name: images[name].clone()}
        lit[name][:, 4:8, 4:8] = 255
        assert not torch.allclose(model.encode_frames(lit, state, text), tokens)
    assert not torch.allclose(model.encode_frames(images, state + 1, text), tokens)
    assert not torch.allclose(model.encode_frames(images, state, text + 1), tokens)


def test_one_dimension_and_no_camera_work(small_config):
    signature = Signature('', '', {}, ('a',), ActionSpace([ActionDim('x', 0, 1, 4)]))
    model = QTransformer(small_config('model.window=1').model, signature)
    text = torch.zeros(2, 16)
    frames = model.encode_frames({}, torch.zeros(2, 1), text).unsqueeze(1)
    present = torch.ones(2, 1, dtype=torch.bool)
    bins, q = model.greedy(frames, present, text)
    assert (bins.shape, q.shape) == ((2, 1), (2, 1, 4))


def test_a_wanted_return_changes_every_answer(small_config):
    torch.manual_seed(0)
    model = QTransformer(small_config(*RETURN).model, SIGNATURE).eval()
    frames, present, text, bins = inputs(model)
    good = model.logits(frames, present, text, bins, torch.ones(5))
    bad = model.logits(frames, present, text, bins, torch.zeros(5))
    assert (good - bad).abs().amax((0, 2)).min() > 0


def test_temperature_flattens_attention(small_config):
    """The hotter, the less one token can stand out: answers come closer to those of an average."""
    torch.manual_seed(0)
    models = [
        QTransformer(small_config(f'model.temperature={t}').model, SIGNATURE).eval()
        for t in (0.2, 1.0, 1e6)
    ]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    x = 3 * torch.randn(2, 5, 16)
    spread = []
    for model in models:
        block = model.blocks[0].requires_grad_(False)
        normed = block.norm_attention(x)
        keys = block._split(block.key_value(normed).chunk(2, -1)[0])
        weights = (
            block._split(block.query(normed)) @ keys.transpose(-1, -2) * block.scale
        ).softmax(-1)
        spread.append(float(weights.amax(-1).mean()))
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] == pytest.approx(1 / 5, abs=1e-4)
