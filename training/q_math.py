"""Returns, targets and losses of the Q-Transformer as pure functions.

Source: Chebotar et al., "Q-Transformer", CoRL 2023, arXiv 2309.10150.

Shapes: A action dimensions, K the largest number of bins, `...` any leading shape (rows).
Dimension i has `counts[i]` bins; the columns behind them are masked: their Q is 0 and they take
part in nothing. Rewards are >= 0 and returns lie in [0, 1], because Q = sigmoid(logit).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# Width of a target's Gaussian over atoms, in atoms: what 2403.03950 found best throughout.
HL_GAUSS_WIDTH = 0.75
# Atoms beyond either end of [0, 1], or a target at an end would lose half of its Gaussian and with
# it its mean, an error that bootstrapping adds up.
MARGIN = 3


def monte_carlo_returns(reward: np.ndarray, starts: np.ndarray, gamma: float) -> np.ndarray:
    """Return the discounted return-to-go (rows,) float32 of every row.

    reward: (rows,); starts: (episodes,) the first row of each episode, ascending, starts[0] == 0.
    Example: rewards 0 0 1 with gamma .5 give .25 .5 1.
    """
    returns = np.zeros(len(reward), dtype=np.float64)
    ends = np.append(starts[1:], len(reward))
    for start, end in zip(starts, ends, strict=True):
        total = 0.0
        for row in range(end - 1, start - 1, -1):
            total = float(reward[row]) + gamma * total
            returns[row] = total
    return returns.astype(np.float32)


def backup(reward: Tensor, terminated: Tensor, next_q: Tensor, gamma: float) -> Tensor:
    """Return R + gamma * next_q, without next_q where the episode truly ended.

    A time-out is not an end: its next state is worth what it is worth, so it still bootstraps.
    """
    return reward + gamma * torch.where(terminated, torch.zeros_like(next_q), next_q)


def per_dim_targets(
    best_now: Tensor, best_next: Tensor, reward: Tensor, terminated: Tensor, gamma: float
) -> Tensor:
    """Return the targets (..., A) of the per-dimension Bellman backup.

    best_now: (..., A) max over the bins of dimension i of Q_target(s_t, a_t^{1:i-1}, .);
    best_next: (...) max over the bins of dimension 1 of Q_target(s_{t+1}, .); reward, terminated:
    (...). Dimension i < A aims at the best of dimension i+1, undiscounted; the last one at the
    reward and the discounted best of the next step.
    """
    last = backup(reward, terminated, best_next, gamma)
    return torch.cat([best_now[..., 1:], last.unsqueeze(-1)], dim=-1)


def n_step_targets(
    best_next_last: Tensor, reward: Tensor, terminated: Tensor, gamma: float, dims: int
) -> Tensor:
    """Return the targets (..., A) that skip the maxima over dimensions.

    best_next_last: (...) max over the bins of the LAST dimension of
    Q_target(s_{t+1}, a_{t+1}^{1:A-1} of the data, .). All dimensions share one target.
    """
    target = backup(reward, terminated, best_next_last, gamma)
    return target.unsqueeze(-1).expand(*target.shape, dims)


def at_least(targets: Tensor, returns: Tensor) -> Tensor:
    """Raise the targets (..., A) to the Monte-Carlo return-to-go (...) where that is larger."""
    return torch.maximum(targets, returns.unsqueeze(-1))


def bin_mask(counts: tuple[int, ...]) -> Tensor:
    """Return (A, K) bool: True for the bins that dimension i really has."""
    return torch.arange(max(counts)) < torch.tensor(counts).unsqueeze(-1)


def neighbour_weights(bins: Tensor, counts: tuple[int, ...], smoothing: float) -> Tensor:
    """Return (..., A, K) in [0, 1]: 1 at the dataset's bin, a Gaussian around it, else 0.

    smoothing: standard deviation as a fraction of the dimension's range, so that a 2-bin gripper
    is left alone by a width that spans a few bins of a joint; 0 gives a one-hot vector.
    """
    steps = torch.arange(max(counts), device=bins.device)
    distance = (steps - bins.unsqueeze(-1)).to(torch.float32)  # (..., A, K)
    if smoothing <= 0:
        return (distance == 0).to(torch.float32)
    sigma = smoothing * (torch.tensor(counts, device=bins.device) - 1).unsqueeze(-1)  # (A, 1)
    return torch.exp(-0.5 * (distance / sigma) ** 2) * bin_mask(counts).to(bins.device)


def q_values(logits: Tensor, exists: Tensor, atoms: int = 1) -> Tensor:
    """Return Q (..., A, K) in [0, 1] of what the network puts out; 0 for bins that do not exist.

    logits: (..., A, K), of which Q is the sigmoid, or with several atoms (..., A, K, atoms), a
    distribution over `atom_values`, of which Q is the mean. exists: (A, K) bool, see `bin_mask`.
    """
    if atoms == 1:
        return torch.sigmoid(logits)  # exactly 0 where the logit is masked
    values = atom_values(atoms).to(logits.device, logits.dtype)
    return (logits.softmax(-1) @ values).clamp(0, 1) * exists


def atom_values(atoms: int) -> Tensor:
    """Return the values (atoms,) evenly from a little below 0 to as much above 1; atoms >= 8."""
    step = 1 / (atoms - 1 - 2 * MARGIN)
    return (torch.arange(atoms) - MARGIN) * step


def atom_weights(aims: Tensor, atoms: int) -> Tensor:
    """Return the HL-Gauss histogram (..., atoms) of targets (...) in [0, 1]; each sums to 1.

    A Gaussian around the target is integrated over the cell of each atom (Imani and White;
    Farebrother et al., 2403.03950); what lies outside of the outer cells is cut off.
    """
    values = atom_values(atoms).to(aims.device, aims.dtype)
    step = values[1] - values[0]
    edges = torch.cat([values - step / 2, values[-1:] + step / 2])
    distance = (edges - aims.unsqueeze(-1)) / (HL_GAUSS_WIDTH * step * 2**0.5)
    inside = torch.erf(distance)
    return inside.diff(dim=-1) / (inside[..., -1:] - inside[..., :1])


def bin_error(logits: Tensor, aims: Tensor, error: str) -> Tensor:
    """Return the error of Q against `aims` (..., A, K), element by element.

    'squared' is the paper's 1/2 (Q - y)^2 and 'cross_entropy' has the same minimum and a gradient
    that does not vanish where the sigmoid saturates: both with logits (..., A, K). 'hl_gauss' is
    the cross-entropy to a histogram of the target: logits (..., A, K, atoms).
    """
    if error == 'squared':
        return 0.5 * (torch.sigmoid(logits) - aims) ** 2
    if error == 'cross_entropy':
        return functional.binary_cross_entropy_with_logits(logits, aims, reduction='none')
    weights = atom_weights(aims, logits.shape[-1])
    return -(weights * functional.log_softmax(logits, dim=-1)).sum(-1)


def softmax_gap(q: Tensor, bins: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Return log sum exp of Q over a dimension's bins, minus Q of the dataset's: (N, A).

    The regulariser of CQL (Kumar et al., 2006.04779), which the paper compares with.
    """
    some = q.masked_fill(~bin_mask(counts).to(q.device), float('-inf'))
    return some.logsumexp(-1) - q.gather(-1, bins.unsqueeze(-1)).squeeze(-1)


