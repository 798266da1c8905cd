"""Find this machine's processor and GPU without loading a runtime."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets by their Linux names. Empty if they are not known."""
    return frozenset(_cpuinfo("flags").split()) | frozenset(_cpuinfo("Features").split())


@cache
def cpu_name() -> str:
    """The processor's model."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def has_bfloat16() -> bool:
    """Whether the processor computes bfloat16 products in hardware."""
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16"})


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA driver has a device: a card, or the GPU of a Jetson."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu"))


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
