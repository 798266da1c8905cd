"""`ptychostream bench stream`: source → PVA → IOC → client of the stitched image, in separate processes.

Figures

- `sent`, `received`, `stitched`, `missed`, `dropped` by cause. `lost` = sent - stitched, when no frame is pending.
- `rate_hz`: stitched frames per second, from the first sent frame until no frame is pending.
- `latency_ms`: the IOC's percentiles of the time from a frame's time stamp to the canvas, when the source ends.
- `served_ms`: from a frame's time stamp to a published image with this frame. `stages_ms`: the median of every stage.
- `overload`, with --overload: see `ptychostream.benchmarks.stream_overload`.
- `cpu_cores`: processor time of each process divided by wall time, from the first to the last sent frame.
- `training_pairs_per_s`, with --training: the rate of the agent's training during the stream.
- `engine_only_fps`: frames per second of the engine alone in a process, with the same batches, while the same source
  streams at the same rate without a client. It is the mean of two measurements, before and after the stream, because
  the speed of a shared machine drifts.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptychostream.benchmarks.measured import say
from ptychostream.benchmarks.stream_overload import overload_figures
from ptychostream.benchmarks.stream_source import checked_shape
from ptychostream.benchmarks.stream_stage import Options, engine_alone, stream
from ptychostream.errors import ConfigError
from ptychostream.processes.hardware import cores, cpu_name

DEFAULT_FPS = 2000.0
SHARE = 0.85
"""The default rate of the source, as a part of the engine's rate."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ptychostream bench stream`."""
    parser.add_argument(
        "--fps", type=float, help=f"sent frames per second (default: {DEFAULT_FPS:.0f} with engine none, "
        f"else {SHARE:.0%} of the rate of the engine alone)".replace("%", "%%")
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="duration of the stream (default %(default)g)"
    )
    parser.add_argument("--shape", default="128x128", metavar="HxW", help="shape of a frame (default %(default)s)")
    parser.add_argument("--dtype", default="uint16", metavar="T", help="integer type (default %(default)s)")
    parser.add_argument("--codec", default="none", metavar="C", help="none, lz4, bslz4, blosc… (default %(default)s)")
    parser.add_argument("--engine", default="none", metavar="E", help="see `ptychostream ioc` (default none)")
    parser.add_argument("--precision", default="auto", help="see `ptychostream ioc` (default %(default)s)")
    parser.add_argument("--model", type=Path, help="model file (default: PtychoNN 2.0 with random weights)")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="frames inferred at once (default 8)")
    parser.add_argument(
        "--queue-size", type=int, default=2000, metavar="N", help="frames that may wait for the engine (default 2000)"
    )
    parser.add_argument(
        "--overload",
        type=float,
        metavar="F",
        help="send at F times the rate of the engine alone, and report the overload",
    )
    parser.add_argument(
        "--training", action="store_true", help="train during the stream, at the low priority of the agent's steps"
    )
    parser.add_argument(
        "--alone-seconds", type=float, default=5.0, metavar="S", help="duration of each measurement of the engine alone"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print. Returns 1 if a frame was lost, or with --overload if its targets were missed."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="ptychostream-bench-") as folder:
        report = measure(options, Path(folder), say)
    report["command"] = "ptychostream bench stream " + " ".join(
        f"--{name.replace('_', '-')} {value}" for name, value in _given(arguments).items()
    ) + " --training" * arguments.training  # fmt: skip
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    if options.overload is None:
        return 0 if report["lost"] == 0 else 1
    explained = report["lost"] == report["dropped"]["QueueFull"]
    return 0 if explained and report["overload"]["within"] else 1


def measure(options: Options, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure in separate processes with their own ports. The logs are written to `folder`."""
    if options.overload is not None and not (options.infers and options.overload > 1 and options.fps is None):
        remedy = "give an --engine that infers, more than 1, and no --fps"
        raise ConfigError(f"--overload {options.overload:g}", where="bench stream", remedy=remedy)
    model = options.model
    if options.infers and model is None:
        model = _random_model(options.shape, folder)
    fps, alone = options.fps, []
    if options.infers and model is not None:
        guess = fps or DEFAULT_FPS / 4
        say(f"engine alone, {options.alone_seconds:g} s")
        alone.append(engine_alone(options, model, guess, folder))
        if fps is None:
            fps = round((options.overload or SHARE) * alone.pop()["fps"])
            say(f"engine alone beside {fps} frames/s, {options.alone_seconds:g} s")
            alone.append(engine_alone(options, model, fps, folder))
    fps = fps or DEFAULT_FPS
    say(f"streaming {fps:g} frames/s for {options.seconds:g} s")
    report, samples = stream(options, model, fps, folder)
    if options.infers and model is not None:
        say(f"engine alone again, {options.alone_seconds:g} s")
        alone.append(engine_alone(options, model, fps, folder))
    rates = [one["fps"] for one in alone]
    report["engine_only_fps"] = statistics.mean(rates) if rates else None
    report["engine_only_runs"] = rates
    report["share_of_engine"] = report["rate_hz"] / report["engine_only_fps"] if rates else None
    if options.overload is not None:
        report["overload"] = overload_figures(
            samples,
            report["queue_size"] + report["at_once"],
            report["latency_ms"]["p99"],
            report["sent_hz"],
            report["engine_only_fps"],
        )
    report["date"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    report["machine"] = {"processor": cpu_name(), "cores": cores(), "python": platform.python_version()}
    return report


def _random_model(shape: tuple[int, int], folder: Path) -> Path:
    """PtychoNN 2.0 with random weights. The speed of a network does not depend on its weights."""
    from ptychostream.benchmarks.inference import random_model

    if shape[0] != shape[1]:
        raise ConfigError(
            f"--shape {shape[0]}x{shape[1]} is not square", where="bench stream", remedy="give a --model for it"
        )
    return random_model("ptychonn2", shape[0], folder).path


def _options(arguments: argparse.Namespace) -> Options:
    shape = checked_shape(arguments.shape, arguments.dtype, arguments.seconds, "bench stream")
    return Options(
        fps=arguments.fps,
        seconds=arguments.seconds,
        shape=shape,
        dtype=arguments.dtype,
        codec="" if arguments.codec == "none" else arguments.codec,
        engine=arguments.engine,
        precision=arguments.precision,
        model=arguments.model,
        batch=arguments.batch,
        alone_seconds=arguments.alone_seconds,
        queue_size=arguments.queue_size,
        overload=arguments.overload,
        training=arguments.training,
    )


_FLAGS = (
    "fps", "overload", "queue_size", "seconds", "shape", "dtype", "codec", "engine", "precision", "model", "batch",
)  # fmt: skip


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name in _FLAGS if (value := getattr(arguments, name)) is not None}


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value")
    for name, value in report.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {_short(one)}" for key, one in value.items())
        table.add_row(name, _short(value))
    Console().print(table)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
