"""The processes of one training run, started by `torchrun`; without it there is one.

Each process draws its share of every batch, and gradients are added up before a step, so that all
hold the same weights and the run is the one that a single process would make.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

PATIENCE = timedelta(minutes=10)  # for a process that does not answer


class Workers:
    """This process (`rank`) among `world`; alone it costs nothing."""

    def __init__(self, rank: int = 0, world: int = 1, local: int = 0) -> None:
        self.rank, self.world, self.local = rank, world, local

    @classmethod
    def from_environment(cls, device: str) -> Workers:
        """Join the processes that `torchrun` started; by gloo on CPUs, by NCCL on GPUs."""
        world = int(os.environ.get('WORLD_SIZE', '1'))
        if world == 1:
            return cls()
        if not distributed.is_initialized():
            gpu = device != 'cpu' and torch.cuda.is_available()
            distributed.init_process_group('nccl' if gpu else 'gloo', timeout=PATIENCE)
        return cls(distributed.get_rank(), world, int(os.environ.get('LOCAL_RANK', '0')))

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def add_up(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.world > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def add_up_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by the sum over all processes, in one message."""
        if self.world == 1:
            return
        weights = [p for p in model.parameters() if p.requires_grad]
        for weight in weights:  # which weights got a gradient may differ from process to process
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [p.grad for p in weights if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        for gradient, part in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Say whether any process has the flag up; all get the same answer."""
        if self.world == 1:
            return flag
        return bool(self.add_up(torch.tensor(int(flag), device=device)))

    def leave(self) -> None:
        """Part from the others, at the end of a run."""
        if self.world > 1:
            distributed.destroy_process_group()

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.world > 1:
            distributed.barrier()
