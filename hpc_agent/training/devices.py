"""The device for training, and whether it computes bfloat16 in hardware."""

from __future__ import annotations

import os

import torch

from ptychostream.errors import TrainingError
from ptychostream.processes.hardware import has_bfloat16


def choose_device(name: str) -> torch.device:
    """A torch device by name; "auto" is CUDA if there is a device. With torchrun, "cuda" is the process's own device.

    Raises
    ------
    TrainingError
        There is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        name = f"cuda:{os.environ['LOCAL_RANK']}"  # torchrun's own variable
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        what = str(error).splitlines()[0]
        raise TrainingError(what, where=f"device {name!r}", remedy="use cpu, or cuda where there is one") from error
    return device


def fast_bfloat16(device: torch.device) -> bool:
    """Whether `device` has bfloat16 in hardware; without, it is emulated and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return has_bfloat16()
