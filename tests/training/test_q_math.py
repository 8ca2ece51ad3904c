import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.q_math import (
    at_least,
    atom_values,
    atom_weights,
    backup,
    bin_error,
    bin_mask,
    cloning_loss,
    monte_carlo_returns,
    n_step_targets,
    neighbour_weights,
    per_dim_targets,
    q_losses,
    q_values,
    softmax_gap,
)

COUNTS = (5, 3, 2)


def rows(number, seed=0, scale=1.0):
    torch.manual_seed(seed)
    logits = (scale * torch.randn(number, 3, 5)).masked_fill(~bin_mask(COUNTS), -1e4)
    bins = torch.stack([torch.randint(0, n, (number,)) for n in COUNTS], dim=1)
    return logits, bins, torch.rand(number, 3)


def losses(logits, bins, targets, **options):
    number = len(bins)
    options.setdefault('td_mask', torch.ones(number, 3, dtype=torch.bool))
    options.setdefault('row_mask', torch.ones(number, dtype=torch.bool))
    return q_losses(logits, bins, targets, COUNTS, **options)


def test_returns_equal_hand_computed_ones():
    reward = np.array([0, 0, 1, 0, 0, 0.5, 0, 1], np.float32)
    returns = monte_carlo_returns(reward, np.array([0, 3, 5]), 0.5)
    assert returns.tolist() == [0.25, 0.5, 1.0, 0.0, 0.0, 0.75, 0.5, 1.0]


@given(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=1, max_size=30), st.floats(0, 1))
def test_returns_obey_their_recursion(reward, gamma):
    returns = monte_carlo_returns(np.array(reward, np.float32), np.array([0]), gamma)
    after = np.append(returns[1:], 0.0)
    assert np.allclose(returns, np.array(reward) + gamma * after, atol=1e-4)


def test_termination_stops_the_bootstrap_and_nothing_else_does():
    reward = torch.tensor([0.0, 1.0, 0.0])
    terminated = torch.tensor([False, True, True])
    target = backup(reward, terminated, torch.tensor([0.5, 0.5, float('inf')]), 0.9)
    assert target.tolist() == pytest.approx([0.45, 1.0, 0.0])


def test_per_dimension_targets_shift_by_one_and_discount_only_the_last():
    best = torch.tensor([[0.1, 0.2, 0.3]])
    args = (torch.tensor([0.4]), torch.tensor([0.25]), torch.tensor([False]))
    target = per_dim_targets(best, *args, gamma=0.5)
    assert target.tolist() == [pytest.approx([0.2, 0.3, 0.25 + 0.5 * 0.4])]


def test_n_step_gives_every_dimension_the_same_target():
    target = n_step_targets(
        torch.tensor([0.4]), torch.tensor([0.0]), torch.tensor([False]), 0.5, dims=3
    )
    assert target.tolist() == [pytest.approx([0.2, 0.2, 0.2])]
    raised = at_least(target, torch.tensor([0.7]))
    assert raised.tolist() == [pytest.approx([0.7, 0.7, 0.7])]


def test_smoothing_leaves_a_two_bin_dimension_alone():
    near = neighbour_weights(torch.tensor([[2, 1, 0]]), COUNTS, 0.25)[0]
    assert near[0].tolist() == pytest.approx([0.1353, 0.6065, 1, 0.6065, 0.1353], abs=1e-3)
    assert near[2, 0] == 1
    assert near[2, 1] < 1e-3
    assert near[1, 3:].tolist() == [0, 0]
    sharp = neighbour_weights(torch.tensor([[2, 1, 0]]), COUNTS, 0.0)
    assert sharp.sum() == 3


@pytest.mark.parametrize('error', ['squared', 'cross_entropy'])
@pytest.mark.parametrize('conservative', ['mean', 'per_bin'])
def test_losses_equal_a_plain_loop(error, conservative):
    logits, bins, targets = rows(4)
    td, low = losses(logits, bins, targets, error=error, conservative=conservative)
    q = torch.sigmoid(logits.double())

    def distance(q, y):
        if error == 'squared':
            return 0.5 * (q - y) ** 2
        return -(y * q.log() + (1 - y) * (1 - q).log())

    td_sum, low_sum = 0.0, 0.0
    for n in range(4):
        for i, count in enumerate(COUNTS):
            chosen = int(bins[n, i])
            td_sum += distance(q[n, i, chosen], targets[n, i].double())
            others = [distance(q[n, i, b], torch.tensor(0.0)) for b in range(count) if b != chosen]
            low_sum += sum(others) / (count - 1 if conservative == 'mean' else 4)
    assert float(td) == pytest.approx(float(td_sum) / 12, rel=1e-5)
    assert float(low) == pytest.approx(float(low_sum) / 12, rel=1e-5)


def test_loss_is_a_mean_over_rows():
    logits, bins, targets = rows(6)
    one = losses(logits, bins, targets)
    twice = losses(*(torch.cat([x, x]) for x in (logits, bins, targets)))
    assert torch.allclose(torch.stack(one), torch.stack(twice))


@pytest.mark.parametrize('error', ['squared', 'cross_entropy'])
def test_masked_rows_and_targets_do_not_count(error):
    logits, bins, targets = rows(6)
    keep = torch.tensor([True, True, False, True, False, True])
    known = torch.rand(6, 3) < 0.6
    masked = losses(logits, bins, targets, row_mask=keep, td_mask=known, error=error)
    cut = losses(logits[keep], bins[keep], targets[keep], td_mask=known[keep], error=error)
    assert torch.allclose(torch.stack(masked), torch.stack(cut))
    wild = targets.masked_fill(~(known & keep.unsqueeze(-1)), 0.123)
    again = losses(logits, bins, wild, row_mask=keep, td_mask=known, error=error)
    assert torch.allclose(torch.stack(masked), torch.stack(again))


