"""`ptychostream bench stream`, small: its figures add up."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from ptychostream.benchmarks.stream_source import Source, patterns, ring
from ptychostream.cli.main import main

pytestmark = pytest.mark.slow

TIMEOUT_S = 240.0


def test_every_frame_of_a_short_stream_is_accounted_for() -> None:
    words = [sys.executable, "-m", "ptychostream", "bench", "stream", "--json", "--engine", "none"]
    words += ["--fps", "100", "--seconds", "1", "--shape", "64x64", "--codec", "bslz4", "--training"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["sent"] == report["received"] == report["stitched"] == 100
    assert report["lost"] == report["missed"] == report["pending"] == sum(report["dropped"].values()) == 0
    assert report["engine"] == "none"
    assert report["engine_only_fps"] is None
    assert 0 < report["rate_hz"] < 101
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p99"]
    assert set(report["cpu_cores"]) == {"source", "ioc", "client", "training"}
    assert report["cpu_cores"]["ioc"] > 0 and report["training_pairs_per_s"] > 0
    # a client saw the canvas with every frame in it: a spiral of 100 steps of 50 nm, and a frame around it
    assert report["client"]["frames"] == 100
    assert min(report["client"]["shape"]) > 64


def test_the_source_repeats_real_patterns_on_a_spiral() -> None:
    arrays = ring(Source(channel="x", rate_hz=1, frames=1, shape=(48, 64), dtype="int16"))
    assert len(arrays) == 1024
    payloads = [values[0] for values in arrays]
    assert payloads[0] == payloads[256] != payloads[1]
    first = np.frombuffer(payloads[0][-2 * 48 * 64 :], "<i2")
    assert first.max() > 100
    assert len({tuple(values) for values in arrays}) == 1024  # by their positions
    assert patterns((64, 64), "uint8", 16).max() < 255


@pytest.mark.parametrize("argument", ["--shape=64", "--dtype=float32", "--seconds=0"])
def test_wrong_arguments_are_named(capsys: pytest.CaptureFixture[str], argument: str) -> None:
    assert main(["bench", "stream", argument]) == 2
    assert argument.partition("=")[2] in capsys.readouterr().err


def test_no_such_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "tea"])
    assert "inference" in capsys.readouterr().err
