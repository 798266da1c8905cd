"""Inference of the networks on every engine that is here: what tables 1 and 2 are read from."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptychostream.benchmarks.inference import Turns, golden_frames, random_model
from ptychostream.benchmarks.paper.instrument import SIZE
from ptychostream.benchmarks.paper.work import Work

BATCHES = (1, 2, 4, 8, 16)
NAMES = {"ptychonn": "PtychoNN", "ptychonn2": "PtychoNN 2.0", "swiftnn": "swiftnn"}
_EXACT = "int8"
"""The precision that is left out: it is another network's answer."""

Measured = list[dict[str, Any]]
"""A dictionary for each engine, precision and batch; see `ptychostream.benchmarks.inference.Row`."""


def measured(work: Work, network: str) -> Measured:
    """Frames a second of a network with random weights, by engine, precision and batch."""

    def make() -> dict[str, Any]:
        work.say(f"inference of {network} on every engine that is here")
        absent: dict[str, str] = {}
        turns, rows = Turns(work.scale.rounds, work.scale.turn_s, None, absent), []
        with tempfile.TemporaryDirectory() as folder:
            model = random_model(network, SIZE, Path(folder))
            counts = golden_frames(model, max(BATCHES))
            for batch in BATCHES:
                rows += [asdict(row) for row in turns.measure(model, counts[:batch])]
        return {"rows": rows, "absent": absent}

    rows: Measured = work.folder.json(f"points/inference/{network}", make)["rows"]
    return [row for row in rows if row["precision"] != _EXACT]


def fastest(rows: Measured, batch: int, wanted: Callable[[dict[str, Any]], bool] = lambda _row: True) -> dict[str, Any]:
    """The row of most frames a second at a batch, of those that are wanted."""
    return max((row for row in rows if row["batch"] == batch and wanted(row)), key=lambda row: row["frames_per_second"])


def microseconds(row: dict[str, Any]) -> float:
    """Time a frame, µs."""
    return float(1e6 / row["frames_per_second"])


def engine_of(row: dict[str, Any]) -> str:
    """Engine and precision, for people."""
    return f"{row['engine']} {row['precision']}"
