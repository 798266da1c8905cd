"""`ptychostream bench record`: source → PVA → `ptychostream record` → scan file, in separate processes.

Figures

- `sent`, `received`, `written`, `missed`, `dropped` by cause. `lost` = sent - frames in the file with the sent counts.
  - `cpu_cores`: processor time of each process divided by wall time, from the first to the last sent frame.
  - `bytes`, `megabytes_per_s`: size and rate of the compressed frames.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.benchmarks.measured import POLL_S, Measured
from ptychostream.benchmarks.stream_source import Source, checked_shape, patterns, ring_lengths
from ptychostream.config import load_settings
from ptychostream.errors import ConfigError, StreamError
from ptychostream.frames.codecs import compress
from ptychostream.processes.hardware import cores, cpu_name
from ptychostream.processes.loopback import free_ports, loopback_environment
from ptychostream.scans.file_names import partial_of
from ptychostream.scans.hdf5_chunks import file_codec
from ptychostream.scans.scan_files import open_scan

CHANNEL = "bench:det:Image"
SCAN = "bench"
START_TIMEOUT_S = 120.0
_QUIET_S = 10.0
_SPARE = 1.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ptychostream bench record`."""
    parser.add_argument("--fps", type=float, default=2000.0, help="sent frames per second (default %(default)g)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, metavar="S", help="duration of the stream (default %(default)g)"
    )
    parser.add_argument("--shape", default="128x128", metavar="HxW", help="shape of a frame (default %(default)s)")
    parser.add_argument("--dtype", default="uint16", metavar="T", help="integer type (default %(default)s)")
    parser.add_argument(
        "--codec", default="none", metavar="C", help="codec of the stream: none, lz4, bslz4… (default none)"
    )
    parser.add_argument(
        "--threads", type=int, default=2, metavar="N", help="threads for compression (default %(default)s)"
    )
    parser.add_argument("--no-check", action="store_true", help="do not check frames that arrive compressed")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="folder of the file (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print. Returns 1 if a frame was lost."""
    source = _source(arguments)
    sent = patterns(source.shape, source.dtype, ring_lengths(source)[1])
    with tempfile.TemporaryDirectory(prefix="ptychostream-bench-", dir=arguments.folder) as folder:
        words = ["--threads", str(arguments.threads), *(["--no-check"] if arguments.no_check else [])]
        _check_space(Path(folder), source, sent)
        report = measure(source, sent, words, Path(folder))
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0 if report["lost"] == 0 else 1


def _check_space(folder: Path, source: Source, sent: NDArray[np.integer]) -> None:
    """Raise ConfigError if the disk has too little room: a recording of some minutes has gigabytes."""
    codec = source.codec or file_codec("")
    needed = int(_SPARE * source.frames * np.mean([len(compress(frame, codec)) for frame in sent]))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(
            f"{source.frames} frames need about {needed >> 20} MiB, {free >> 20} MiB are free",
            where=str(folder.parent),
            remedy="name a folder on a larger disk with --folder, or give fewer --seconds",
        )


def measure(source: Source, patterns_sent: NDArray[np.integer], words: list[str], folder: Path) -> dict[str, Any]:
    """Stream, record, and read the file back."""
    ports = free_ports(2)
    environment = loopback_environment([ports[0]], ports[1])
    file = folder / f"{SCAN}.h5"
    record = ["record", CHANNEL, str(file), "--json", "--frames", str(source.frames), "--timeout", str(START_TIMEOUT_S)]
    # If a frame is lost, the recording waits for it. It is then stopped when the source ends.
    seconds = source.frames / source.rate_hz
    with (
        Measured("ptychostream", record + words, folder / "record.log", environment) as recorder,
        Measured(
            "ptychostream.benchmarks.stream_source", [source.model_dump_json()], folder / "source.log", environment
        ) as sender,
    ):
        deadline = time.monotonic() + 2 * START_TIMEOUT_S + 2 * seconds
        while not (sender.running() is False or any("sent" in line for line in sender.said())):
            for child in (sender, recorder):
                child.sample()
            if not recorder.running() and not recorder.said():
                raise recorder.failure()
            if time.monotonic() > deadline:
                raise StreamError("the source does not end", where=str(sender.log_path), remedy="see that log")
            time.sleep(POLL_S)
        sender.sample()
        recorder.sample()
        sent = sender.hear("sent", START_TIMEOUT_S)
        told = _summary(recorder, folder)
        cpu = {
            name: child.cores(sent["first"], sent["last"]) for name, child in (("source", sender), ("record", recorder))
        }
    if not file.exists():
        raise recorder.failure()
    written = _read_back(file, source, patterns_sent)
    size = sum(one["bytes"] for one in told["files"])
    elapsed = sent["last"] - sent["first"]
    return {
        "fps": source.rate_hz,
        "seconds": elapsed,
        "shape": list(source.shape),
        "dtype": source.dtype,
        "codec": source.codec or "none",
        "sent": sent["sent"],
        "sent_hz": sent["rate_hz"],
        "received": told["received"],
        "written": told["written"],
        "missed": told["missed"],
        "dropped": told["dropped"],
        "lost": sent["sent"] - written,
        "bytes": size,
        "megabytes_per_s": size / max(elapsed, 1e-9) / 1e6,
        "cpu_cores": cpu,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {"processor": cpu_name(), "cores": cores(), "python": platform.python_version()},
    }


def _summary(recorder: Measured, folder: Path) -> dict[str, Any]:
    """The summary that the recording prints at its end. If frames are missing, it is stopped."""
    size, grown = -1, time.monotonic()
    while recorder.running() and time.monotonic() - grown < _QUIET_S:
        with contextlib.suppress(FileNotFoundError):  # it has just been renamed
            now = partial_of(folder / f"{SCAN}.h5").stat().st_size
            size, grown = (now, time.monotonic()) if now != size else (size, grown)
        time.sleep(POLL_S)
    recorder.stop()
    return recorder.hear("written", START_TIMEOUT_S)


def _read_back(file: Path, source: Source, sent: NDArray[np.integer]) -> int:
    """The number of frames in the file that equal the sent ones."""
    length, distinct = ring_lengths(source)
    good = 0
    with open_scan(file, geometry=False) as scan:
        assert scan.frame_ids is not None
        for start in range(0, len(scan), 256):
            counts = scan.counts[start : start + 256]
            for frame, frame_id in zip(counts, scan.frame_ids[start : start + 256], strict=True):
                good += np.array_equal(frame, sent[int(frame_id) % length % distinct])
    return int(good)


def _source(arguments: argparse.Namespace) -> Source:
    shape = checked_shape(arguments.shape, arguments.dtype, arguments.seconds, "bench record")
    values: dict[str, Any] = {
        "channel": CHANNEL,
        "rate_hz": arguments.fps,
        "frames": max(1, round(arguments.fps * arguments.seconds)),
        "shape": shape,
        "dtype": arguments.dtype,
        "codec": "" if arguments.codec == "none" else arguments.codec,
        "wait_for_client": True,
        "timeout_s": START_TIMEOUT_S,
    }
    return load_settings(Source, None, values)


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value")
    for name, value in report.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
