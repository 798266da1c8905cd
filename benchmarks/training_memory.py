"""Measure the memory of a training on a large corpus, in a separate process.

`python -m ptychostream.benchmarks.training_memory FOLDER OPTIONS` trains on the corpus in FOLDER, with OPTIONS as JSON,
and prints its memory as JSON.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ptychostream.errors import ConfigError, TrainingError
from ptychostream.hpc_agent.corpus.corpus_store import CorpusStore
from ptychostream.hpc_agent.corpus.training_data import Corpus
from ptychostream.hpc_agent.training.training import TrainingOptions, train
from ptychostream.model.contract import Preprocessing
from ptychostream.processes import bounded

SHARD = 1000
"""Pairs per file, like those of a scan."""
PIXEL_BYTES = 6
"""Bytes per pixel on the disk: counts, phase and amplitude have two bytes each."""
VALIDATION = 0.002
"""Fraction of the validation pairs. It is small, because each epoch evaluates all of them."""
SEED = 247


def synthetic_corpus(pairs: int, shape: tuple[int, int], key: str = "bench", seed: int = SEED) -> Corpus:
    """Poisson counts with an envelope, and smooth labels. The cost of a training does not depend on its data."""
    random = np.random.default_rng(seed)
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    envelope = np.exp(-4 * (y[:, None] ** 2 + x[None] ** 2))
    waves = random.uniform(1, 6, (pairs, 2, 1, 1)).astype(np.float32)
    phase = np.sin(waves[:, 0] * y[:, None] + waves[:, 1] * x)
    return Corpus(
        counts=random.poisson(50 * envelope, (pairs, *shape)).astype(np.uint16),
        phase=phase,
        amplitude=np.ones_like(phase),
        source=np.zeros(pairs, np.intp),
        weights=envelope[None],
        pixel_m=1e-8,
        preprocessing=Preprocessing(),
        scans=(key,),
        measured=pairs,
    )


def write_corpus(folder: Path, pairs: int, shape: tuple[int, int], on_pairs: Callable[[int], None]) -> CorpusStore:
    """Write a corpus with `pairs` pairs to the disk. All its files have the same numbers in another order.

    Raises
    ------
    ConfigError
        The disk has too little room.
    """
    needed, free = pairs * shape[0] * shape[1] * PIXEL_BYTES, shutil.disk_usage(folder).free
    if needed > 0.9 * free:
        what = f"{pairs:,} pairs take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        raise ConfigError(what, where=str(folder), remedy="give fewer --pairs, or --folder on another disk")
    store = CorpusStore(folder)
    scan = synthetic_corpus(min(SHARD, pairs), shape)
    for number, first in enumerate(range(0, pairs, SHARD)):
        rows = np.roll(np.arange(scan.measured), number)[: pairs - first]
        part = replace(scan, counts=scan.counts[rows], phase=scan.phase[rows], source=scan.source[rows])
        part = replace(part, amplitude=scan.amplitude[rows], measured=len(rows), scans=(f"scan {number}",))
        store.append(f"scan {number}", part, validation=VALIDATION)
        on_pairs(first + len(rows))
    return store


def measure_memory(folder: Path, options: TrainingOptions) -> dict[str, Any]:
    """Train in a separate process. Returns its figures.

    Raises
    ------
    TrainingError
        The process failed.
    """
    command = [sys.executable, "-m", __name__, str(folder), options.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrainingError(done.stderr.strip(), where="the measured process", remedy="see above")
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def peak_bytes() -> int:
    """The largest resident memory of this process in bytes.

    On Linux a child's `ru_maxrss` includes the parent's peak, so it is read from the status of the process.
    """
    return bounded.peak_bytes() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def main(folder: str, options: str) -> int:
    """The program of the measured process."""
    before = peak_bytes()
    started = time.perf_counter()
    with CorpusStore(Path(folder)).opened() as (corpus, validation, _):
        result = train(replace(corpus, validation=validation), TrainingOptions.model_validate_json(options))
        pairs = len(corpus)
    epoch = result.history[-1]
    found = {
        "pairs": pairs,
        "epochs": len(result.history),
        "peak_bytes": peak_bytes(),
        "before_training_bytes": before,
        "seconds": time.perf_counter() - started,
        "pairs_per_s": epoch.rate,
        "waiting": epoch.waiting,
    }
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
