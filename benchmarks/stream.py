"""`ptychostream bench stream`: source → PVA → IOC → stitched-image client, each a process of its own.

What is reported

- `sent`, `received`, `stitched`, `missed`, `dropped` by cause; `lost` = sent - stitched, once nothing is pending.
- `rate_hz`: stitched frames over the time from the first frame sent to nothing pending.
- `latency_ms`: the IOC's own percentiles, from a frame's time stamp to its place in the canvas, as the source ends.
- `cpu_cores`: processor time of each process over wall time, from the first frame sent to the last.
- `engine_only_fps`: frames per second of the engine alone in a process, in the same batches, while the same source
  streams at the same rate to nobody: what the engine does on the cores that the source leaves. Taken before and after
  the stream, since the speed of a shared machine drifts; the mean of both.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptychostream.benchmarks.measured import POLL_S, Measured
from ptychostream.benchmarks.stream_source import Source
from ptychostream.config import load_settings
from ptychostream.demo.live import CAUSES, Pvs
from ptychostream.errors import ConfigError, StreamError
from ptychostream.loopback import free_ports, loopback_environment
from ptychostream.plugins.engines.hardware import cores, cpu_name

PREFIX = "bench:"
CHANNEL = "bench:det:Image"
DEFAULT_FPS = 2000.0
SHARE = 0.85
"""Part of the engine's own rate that is sent when no rate is given."""
START_TIMEOUT_S = 120.0
SETTLE_TIMEOUT_S = 60.0
READ_EVERY_S = 0.5
QUIET_S = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ptychostream bench stream`."""
    parser.add_argument(
        "--fps", type=float, help=f"frames per second sent (default: {DEFAULT_FPS:.0f} with engine none, "
        f"else {SHARE:.0%} of what the engine does alone)".replace("%", "%%")
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of streaming (default %(default)g)")
    parser.add_argument("--shape", default="128x128", metavar="HxW", help="of a frame (default %(default)s)")
    parser.add_argument("--dtype", default="uint16", metavar="T", help="integer type (default %(default)s)")
    parser.add_argument("--codec", default="none", metavar="C", help="none, lz4, bslz4, blosc… (default %(default)s)")
    parser.add_argument("--engine", default="none", metavar="E", help="as `ptychostream ioc` takes it (default none)")
    parser.add_argument("--precision", default="auto", help="as `ptychostream ioc` takes it (default %(default)s)")
    parser.add_argument("--model", type=Path, help="model file (default: PtychoNN 2.0 with random weights)")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="frames inferred at once (default 8)")
    parser.add_argument("--alone-seconds", type=float, default=5.0, metavar="S", help="each time the engine runs alone")
    parser.add_argument("--json", action="store_true", help="print JSON")


@dataclass(frozen=True)
class Options:
    """What is measured. See the command's help."""

    fps: float | None
    seconds: float
    shape: tuple[int, int]
    dtype: str
    codec: str
    engine: str
    precision: str
    model: Path | None
    batch: int
    alone_seconds: float

    @property
    def infers(self) -> bool:
        return self.engine.lower() != "none"

    def source(self, fps: float, seconds: float, wait_for: str = "") -> Source:
        values: dict[str, Any] = {
            "channel": CHANNEL,
            "rate_hz": fps,
            "frames": max(1, round(fps * seconds)),
            "shape": self.shape,
            "dtype": self.dtype,
            "codec": self.codec,
            "wait_for": wait_for,
            "timeout_s": START_TIMEOUT_S,
        }
        return load_settings(Source, None, values)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 1 when a frame was lost."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children are ended
    with tempfile.TemporaryDirectory(prefix="ptychostream-bench-") as folder:
        report = measure(options, Path(folder), _say)
    report["command"] = "ptychostream bench stream " + " ".join(
        f"--{name} {value}" for name, value in _given(arguments).items()
    )
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0 if report["lost"] == 0 else 1


def measure(options: Options, folder: Path, say: Any) -> dict[str, Any]:
    """The whole measurement, in processes of its own on ports of its own; logs go to `folder`."""
    model = options.model
    if options.infers and model is None:
        model = _random_model(options.shape, folder)
    fps, alone = options.fps, []
    if options.infers and model is not None:
        guess = fps or DEFAULT_FPS / 4
        say(f"engine alone, {options.alone_seconds:g} s")
        alone.append(engine_alone(options, model, guess, folder))
        if fps is None:
            fps = round(SHARE * alone.pop()["fps"])
            say(f"engine alone beside {fps} frames/s, {options.alone_seconds:g} s")
            alone.append(engine_alone(options, model, fps, folder))
    fps = fps or DEFAULT_FPS
    say(f"streaming {fps:g} frames/s for {options.seconds:g} s")
    report = stream(options, model, fps, folder)
    if options.infers and model is not None:
        say(f"engine alone again, {options.alone_seconds:g} s")
        alone.append(engine_alone(options, model, fps, folder))
    rates = [one["fps"] for one in alone]
    report["engine_only_fps"] = statistics.mean(rates) if rates else None
    report["engine_only_runs"] = rates
    report["share_of_engine"] = report["rate_hz"] / report["engine_only_fps"] if rates else None
    report["date"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    report["machine"] = {"processor": cpu_name(), "cores": cores(), "python": platform.python_version()}
    return report


def engine_alone(options: Options, model: Path, fps: float, folder: Path) -> dict[str, Any]:
    """The engine alone in a process, while the source streams to nobody."""
    environment = _environment()
    source = options.source(fps, 3600.0)
    words = [str(model), options.engine, options.precision, str(options.batch), str(options.alone_seconds)]
    with (
        _child("stream_source", [source.model_dump_json()], folder, environment) as streaming,
        _child("engine_alone", words, folder, environment) as engine,
    ):
        streaming.hear("ready", START_TIMEOUT_S)
        return engine.hear("fps", START_TIMEOUT_S + options.alone_seconds)


def stream(options: Options, model: Path | None, fps: float, folder: Path) -> dict[str, Any]:
    """Source, IOC and client; what arrived."""
    environment = _environment()
    words = ["ioc", "--prefix", PREFIX, "--input-pv", CHANNEL, "--engine", options.engine]
    words += ["--precision", options.precision, "--batch", str(options.batch)]
    if model is None:
        # engine none passes counts on as if they were phase, and the canvas refuses what no phase can be
        shape = f"{options.shape[0]}x{options.shape[1]}"
        words += ["--frame-shape", shape, "--dose-scale", str(1 / np.iinfo(options.dtype).max)]
    else:
        words += ["--model", str(model)]
    with ExitStack() as stack:
        ioc = stack.enter_context(Measured("ptychostream", words, folder / "ioc.log", environment))
        pvs = Pvs(PREFIX, environment)
        stack.callback(pvs.close)
        client = stack.enter_context(_child("stream_client", [f"{PREFIX}Phase"], folder, environment))
        client.hear("ready", START_TIMEOUT_S, ioc)
        source_settings = options.source(fps, options.seconds, f"{PREFIX}Ready_RBV")
        source = stack.enter_context(_child("stream_source", [source_settings.model_dump_json()], folder, environment))
        children = {"source": source, "ioc": ioc, "client": client}
        latency = _follow(children, pvs, options.seconds + 2 * START_TIMEOUT_S)
        sent = source.hear("sent", SETTLE_TIMEOUT_S, ioc)
        settled = _settle(pvs, sent["sent"], ioc)
        counts = _counts(pvs, ioc)
        # p4p's strings carry their time stamp; str() would print it
        engine, precision = (str.__str__(value) for value in _read(pvs, ioc, "EngineName_RBV", "Precision_RBV"))
        cpu = {name: child.cores(sent["first"], sent["last"]) for name, child in children.items()}
        seen = client.hear_where(lambda line: line.get("frames") == counts["stitched"], SETTLE_TIMEOUT_S, ioc)
    return {
        "fps": fps,
        "seconds": sent["last"] - sent["first"],
        "shape": list(options.shape),
        "dtype": options.dtype,
        "codec": options.codec or "none",
        "sent": sent["sent"],
        "sent_hz": sent["rate_hz"],
        "source_slipped_s": sent["slipped_s"],
        **counts,
        "lost": sent["sent"] - counts["stitched"],
        "rate_hz": counts["stitched"] / (settled - sent["first"]),
        "latency_ms": latency,
        "cpu_cores": cpu,
        "engine": engine,
        "precision": precision,
        "batch": options.batch,
        "client": seen,
    }


def _follow(children: Mapping[str, Measured], pvs: Pvs, timeout_s: float) -> dict[str, float]:
    """Sample the children until the source has ended; the last latencies read while it streamed."""
    latency = {"p50": float("nan"), "p95": float("nan"), "p99": float("nan")}
    deadline, read = time.monotonic() + timeout_s, 0.0
    source = children["source"]
    while source.running() and not any("sent" in line for line in source.said()):
        if not children["ioc"].running():
            raise children["ioc"].failure()
        for child in children.values():
            child.sample()
        if time.monotonic() > deadline:
            raise StreamError("the source does not end", where=str(source.log_path), remedy="see that log")
        if time.monotonic() - read > READ_EVERY_S:
            read = time.monotonic()
            values = _read(pvs, children["ioc"], "LatencyP50_RBV", "LatencyP95_RBV", "LatencyP99_RBV")
            latency = dict(zip(latency, map(float, values), strict=True))
        time.sleep(POLL_S)
    for child in children.values():
        child.sample()
    return latency


def _settle(pvs: Pvs, sent: int, ioc: Measured) -> float:
    """Wait until every frame sent is accounted for and none pending; the POSIX time when that was seen.

    A frame missed at the very end leaves no gap: what has not moved for a while has settled too, when it last moved.
    """
    before, moved = None, time.time()
    while True:
        now = tuple(map(int, _read(pvs, ioc, "FramesReceived_RBV", "FramesMissed_RBV", "FramesPending_RBV")))
        if now != before:
            before, moved = now, time.time()
        received, missed, pending = now
        if pending == 0 and (received + missed >= sent or time.time() - moved > QUIET_S):
            return moved
        if time.time() - moved > SETTLE_TIMEOUT_S:
            raise StreamError(f"{pending} frames stay pending", where=str(ioc.log_path), remedy="see that log")
        time.sleep(POLL_S)


def _counts(pvs: Pvs, ioc: Measured) -> dict[str, Any]:
    names = ("FramesReceived_RBV", "FramesStitched_RBV", "FramesPending_RBV", "FramesMissed_RBV")
    received, stitched, pending, missed = map(int, _read(pvs, ioc, *names))
    drops = map(int, _read(pvs, ioc, *(f"Dropped{cause}_RBV" for cause in CAUSES)))
    dropped = dict(zip(CAUSES, drops, strict=True))
    return {"received": received, "stitched": stitched, "pending": pending, "missed": missed, "dropped": dropped}


def _read(pvs: Pvs, ioc: Measured, *names: str) -> list[Any]:
    """Records of the IOC; its own failure where it has ended."""
    try:
        return pvs.get(*names)
    except TimeoutError as error:
        if not ioc.running():
            raise ioc.failure() from error
        raise StreamError(
            f"{error} does not answer", where=str(ioc.log_path), remedy="the machine may be too busy: send fewer frames"
        ) from error


def _random_model(shape: tuple[int, int], folder: Path) -> Path:
    """PtychoNN 2.0 with random weights: the speed of a network does not depend on what it has learned."""
    from ptychostream.benchmarks.inference import random_model

    if shape[0] != shape[1]:
        raise ConfigError(
            f"--shape {shape[0]}x{shape[1]} is not square", where="bench stream", remedy="give a --model for it"
        )
    return random_model("ptychonn2", shape[0], folder).path


def _child(name: str, words: list[str], folder: Path, environment: Mapping[str, str]) -> Measured:
    return Measured(f"ptychostream.benchmarks.{name}", words, folder / f"{name}.log", environment)


def _environment() -> dict[str, str]:
    ports = free_ports(2)
    return loopback_environment([ports[0]], ports[1])


def _options(arguments: argparse.Namespace) -> Options:
    try:
        height, width = (int(side) for side in arguments.shape.lower().split("x"))
        if np.dtype(arguments.dtype).kind not in "iu" or min(height, width) < 8 or arguments.seconds <= 0:
            raise ValueError
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"--shape {arguments.shape} --dtype {arguments.dtype} --seconds {arguments.seconds:g}",
            where="bench stream",
            remedy="give a shape such as 128x128, an integer type and a positive duration",
        ) from error
    return Options(
        fps=arguments.fps,
        seconds=arguments.seconds,
        shape=(height, width),
        dtype=arguments.dtype,
        codec="" if arguments.codec == "none" else arguments.codec,
        engine=arguments.engine,
        precision=arguments.precision,
        model=arguments.model,
        batch=arguments.batch,
        alone_seconds=arguments.alone_seconds,
    )


_FLAGS = ("fps", "seconds", "shape", "dtype", "codec", "engine", "precision", "model", "batch")


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name in _FLAGS if (value := getattr(arguments, name)) is not None}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
