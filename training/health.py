"""Stop a run gone wrong, and say what was seen and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.errors import TrainingError
from training.learner import Learner, target_counts

if TYPE_CHECKING:
    from training.data import Batch

_NAMED = 3  # weights or entries named, before the rest is counted


class Health:
    """Stop a run whose Q says the same about everything.

    mean_return: mean return-to-go on successes, 0 if there are none; patience: bad rows in a row
    before the run stops; from_step: Q may take this long to rise from its low start.
    """

    def __init__(self, mean_return: float, from_step: int, patience: int = 5) -> None:
        self.mean_return, self.from_step, self.patience = mean_return, from_step, patience
        self._bad = 0

    def check(self, figures: Mapping[str, float]) -> None:
        """Raise TrainingError where Q has collapsed, saturated, or tells no bin from another."""
        seen = self._seen(figures) if figures['step'] >= self.from_step else ''
        self._bad = self._bad + 1 if seen else 0
        if self._bad >= self.patience:
            raise TrainingError(
                f'{seen}, in {self._bad} rows of metrics.csv in a row up to step'
                f' {figures["step"]} (loss {figures["loss"]:.3g}: td {figures["td"]:.3g},'
                f' conservative {figures["conservative"]:.3g}; norm of the gradient'
                f' {figures["grad_norm"]:.3g}); {_remedy(seen)}'
            )

    def _seen(self, figures: Mapping[str, float]) -> str:
        """Say what is wrong with these figures, nothing if they are fine."""
        success, others = figures['q_success'], figures['q_others']
        if others > 0.95:
            return f'Q has saturated: q_others, of bins that are not in the data, is {others:.3f}'
        if self.mean_return <= 0:
            return ''
        aim = f'where the mean return is {self.mean_return:.2g}'
        if success < 0.02 * self.mean_return:
            return f'Q has collapsed: q_success is {success:.2g} on successes, {aim}'
        if success - others < 0.02 * self.mean_return:
            return (
                f'Q tells nothing apart: q_success is {success:.3g} and q_others {others:.3g} on'
                f' bins that are not in the data, {aim}'
            )
        return ''


def _remedy(seen: str) -> str:
    if seen.startswith('Q has collapsed'):
        return 'use loss.error=cross_entropy, lower loss.alpha or raise optim.lr'
    return 'raise loss.alpha or lower optim.lr'


def not_finite(
    learner: Learner, batch: Batch, norms: Sequence[float], step: int, saved: int
) -> TrainingError:
    """Return the error for a loss or gradient that is not finite, with what can be seen of it.

    batch: of that step, whose gradient is computed again; the weights are still those before it.
    norms: of the gradients up to it, oldest first; saved: step of the last checkpoint, 0 for none.
    """
    seen, remedy = _cause(learner, batch)
    course = ' '.join(f'{norm:.3g}' for norm in norms)
    last = (
        f'the checkpoint of step {saved} is intact, --resume goes on from it'
        if saved
        else 'nothing was saved yet'
    )
    return TrainingError(
        f'the loss or its gradient is not finite at step {step}: {seen}; norms of the gradient up'
        f' to there: {course}; {remedy} ({last})'
    )


def _cause(learner: Learner, batch: Batch) -> tuple[str, str]:
    """Say where the first number that is not finite is, and what to do about it."""
    places = [
        f'{name}[{", ".join(str(int(i)) for i in at)}]'
        for name, values in _numbers(batch)
        for at in (~torch.isfinite(values)).nonzero()[:1]
    ]
    if places:
        return (
            f'in the batch {_some(places)} (segment, frame or row, feature) is not finite',
            'convert the recordings again or leave that episode out',
        )
    broken = _broken((name, value) for name, value in learner.model.named_parameters())
    if broken:
        return (
            f'the weights {_some(broken)} were no longer finite before it',
            'go on from a checkpoint, with a lower optim.lr',
        )
    counts = target_counts(batch, learner.config.loss, learner.model.dims)
    figures = learner.backward(batch.to(learner.device), counts)
    parts = [name for name in ('td', 'conservative') if not bool(torch.isfinite(figures[name]))]
    half = ' or set optim.bf16=false' if learner.config.optim.bf16 else ''
    if parts:
        return (
            f'batch and weights are finite, the loss is not ({", ".join(parts)}): the network'
            ' overflows',
            f'lower optim.lr{half}',
        )
    broken = _broken(
        (name, value.grad)
        for name, value in learner.model.named_parameters()
        if value.grad is not None
    )
    return (
        f'batch, weights and loss are finite, the gradient of {_some(broken) or "none"} is not',
        f'lower optim.lr or optim.clip_norm, or raise optim.warmup_steps{half}',
    )


def _numbers(batch: Batch) -> Iterable[tuple[str, Tensor]]:
    for name, values in vars(batch).items():
        if isinstance(values, Tensor) and values.is_floating_point():
            yield name, values
    for name, values in batch.images.items():
        if values.is_floating_point():
            yield f'features of {name}', values


def _broken(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Name the tensors with numbers that are not finite, and say how many they have."""
    return [
        f'{name} ({int((~torch.isfinite(value)).sum())} of {value.numel()})'
        for name, value in named
        if not bool(torch.isfinite(value).all())
    ]


def _some(names: Sequence[str]) -> str:
    more = f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''
    return ', '.join(names[:_NAMED]) + more
