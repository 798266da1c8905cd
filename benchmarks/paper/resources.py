"""Whether disk and memory suffice for a run, before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path

from ptychostream.benchmarks.paper.instrument import SIZE
from ptychostream.benchmarks.paper.scale import Scale
from ptychostream.errors import ConfigError

_FRAME_BYTES = 2 * SIZE**2
"""Of the counts, uint16."""
_LABEL_BYTES = 2 * 4 * (SIZE // 2) ** 2
"""Of phase and amplitude, float32."""
_PROGRAM_BYTES, _IMAGES_BYTES = 1_500_000_000, 200_000_000
_MEMORY = Path("/proc/meminfo")


def disk_bytes(scale: Scale) -> int:
    """The most that a run writes: every training scan uncompressed, and images, models and states."""
    return scale.pairs * _FRAME_BYTES + _IMAGES_BYTES


def memory_bytes(scale: Scale) -> int:
    """The most that a run holds: the corpus, twice while it is put together, and the program."""
    return 2 * scale.pairs * (_FRAME_BYTES + _LABEL_BYTES) + _PROGRAM_BYTES


def available_memory() -> int | None:
    """Memory that can be had without swapping, bytes; None where the system does not say."""
    if not _MEMORY.exists():
        return None
    lines = _MEMORY.read_text(encoding="ascii").splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def used_bytes(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0


def check(scale: Scale, folder: Path) -> None:
    """Raise ConfigError if the disk of `folder` or the memory is too small; it says by how much."""
    there = folder if folder.exists() else next(parent for parent in folder.absolute().parents if parent.exists())
    free, needed = shutil.disk_usage(there).free, max(0, disk_bytes(scale) - used_bytes(folder))
    if free < needed:
        raise ConfigError(
            f"the disk has {_gb(free)} free, and this run needs {_gb(needed)} more",
            where=str(folder),
            remedy=f"free {_gb(needed - free)}, or give a folder on another disk",
        )
    memory, wanted = available_memory(), memory_bytes(scale)
    if memory is not None and memory < wanted:
        raise ConfigError(
            f"{_gb(memory)} of memory are available, and this run needs {_gb(wanted)}",
            where="memory",
            remedy=f"end other programs: {_gb(wanted - memory)} are missing; or take a smaller scale",
        )


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
