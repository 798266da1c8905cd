"""A cluster of real processes: scans, models, and what is lost when one of them is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cluster_helpers import PLAIN, SIZE, Cluster, Source, canvas_of, image
from epics_env import EpicsEnv, wait_until
from tiny_model import write_tiny

from ptychostream.imaging.sigma import phase_sigma

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv(ca_servers=8) as env:
        yield env


@pytest.fixture(scope="module")
def source(env: EpicsEnv) -> Iterator[Source]:
    with Source(env, "cl:det:Image") as source:
        yield source


@pytest.fixture(scope="module")
def pair(env: EpicsEnv, source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two consumers, which accumulate the spread of the patches."""
    consumer = f"{PLAIN}pipeline = {{ sigma = true }}"
    folder = tmp_path_factory.mktemp("pair")
    with Cluster(env, folder, "cl:pair:", source.channel, 2, consumer=consumer) as cluster:
        cluster.wait_ready()
        yield cluster


def test_scans_back_to_back_are_a_canvas_each_and_the_last_ends_by_command(
    env: EpicsEnv, source: Source, pair: Cluster
) -> None:
    frames = {"a": 90, "b": 50, "c": 70}
    for scan, count in frames.items():
        source.send(scan, 1, count)
    pair.wait("ScanID_RBV", "c")
    env.caput(f"{pair.prefix}EndScan", 1, wait=True)
    assert list(pair.figures("ScanActive", "FramesPending", "FramesMissed").values()) == [0, 0, 0], str(pair)
    for shown, scan in enumerate(reversed(frames)):
        env.caput(f"{pair.prefix}ShowScan", shown, wait=True)
        pair.wait_image("Weight", canvas_of(range(1, frames[scan] + 1)).weight)
    env.caput(f"{pair.prefix}ShowScan", 0, wait=True)


def test_a_model_loaded_at_the_collector_runs_in_every_consumer(env: EpicsEnv, pair: Cluster, tmp_path: Path) -> None:
    sha256 = write_tiny(tmp_path / "tiny.onnx")
    env.caput(f"{pair.prefix}ModelFile", f"{tmp_path}/tiny.onnx", wait=True)
    env.caput(f"{pair.prefix}LoadModel", 1, wait=True, timeout=60)
    figures = pair.figures("ModelSHA", "ModelState", "Consumers")
    assert (figures["ModelSHA"], figures["ModelState"]) == (sha256, 4), str(pair)
    assert figures["Consumers"].count("none tiny") == 2, str(pair)


def test_a_collector_that_is_killed_in_mid_scan_recovers_the_whole_canvas(
    env: EpicsEnv, source: Source, pair: Cluster
) -> None:
    before = pair.pid("collector")
    source.send("recovered", 1, 40)
    pair.wait("ScanID_RBV", "recovered")
    os.kill(before, signal.SIGKILL)
    source.send("recovered", 41, 40)
    wait_until(lambda: pair.pid("collector") != before, 30, "the collector starts again")
    pair.wait_ready()
    source.send("recovered", 81, 1, end=True)
    pair.wait("ScanActive_RBV", 0)
    wanted = canvas_of(range(1, 82))
    pair.wait_image("Weight", wanted.weight)
    covered = wanted.weight > 0
    assert np.array_equal(image(env, f"{pair.prefix}Phase")[covered], wanted.phase[covered])
    assert wanted.spread is not None
    sigma = phase_sigma(wanted.spread, None).values
    assert np.array_equal(image(env, f"{pair.prefix}PhaseSigma")[np.isfinite(sigma)], sigma[np.isfinite(sigma)])
    assert list(pair.figures("FramesMissed", "FramesPending", "Accounting").values()) == [0, 0, 0]


def test_a_consumer_that_is_killed_loses_what_it_held_counts_it_and_comes_back(
    env: EpicsEnv, source: Source, pair: Cluster
) -> None:
    restarts, missed = pair.figures("ConsumerRestarts", "FramesMissed").values()
    source.send("killed", 1, 100, rate=200)
    pair.wait("ScanID_RBV", "killed")
    os.kill(pair.pid("consumer 2"), signal.SIGKILL)
    alarm = f"{pair.prefix}ConsumersMissing_RBV"
    wait_until(lambda: env.pvget(alarm)["alarm.severity"] == 2, 20, "a MAJOR alarm", interval=0.02)
    source.send("killed", 101, 100, rate=200)
    pair.wait("ConsumerRestarts_RBV", restarts + 1)
    pair.wait_ready()
    source.send("killed", 201, 100, rate=200, end=True)
    pair.wait("ScanActive_RBV", 0)
    lost = pair.figures("FramesMissed")["FramesMissed"] - missed
    assert lost < 100, f"{lost} frames lost; {pair}"
    assert list(pair.figures("FramesPending", "FramesTwice", "Accounting").values()) == [0, 0, 0], str(pair)
    patches = image(env, f"{pair.prefix}Weight").sum() / SIZE**2
    assert patches == 300 - lost, str(pair)


def test_a_cluster_ends_cleanly_with_all_its_processes(pair: Cluster) -> None:
    pids = [pair.pid(name) for name in ("collector", "consumer 1", "consumer 2")]
    assert pair.stop() == 0, str(pair)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