def cloning_loss(
    logits: Tensor,
    bins: Tensor,
    counts: tuple[int, ...],
    *,
    row_mask: Tensor,
    smoothing: float = 0.0,
    count: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy of behaviour cloning, a mean over rows and dimensions.

    logits: (N, A, K), here of a softmax over the bins of a dimension; bins: (N, A) of the dataset;
    row_mask: (N,) bool. With smoothing the neighbours of the dataset's bin get their share. count:
    what to divide by, where these rows are a part of a batch.
    """
    near = neighbour_weights(bins, counts, smoothing)
    near = near / near.sum(-1, keepdim=True)
    errors = -(near * functional.log_softmax(logits, dim=-1)).sum(-1)  # (N, A)
    return _mean(errors, row_mask.unsqueeze(-1).expand_as(errors), count)


def q_losses(
    logits: Tensor,
    bins: Tensor,
    targets: Tensor,
    counts: tuple[int, ...],
    *,
    td_mask: Tensor,
    row_mask: Tensor,
    error: str = 'squared',
    smoothing: float = 0.0,
    conservative: str = 'mean',
    counts_in_batch: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (temporal-difference loss, conservative loss), two means over rows and dimensions.

    logits: (N, A, K), for 'hl_gauss' (N, A, K, atoms); bins: (N, A) of the dataset;
    targets: (N, A) in [0, 1];
    td_mask: (N, A) bool, where the target is known; row_mask: (N,) bool, rows that exist.
    The conservative loss pulls every bin but the dataset's to 0 (with smoothing: to the share of
    the target that a neighbour gets). It is the mean over a dimension's other bins ('mean', the
    paper's), or every bin weighs the same in all dimensions ('per_bin': the other bin of a 2-bin
    gripper then weighs as much as one of a joint's many others, not as all of them together), or
    the paper's rival ('softmax', see `softmax_gap`).
    counts_in_batch: how many known targets, and how many rows times dimensions, to divide by,
    where these rows are a part of a batch whose parts add up.
    """
    near = neighbour_weights(bins, counts, smoothing)  # (N, A, K)
    is_data = functional.one_hot(bins, max(counts)).bool()
    errors = bin_error(logits, near * targets.unsqueeze(-1), error)
    zero = torch.zeros((), device=logits.device)

    td = torch.where(is_data, errors, zero).sum(-1)  # (N, A)
    if conservative == 'softmax':
        atoms = logits.shape[-1] if error == 'hl_gauss' else 1
        exists = bin_mask(counts).to(logits.device)
        low = softmax_gap(q_values(logits, exists, atoms), bins, counts)
    else:
        others = bin_mask(counts).to(logits.device) & ~is_data
        number = torch.tensor(counts, device=logits.device) - 1  # (A,)
        share = number if conservative == 'mean' else number.max()
        low = torch.where(others, errors, zero).sum(-1) / share  # (N, A)
    rows = row_mask.unsqueeze(-1)
    known, present = counts_in_batch or (None, None)
    return _mean(td, td_mask & rows, known), _mean(low, rows.expand_as(low), present)


def _mean(values: Tensor, mask: Tensor, count: Tensor | None) -> Tensor:
    """Return the sum where `mask` is True, by `count` or by how often it is; 0 if it never is."""
    kept = torch.where(mask, values, torch.zeros((), device=values.device))
    return kept.sum() / (mask.sum() if count is None else count).clamp(min=1)
