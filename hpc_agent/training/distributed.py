"""Training on several devices: one process each, started by torchrun, their gradients averaged.

`torchrun --nproc-per-node 4 -m ptychostream train …` is all that is needed: torchrun's own variables say who is who.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed, nn


@dataclass(frozen=True)
class TrainingGroup:
    """The processes that train together; this one is number `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and tells of progress."""
        return self.rank == 0

    def share(self, indices: NDArray[np.intp]) -> NDArray[np.intp]:
        """This process's part: all parts are of one length, so that all take as many steps; the rest is left out."""
        length = len(indices) // self.size
        return indices[self.rank * length : (self.rank + 1) * length]

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network to train: its gradients are averaged over the group at every step."""
        if self.size == 1:
            return network
        return nn.parallel.DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)

    def mean(self, total: float, weight: float, device: torch.device) -> float:
        """Σ total / Σ weight over the group."""
        if self.size == 1:
            return total / weight
        sums = torch.tensor([total, weight], dtype=torch.float64, device=device)
        distributed.all_reduce(sums)
        return float(sums[0] / sums[1])

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it is true in any process of the group."""
        if self.size == 1:
            return flag
        seen = torch.tensor([float(flag)], device=device)
        distributed.all_reduce(seen)
        return bool(seen.item() > 0)


@contextmanager
def joined(device: torch.device) -> Iterator[TrainingGroup]:
    """The group that torchrun made this process a part of; a group of one where it did not."""
    if not distributed.is_available() or not distributed.is_torchelastic_launched():
        yield TrainingGroup()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield TrainingGroup(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
