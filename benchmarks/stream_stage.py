"""Start the processes of `bench stream`, and read their figures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ptychostream.benchmarks.measured import POLL_S, Measured
from ptychostream.benchmarks.stream_overload import Sample
from ptychostream.benchmarks.stream_source import Source
from ptychostream.config import load_settings
from ptychostream.demo.live import CAUSES
from ptychostream.demo.pvs import Pvs
from ptychostream.errors import StreamError
from ptychostream.plugins.flow.batcher import frames_at_once
from ptychostream.plugins.pipeline import PipelineSettings
from ptychostream.plugins.stage_times import Stage
from ptychostream.processes.loopback import free_ports, loopback_environment

PREFIX = "bench:"
CHANNEL = "bench:det:Image"
START_TIMEOUT_S = 120.0
SETTLE_TIMEOUT_S = 60.0
READ_EVERY_S = 0.5
QUIET_S = 3.0
_COUNTS = ("FramesReceived_RBV", "FramesStitched_RBV", "DroppedQueueFull_RBV")
_TIMING = (
    *(f"{what}P{percent}_RBV" for what in ("Latency", "LatencyServed") for percent in (50, 95, 99)),
    *(f"{stage.value}Time_RBV" for stage in Stage),
)


@dataclass(frozen=True)
class Options:
    """Options of the measurement. See the command's help."""

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
    queue_size: int = 2000
    overload: float | None = None
    training: bool = False
    """Whether the agent's training runs during the stream."""

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


def engine_alone(options: Options, model: Path, fps: float, folder: Path) -> dict[str, Any]:
    """Measure the engine alone in a process, while the source streams without a client."""
    environment = _environment()
    source = options.source(fps, 3600.0)
    words = [str(model), options.engine, options.precision, str(options.batch), str(options.alone_seconds)]
    with _child("stream_source", [source.model_dump_json()], folder, environment) as streaming:
        streaming.hear("ready", START_TIMEOUT_S)
        with _child("engine_alone", words, folder, environment) as engine:
            return engine.hear("fps", START_TIMEOUT_S + options.alone_seconds, streaming)


def stream(options: Options, model: Path | None, fps: float, folder: Path) -> tuple[dict[str, Any], list[Sample]]:
    """Run source, IOC and client. Returns the figures, and the counts during the stream."""
    environment = _environment()
    words = ["ioc", "--prefix", PREFIX, "--input-pv", CHANNEL, "--engine", options.engine]
    words += ["--precision", options.precision, "--batch", str(options.batch), "--queue-size", str(options.queue_size)]
    if model is None:
        # engine none returns counts in place of the phase, and the canvas refuses values that are too large for a phase
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
        training = None
        if options.training:
            words = [str(options.shape[0] // 16 * 16)]
            training = stack.enter_context(_child("training_beside", words, folder, environment))
            training.hear("pairs_per_s", START_TIMEOUT_S, ioc)
        source_settings = options.source(fps, options.seconds, f"{PREFIX}Ready_RBV")
        source = stack.enter_context(_child("stream_source", [source_settings.model_dump_json()], folder, environment))
        children = {"source": source, "ioc": ioc, "client": client}
        children |= {} if training is None else {"training": training}
        timing, samples = _follow(children, pvs, options.seconds + 2 * START_TIMEOUT_S)
        sent = source.hear("sent", SETTLE_TIMEOUT_S, ioc)
        settled = _settle(pvs, sent["sent"], ioc)
        counts = _counts(pvs, ioc)
        # p4p's strings have a time stamp, which str() would print
        engine, precision = (str.__str__(value) for value in _read(pvs, ioc, "EngineName_RBV", "EnginePrecision_RBV"))
        cpu = {name: child.cores(sent["first"], sent["last"]) for name, child in children.items()}
        seen = client.hear_where(lambda line: line.get("frames") == counts["stitched"], SETTLE_TIMEOUT_S, ioc)
    report = {
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
        "latency_ms": {name: timing.get(f"LatencyP{name[1:]}_RBV", nan) for name in ("p50", "p95", "p99")},
        "served_ms": {name: timing.get(f"LatencyServedP{name[1:]}_RBV", nan) for name in ("p50", "p95", "p99")},
        "stages_ms": {stage.value: timing.get(f"{stage.value}Time_RBV", nan) for stage in Stage},
        "cpu_cores": cpu,
        "engine": engine,
        "precision": precision,
        "batch": options.batch,
        "client": seen,
        "queue_size": options.queue_size,
        "at_once": frames_at_once(options.batch, PipelineSettings().backlog_batches),
        "drained_s": settled - sent["last"],
    }
    if training is not None:
        report["training_pairs_per_s"] = median(line["pairs_per_s"] for line in training.said())
    return report, samples


def _follow(children: Mapping[str, Measured], pvs: Pvs, timeout_s: float) -> tuple[dict[str, float], list[Sample]]:
    """Sample the children until the source has ended. Returns the last timing during the stream, and the counts."""
    timing: dict[str, float] = {}
    samples: list[Sample] = []
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
            values = _read(pvs, children["ioc"], *_COUNTS, *_TIMING)
            samples.append(Sample(time.time(), *map(int, values[: len(_COUNTS)])))
            timing = dict(zip(_TIMING, map(float, values[len(_COUNTS) :]), strict=True))
        time.sleep(POLL_S)
    for child in children.values():
        child.sample()
    return timing, samples


def _settle(pvs: Pvs, sent: int, ioc: Measured) -> float:
    """Wait until every sent frame is accounted for and none is pending. Returns the POSIX time of that moment.

    A frame that is missed at the very end leaves no gap. If the counts do not change for a while, they count as settled
    since their last change.
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
    """Read records of the IOC. If the IOC has ended, its failure is raised."""
    try:
        return pvs.get(*names)
    except TimeoutError as error:
        if not ioc.running():
            raise ioc.failure() from error
        raise StreamError(
            f"{error} does not answer", where=str(ioc.log_path), remedy="the machine may be too busy: send fewer frames"
        ) from error


def _child(name: str, words: list[str], folder: Path, environment: Mapping[str, str]) -> Measured:
    return Measured(f"ptychostream.benchmarks.{name}", words, folder / f"{name}.log", environment)


def _environment() -> dict[str, str]:
    ports = free_ports(2)
    return loopback_environment([ports[0]], ports[1])
