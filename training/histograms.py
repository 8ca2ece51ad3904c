"""What the averaged network says about a batch and would do there, as histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from training.data import Batch
    from training.learner import Learner

# {name: (values (N,), edges of the bars (n + 1,))}
Histograms = Mapping[str, tuple[np.ndarray, np.ndarray]]
_Q_EDGES = np.linspace(0, 1, 51)


@torch.no_grad()
def snapshot(learner: Learner, batch: Batch, names: Sequence[str]) -> Histograms:
    """Return which bins the data uses and the policy would, and how Q is spread.

    names: of the action dimensions. Costs about one forward pass; draws nothing from any generator
    and changes no weight. `bins_data/NAME` and `bins_greedy/NAME` count bins of the rows of the
    batch; `q_success/data`, `q_success/others`, `q_failure/data`, `q_failure/others` hold Q of the
    data's bin and the mean Q of the others, of every row and dimension of episodes that went so.
    """
    q, greedy, bins, success = learner.look(batch)
    found = {}
    for i, (name, count) in enumerate(zip(names, learner.model.counts, strict=True)):
        edges = np.arange(count + 1) - 0.5
        found[f'bins_data/{name}'] = _array(bins[:, i]), edges
        found[f'bins_greedy/{name}'] = _array(greedy[:, i]), edges
    if learner.config.loss.objective == 'cloning':
        return found  # its answers are no returns
    data = q.gather(-1, bins.unsqueeze(-1)).squeeze(-1)  # (N, A)
    number = torch.tensor(learner.model.counts, device=q.device) - 1
    others = (q.sum(-1) - data) / number  # bins that do not exist have Q 0
    for name, rows in (('success', success), ('failure', ~success)):
        if bool(rows.any()):
            found[f'q_{name}/data'] = _array(data[rows].flatten()), _Q_EDGES
            found[f'q_{name}/others'] = _array(others[rows].flatten()), _Q_EDGES
    return found


def _array(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
