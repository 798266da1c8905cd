"""`ptychostream reproduce`: makes results of the paper in one folder, draws them, and writes a page about them."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from ptychostream.benchmarks.paper import resources
from ptychostream.benchmarks.paper.page import page
from ptychostream.benchmarks.paper.result import Result
from ptychostream.benchmarks.paper.run_folder import OutOfTime, opened, write_json
from ptychostream.benchmarks.paper.scale import SCALES
from ptychostream.benchmarks.paper.work import Work
from ptychostream.hpc_agent.training.devices import choose_device
from ptychostream.quality.figures import save_figure
from ptychostream.storage.atomic import write_bytes_atomic

MISSED, UNFINISHED = 1, 3
"""Exit status: a line was missed; the time was over."""


def reproduce(
    names: Sequence[str],
    scale: str,
    device: str,
    folder: Path,
    *,
    seed: int,
    minutes: float | None,
    command: str,
    say: Callable[[str], None],
) -> int:
    """Make the results `names`. Those that are in the folder already are told, and not made again.

    Returns
    -------
    0, or `MISSED` or `UNFINISHED`.

    Raises
    ------
    ConfigError
        The folder is of something else, or disk or memory do not suffice.
    TrainingError
        There is no such device.
    """
    choose_device(device)
    size = SCALES[scale]
    resources.check(size, folder)
    sizes = {name: value for name, value in asdict(size).items() if name != "lines"}
    identity = {"scale": scale, "seed": seed, "device": device, **json.loads(json.dumps(sizes))}
    results: list[Result] = []
    with opened(folder, identity, command, minutes) as run:
        work = Work(run, size, seed, device, say)
        for name in names:
            module = importlib.import_module(f"ptychostream.benchmarks.paper.{name}")
            began = time.perf_counter()
            try:
                result: Result = module.make(work)
            except OutOfTime:
                say(f"{name} is not finished: {minutes:g} minutes are over. The same command continues with it.")
                return UNFINISHED
            write_json(folder / f"{name}.json", result.as_json())
            save_figure(module.draw(work, result), folder / f"{name}.png", dpi=110)
            write_bytes_atomic(folder / "report.md", page(folder).encode())
            say(f"{name} took {time.perf_counter() - began:.0f} s in this call → {folder / name}.json, .png")
            for line in result.lines():
                say(line)
            results.append(result)
    return 0 if all(result.passed for result in results) else MISSED
