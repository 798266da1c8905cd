"""Coverage-guided fuzzing of one target: `python tests/fuzz TARGET SECONDS`, by atheris (see `make fuzz`).

The corpus grows under build/fuzz/TARGET, an input that fails is left there as crash-… or timeout-…; its smallest form
belongs into tests/fuzz/found/TARGET, which the tests run from then on.
"""

from __future__ import annotations

import importlib
import resource
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = ("codec", "ntndarray", "join", "contract", "model_file", "scan_file", "scan_layouts", "scan_structure")
COMPILED = [
    "ptychostream.frames.bitshuffle",
    "ptychostream.model.preprocessing",
    "ptychostream.imaging.stitching_kernels",
]
"""Left as they are: numba cannot compile what the fuzzer watches."""
MEMORY_BYTES = 1 << 30
"""Address space that one run may take beyond what importing took."""
SHORTEST_LIMIT = 8192
"""Of an input, bytes, where no seed is longer."""
HANG_S = 60
"""By the wall clock, which runs on while other processes have the processor."""


def main(name: str, seconds: int) -> None:
    """Fuzz until the time is over or an input fails; does not return."""
    import atheris

    sys.path[:0] = [str(HERE.parent), str(HERE.parent / "helpers")]
    with atheris.instrument_imports(include=["ptychostream"], exclude=COMPILED):
        target = importlib.import_module(f"fuzz.{name}")
    corpus = Path("build/fuzz") / name
    corpus.mkdir(parents=True, exist_ok=True)
    longest = SHORTEST_LIMIT
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number:03d}").write_bytes(seed)
        longest = max(longest, len(seed))
    for found in sorted((HERE / "found" / name).glob("*")):
        (corpus / found.name).write_bytes(found.read_bytes())
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={HANG_S}",
        f"-artifact_prefix={corpus.parent}/{name}-",
        "-rss_limit_mb=0",  # the address space is what is limited
        f"-max_len={longest}",  # a seed that was cut short would be no file any more
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python tests/fuzz {{{','.join(TARGETS)}}} SECONDS")
    main(sys.argv[1], int(sys.argv[2]))
