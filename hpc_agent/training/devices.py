"""Where to train, and in what precision."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from ptychostream.errors import TrainingError

CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}
"""Instructions that multiply bfloat16 faster than float32: of x86, and the last of ARM."""


def choose_device(name: str) -> torch.device:
    """A torch device by name; "auto" is CUDA where there is one. Of several, "cuda" is this process's own.

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
    if platform.system() != "Linux":
        return False
    words = set(CPU_INFO.read_text(encoding="ascii", errors="replace").split())
    return bool(words & BFLOAT16_FLAGS)
