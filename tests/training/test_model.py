import pytest
import torch

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


@pytest.fixture(params=[(1, ()), (3, ()), (2, ATOMS), (2, RETURN)])
def model(request, small_config):
    window, overrides = request.param
    torch.manual_seed(window)
    config = small_config(f'model.window={window}', *overrides)
    net = QTransformer(config.model, SIGNATURE).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # far from the quiet start, so that errors show
            parameter.add_(0.3 * torch.randn_like(parameter))
    return net


def inputs(model, number=5):
    window = model.config.window
    text = torch.randn(number, 16)
    images = {
        name: torch.randint(0, 256, (number * window, *size, 3), dtype=torch.uint8)
        for name, size in SIGNATURE.cameras.items()
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
    images = {n: torch.zeros(1, *s, 3, dtype=torch.uint8) for n, s in SIGNATURE.cameras.items()}
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
