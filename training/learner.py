"""One update of the Q-Transformer: batch in, changed weights and their figures out."""

from __future__ import annotations

import copy
import dataclasses
import math

import torch
from torch import Tensor

from training.augment import recolor
from training.compiling import compiled
from training.config import LossConfig, OptimConfig, TrainConfig
from training.data import Batch
from training.model import QTransformer
from training.q_math import (
    at_least,
    bin_mask,
    cloning_loss,
    n_step_targets,
    per_dim_targets,
    q_losses,
)
from training.vision import CameraEncoder
from training.workers import Workers

LOSSES = ('loss', 'td', 'conservative')


class Learner:
    """The online network, its slow copy (the target, which the policy runs) and the optimiser.

    Moves the network to `device`. workers: the processes that train together, None for this one.
    """

    def __init__(
        self,
        model: QTransformer,
        config: TrainConfig,
        device: torch.device,
        workers: Workers | None = None,
    ) -> None:
        self.config = config
        self.workers = workers or Workers()
        self.model = model.to(device)
        self.target = copy.deepcopy(self.model).requires_grad_(False)
        # What is frozen is the same in both networks and stays so.
        pairs = zip(self.model.parameters(), self.target.parameters(), strict=True)
        learning = [(own, slow) for own, slow in pairs if own.requires_grad]
        self.weights: list[Tensor] = [own for own, _ in learning]
        self._slow_weights: list[Tensor] = [slow for _, slow in learning]
        optim = config.optim
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=optim.lr, weight_decay=optim.weight_decay, fused=True
        )
        self.device = device
        self._loss = compiled(batch_loss, device) if optim.compile else batch_loss

    def update(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Do training step number `step` (0, 1, ...) and return its figures as scalars.

        The batch is this process's share, see `workers`. The weights stay as they are where the
        loss or its gradient is not finite; the figures say so.
        """
        optim = self.config.optim
        for group in self.optimizer.param_groups:
            group['lr'] = learning_rate(optim, step)
        figures = self._gradient(batch.to(self.device))
        norm = torch.nn.utils.clip_grad_norm_(self.weights, optim.clip_norm, foreach=True)
        figures = {**figures, 'grad_norm': norm.detach()}
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(self._slow_weights, self.weights, 1 - optim.ema)
        return figures

    def _gradient(self, batch: Batch) -> dict[str, Tensor]:
        """Leave the gradient of the whole batch in the weights, however it is taken apart.

        `accumulate` parts follow one after the other in this process, and every process has its
        share: all divide by the counts of the whole, so that the parts add up to it.
        """
        counts = self.workers.add_up(target_counts(batch, self.config.loss, self.model.dims))
        figures = self.backward(batch, counts)
        self.workers.add_up_gradients(self.model)
        shares = self.workers.add_up(torch.stack([figures[name] for name in LOSSES]))
        return {**figures, **dict(zip(LOSSES, shares, strict=True))}

    def backward(self, batch: Batch, counts: Tensor) -> dict[str, Tensor]:
        """Leave the gradient of this process's share in the weights; counts: of the whole batch.

        Returns the figures of `batch_loss`, over all parts.
        """
        self.optimizer.zero_grad(set_to_none=True)
        rows: list[dict[str, Tensor]] = []
        for part in batch.parts(self.config.optim.accumulate):
            part = self._prepared(part)
            with self._autocast():
                loss, figures = self._loss(
                    self.model, self.target, part, self.config.loss, (counts[0], counts[1])
                )
            loss.backward()
            rows.append(figures)
        return {name: _total(name, [row[name] for row in rows]) for name in rows[0]}

    @torch.no_grad()
    def look(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what the target network says about N rows of a batch, and would do there.

        Q (N, A, K) teacher-forced, the greedy bins (N, A), the data's bins (N, A), and whether the
        episode succeeded (N,). With `accumulate` of the first part only: memory for no more.
        """
        batch = next(batch.parts(self.config.optim.accumulate))
        batch = self._prepared(batch.to(self.device))
        steps = batch.valid.shape[1]
        rows = batch.valid.flatten()
        bins = batch.bins[:, :-1].flatten(0, 1)[rows]
        text = batch.text.repeat_interleave(steps, dim=0)[rows]
        with self._autocast():
            windows, present = _windows(self.target, batch, 0, steps)
            seen = (windows[rows], present[rows], text)
            logits = self.target.logits(*seen, bins, torch.ones_like(text[:, 0]))
            greedy, _ = self.target.greedy(*seen)
        success = batch.success.repeat_interleave(steps)[rows]
        return self.target.q(logits.float()), greedy, bins, success

    def _prepared(self, batch: Batch) -> Batch:
        """Do once what both networks see: the drawn colours, and a frozen encoder's features."""
        images = dict(batch.images)
        if self.config.data.color_jitter:
            for i, (name, frames) in enumerate(images.items()):
                images[name] = recolor(frames, batch.colors[:, i])
        if self.model.config.freeze_encoder and not self.config.data.cache_features:
            with self._autocast(), torch.no_grad():
                for name, camera in zip(images, self.model.encoders, strict=True):
                    if isinstance(camera, CameraEncoder):
                        grids = camera.features(images[name].flatten(0, 1), batch.text)
                        images[name] = grids.unflatten(0, images[name].shape[:2])
        return dataclasses.replace(batch, images=images)

    def _autocast(self) -> torch.autocast:
        """Compute in bfloat16 where that is asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.optim.bf16)


def _total(name: str, values: list[Tensor]) -> Tensor:
    """Put the figures of a batch's parts together: losses add up, the rest is a mean."""
    together = torch.stack(values)
    return together.sum() if name in LOSSES else together.nanmean()


def learning_rate(config: OptimConfig, step: int) -> float:
    """Return the rate of step `step`: linear warm-up, then a cosine down to final_lr * lr."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    span = max(1, config.steps - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / span)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.lr * (config.final_lr + (1 - config.final_lr) * cosine)


def target_counts(batch: Batch, config: LossConfig, dims: int) -> Tensor:
    """Return (2,): how many targets (row, dimension) are known, and how many there are."""
    known = _known(batch, config, dims) & batch.valid.unsqueeze(-1)
    return torch.stack([known.sum(), batch.valid.sum() * dims])


def batch_loss(
    model: QTransformer,
    target: QTransformer,
    batch: Batch,
    config: LossConfig,
    counts: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss and the figures of a batch, or of a part of one with these `target_counts`.

    Figures: loss, td (with objective cloning its cross-entropy), conservative, q_success and
    q_failure (Q of the data's last dimension on successes and failures, nan without any), gap (Q
    of the data's bins minus that of the others).
    """
    steps = batch.valid.shape[1]
    windows, present = _windows(model, batch, 0, steps)
    text = batch.text.repeat_interleave(steps, dim=0)
    bins = batch.bins[:, :-1].flatten(0, 1)  # (B*T, A)
    # What is still to come, undiscounted: 1 on successes. Only a return token looks at it.
    wanted = batch.success.to(torch.float32).repeat_interleave(steps)
    logits = model.logits(windows, present, text, bins, wanted).float()
    targets = _targets(target, batch, config) if config.objective == 'q' else None
    with _in_float32(logits.device):
        if targets is None:
            td = cloning_loss(
                logits,
                bins,
                model.counts,
                row_mask=batch.valid.flatten(),
                smoothing=config.smoothing,
                count=counts and counts[1],
            )
            conservative = torch.zeros_like(td)
        else:
            td, conservative = _q_losses(
                model.counts, batch, logits, bins, targets, config, counts
            )
        loss = td + config.alpha * conservative
        with torch.no_grad():
            seen = logits.detach()
            # Cloning has no Q: its figures are probabilities of bins.
            q = seen.softmax(-1) if targets is None else model.q(seen)
            figures = _figures(q, bins, batch, model.counts)
    parts = {'loss': loss.detach(), 'td': td.detach(), 'conservative': conservative.detach()}
    return loss, {**parts, **figures}


def _in_float32(device: torch.device) -> torch.autocast:
    """Return a context in which bfloat16 is not used, whatever is around it."""
    return torch.autocast(device.type, enabled=False)


def _q_losses(
    bin_counts: tuple[int, ...],
    batch: Batch,
    logits: Tensor,
    bins: Tensor,
    targets: tuple[Tensor, Tensor],
    config: LossConfig,
    counts: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Return the temporal-difference and the conservative loss; targets: see `_targets`."""
    dims = len(bin_counts)
    return q_losses(
        logits,
        bins,
        targets[0].reshape(-1, dims),
        bin_counts,
        td_mask=targets[1].reshape(-1, dims),
        row_mask=batch.valid.flatten(),
        error=config.error,
        smoothing=config.smoothing,
        conservative=config.conservative,
        counts_in_batch=counts,
    )


def _windows(model: QTransformer, batch: Batch, first: int, number: int) -> tuple[Tensor, Tensor]:
    """Return `number` windows per segment from frame `first` on, each frame encoded once.

    Returns frame tokens (B * number, w, n, width) and present (B * number, w).
    """
    window = model.config.window
    use = slice(first, first + number + window - 1)
    count, length = batch.present[:, use].shape
    text = batch.text.repeat_interleave(length, dim=0)
    images = {name: frames[:, use].flatten(0, 1) for name, frames in batch.images.items()}
    tokens = model.encode_frames(images, batch.state[:, use].flatten(0, 1), text)
    tokens = tokens.unflatten(0, (count, length)).unfold(1, window, 1).movedim(-1, 2)
    present = batch.present[:, use].unfold(1, window, 1)
    return tokens.flatten(0, 1), present.flatten(0, 1)


@torch.no_grad()
def _targets(target: QTransformer, batch: Batch, config: LossConfig) -> tuple[Tensor, Tensor]:
    """Return the targets (B, T, A) and where they are known (B, T, A) bool.

    A row whose episode was cut off behind it has no next observation: what needs one is unknown.
    """
    count, steps = batch.valid.shape
    first = 0 if config.target == 'per_dim' else 1  # n_step never looks at its own step
    number = steps + 1 - first
    windows, present = _windows(target, batch, first, number)
    text = batch.text.repeat_interleave(number, dim=0)
    logits = target.logits(windows, present, text, batch.bins[:, first:].flatten(0, 1))
    with _in_float32(logits.device):
        best = target.q(logits.float()).amax(-1).unflatten(0, (count, number))  # (B, number, A)
    known = _known(batch, config, target.dims)
    if config.target == 'per_dim':
        targets = per_dim_targets(
            best[:, :-1], best[:, 1:, 0], batch.reward, batch.terminated, config.gamma
        )
    else:
        targets = n_step_targets(
            best[..., -1], batch.reward, batch.terminated, config.gamma, target.dims
        )
    if config.monte_carlo:
        targets = at_least(targets, batch.returns)
    # What is unknown still needs a value for the neighbours of the data's bin: the lower bound.
    lower = batch.returns if config.monte_carlo else torch.zeros_like(batch.returns)
    return torch.where(known, targets, lower.unsqueeze(-1)), known


def _known(batch: Batch, config: LossConfig, dims: int) -> Tensor:
    """Return (B, T, A) bool: where the target needs no observation that was not recorded."""
    bootstraps = batch.terminated | batch.has_next  # (B, T)
    known = bootstraps.unsqueeze(-1).repeat(1, 1, dims)
    if config.target == 'per_dim':
        known[..., :-1] = True  # these look at the same step
    return known


def _figures(q: Tensor, bins: Tensor, batch: Batch, counts: tuple[int, ...]) -> dict[str, Tensor]:
    """Return the figures of `batch_loss` that describe Q (N, A, K)."""
    data = q.gather(-1, bins.unsqueeze(-1)).squeeze(-1)  # (N, A)
    number = torch.tensor(counts, device=q.device)
    others = ((q * bin_mask(counts).to(q.device)).sum(-1) - data) / (number - 1)
    valid = batch.valid.flatten()
    success = batch.success.repeat_interleave(batch.valid.shape[1])
    return {
        'q_success': _mean(data[:, -1], valid & success),
        'q_failure': _mean(data[:, -1], valid & ~success),
        'q_others': _mean(others.mean(-1), valid),
        'gap': _mean((data - others).mean(-1), valid),
    }


def _mean(values: Tensor, rows: Tensor) -> Tensor:
    """Return the mean of values (N,) over the rows (N,) bool that are True, nan without any.

    Picking these rows out would make a GPU's steps wait for one another.
    """
    return torch.where(rows, values, torch.zeros_like(values)).sum() / rows.sum()
