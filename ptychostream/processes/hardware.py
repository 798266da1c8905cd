"""Find this machine's processor and GPU without loading a runtime."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16 = {"amx_bf16", "avx512_bf16", "bf16"}  # of x86 and, the last, of ARM


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets as Linux names them, under "flags" on x86 and "Features" on ARM; empty: not known."""
    return frozenset(_cpuinfo("flags").split()) | frozenset(_cpuinfo("Features").split())


@cache
def cpu_name() -> str:
    """The processor's model."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware; without, it is emulated and slower than float32."""
    return not _BFLOAT16.isdisjoint(cpu_flags())


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA driver has a device: a card, or the GPU of a Jetson."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu"))


def _cpuinfo(key: str) -> str:
    if not CPU_INFO.exists():
        return ""
    for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
