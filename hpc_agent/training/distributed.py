"""Training on several devices: torchrun starts one process for each, and their gradients are averaged.

`torchrun --nproc-per-node 4 -m ptychostream train …` is enough: torchrun's variables give each process its rank.
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
    """The processes that train together; this process has number `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def share(self, indices: NDArray[np.intp]) -> NDArray[np.intp]:
        """This process's part of `indices`. All parts have equal length, so that all take equally many steps."""
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
        """Whether `flag` is true in any process of the group."""
        if self.size == 1:
            return flag
        seen = torch.tensor([float(flag)], device=device)
        distributed.all_reduce(seen)
        return bool(seen.item() > 0)


@contextmanager
def joined(device: torch.device) -> Iterator[TrainingGroup]:
    """The group of processes that torchrun started, or a group of one."""
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
