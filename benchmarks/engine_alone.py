"""Measure the rate of an engine alone in its process, as the reference for `bench stream`.

`python -m ptychostream.benchmarks.engine_alone MODEL ENGINE PRECISION BATCH SECONDS`. It prints one line of
JSON when the engine is warm, and one with its rate. Its input is the benchmark's preprocessed patterns.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from ptychostream.benchmarks.stream_source import patterns
from ptychostream.model.model_file import load_model
from ptychostream.plugins.engines import create_engine

FRAMES = 64
WARM_UP_S = 1.0


def main(model_path: Path, name: str, precision: str, batch: int, seconds: float) -> None:
    """Infer batches for `seconds`."""
    engine = create_engine(name, load_model(model_path), batch=batch, precision=precision)
    frames = max(FRAMES, batch) // batch * batch
    counts = patterns(engine.input_shape, "uint16", frames).astype(np.float32)

    def infer_for(duration_s: float) -> float:
        start, done = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < duration_s:
            first = done % frames
            engine.infer(counts[first : first + batch])
            done += batch
        return done / elapsed

    try:
        infer_for(WARM_UP_S)
        print(json.dumps({"ready": time.time()}), flush=True)
        report = {"fps": infer_for(seconds), "engine": engine.name, "precision": engine.precision}
        print(json.dumps(report), flush=True)
    finally:
        engine.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