def test_nothing_to_learn_from_is_zero_not_nan():
    logits, bins, targets = rows(2)
    td, low = losses(logits, bins, targets, row_mask=torch.zeros(2, dtype=torch.bool))
    assert (float(td), float(low)) == (0.0, 0.0)


def test_iterating_the_targets_on_a_table_gives_the_optimal_values():
    """Two states, 3 x 2 actions: per-dimension tables converge to value iteration's Q*."""
    rng = np.random.default_rng(1)
    reward = torch.tensor(rng.uniform(0, 0.2, (4, 3, 2)), dtype=torch.float64)
    after = torch.tensor(rng.integers(0, 4, (4, 3, 2)))
    ended = torch.tensor(rng.random((4, 3, 2)) < 0.3)
    gamma, best = 0.8, torch.zeros(4, dtype=torch.float64)
    for _ in range(200):
        exact = reward + gamma * torch.where(ended, 0.0, best[after])
        best = exact.amax((1, 2))
    first = torch.zeros(4, 3, dtype=torch.float64)
    second = torch.zeros(4, 3, 2, dtype=torch.float64)
    for _ in range(400):
        now = torch.stack([first.amax(-1)[:, None, None].expand(4, 3, 2), second.amax(-1, True)
                           .expand(4, 3, 2)], dim=-1)  # fmt: skip
        target = per_dim_targets(now, first.amax(-1)[after], reward, ended, gamma)
        first, second = target[..., 0].amax(-1), target[..., 1]
    assert torch.allclose(second, exact, atol=1e-9)
    assert torch.allclose(first, exact.amax(-1), atol=1e-9)


@given(st.floats(0, 1), st.integers(8, 101))
def test_a_histogram_of_atoms_has_the_mean_of_its_target(aim, atoms):
    weights = atom_weights(torch.tensor([aim], dtype=torch.float64), atoms)[0]
    assert float(weights.sum()) == pytest.approx(1)
    assert (weights >= 0).all()
    mean = weights @ atom_values(atoms).double()
    assert float(mean) == pytest.approx(aim, abs=0.001 / (atoms - 7) ** 0.5)


def test_the_best_distribution_of_atoms_has_its_targets_mean():
    """Gradient descent on the error alone brings Q to the target, in every bin of its own."""
    aims = torch.tensor([[[0.0, 0.3, 1.0], [0.77, 0.5, 0.0]]])
    logits = torch.zeros(1, 2, 3, 51, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        bin_error(logits, aims, 'hl_gauss').sum().backward()
        optimizer.step()
    exists = torch.tensor([[True, True, True], [True, True, False]])
    q = q_values(logits.detach(), exists, 51)
    assert torch.allclose(q * exists, aims * exists, atol=0.02)
    assert q[0, 1, 2] == 0


def test_atoms_obey_the_rules_of_the_other_errors():
    torch.manual_seed(0)
    logits = torch.randn(6, 3, 5, 11, requires_grad=True)
    _, bins, targets = rows(6)
    td, low = losses(logits, bins, targets, error='hl_gauss')
    (gradient,) = torch.autograd.grad(low, logits, retain_graph=True)
    chosen = torch.nn.functional.one_hot(bins, 5).bool()
    assert (gradient[chosen] == 0).all()
    assert (gradient[~bin_mask(COUNTS).expand(6, 3, 5)] == 0).all()
    (gradient,) = torch.autograd.grad(td, logits)
    assert (gradient[~chosen] == 0).all()


def test_the_softmax_regulariser_equals_a_plain_loop():
    logits, bins, targets = rows(4)
    _, low = losses(logits, bins, targets, conservative='softmax')
    q = torch.sigmoid(logits.double())
    total = 0.0
    for n in range(4):
        for i, count in enumerate(COUNTS):
            total += float(q[n, i, :count].exp().sum().log() - q[n, i, bins[n, i]])
    assert float(low) == pytest.approx(total / 12, rel=1e-5)
    # It is least where only the data's bin is high, and never below log(1 + (n - 1) / e).
    best = torch.zeros(1, 3, 5).scatter(-1, bins[:1].unsqueeze(-1), 1.0)
    floor = [np.log(1 + (n - 1) / np.e) for n in COUNTS]
    assert softmax_gap(best, bins[:1], COUNTS)[0].tolist() == pytest.approx(floor)


def test_cloning_is_cross_entropy_over_the_bins_that_exist():
    logits, bins, _ = rows(5)
    keep = torch.tensor([True, False, True, True, False])
    by_hand = 0.0
    for n in np.flatnonzero(keep):
        for i, count in enumerate(COUNTS):
            by_hand -= float(logits[n, i, :count].log_softmax(-1)[bins[n, i]])
    found = cloning_loss(logits, bins, COUNTS, row_mask=keep)
    assert float(found) == pytest.approx(by_hand / 9, rel=1e-5)
    # With smoothing the best distribution is the normalised Gaussian, still highest at the bin.
    free = torch.zeros(5, 3, 5).masked_fill(~bin_mask(COUNTS), -1e4).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=0.2)
    for _ in range(200):
        optimizer.zero_grad()
        cloning_loss(
            free, bins, COUNTS, row_mask=torch.ones(5, dtype=torch.bool), smoothing=0.25
        ).backward()
        optimizer.step()
    assert (free.argmax(-1) == bins).all()
    near = neighbour_weights(bins, COUNTS, 0.25)
    best = near / near.sum(-1, keepdim=True)
    assert torch.allclose(free.detach().softmax(-1), best, atol=0.02)
