"""Clusters with a real network on a real engine: the canvas of a single IOC, bit for bit, whatever their size."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from cluster_helpers import Cluster, Source, image
from engine_models import SIDE, make_model, make_proto
from epics_env import EpicsEnv, wait_until

pytestmark = pytest.mark.server

FRAMES = 300
ENGINE = "ONNXRuntime"  # it computes a whole batch in one call, so that neighbours could be seen


def test_one_two_and_four_consumers_with_a_network_make_the_canvas_of_a_single_ioc_bit_for_bit(tmp_path: Path) -> None:
    """Which frames share a batch, how full it is and how many threads compute it differ everywhere."""
    model = make_model(tmp_path, make_proto(width=8))
    consumer = f"""
model = "{model.path.as_posix()}"
[consumer.engine]
name = "{ENGINE}"
threads = 1
[only.1.engine]
threads = 2
"""
    with ExitStack() as stack:
        env = stack.enter_context(EpicsEnv(ca_servers=8))
        source = stack.enter_context(Source(env, "ce:det:Image"))
        clusters = [
            stack.enter_context(
                Cluster(env, tmp_path / str(n), f"ce:{n}:", source.channel, n, mirror=n == 4, consumer=consumer)
            )
            for n in (1, 2, 4)
        ]
        arguments = ("--engine", ENGINE, "--threads", "2", "--model", str(model.path))
        stack.enter_context(
            env.start_ioc("--prefix", "ce:ioc:", "--input-pv", source.channel, *arguments, wait="ready")
        )
        for cluster in clusters:
            cluster.wait_ready()
        source.send("exact", 1, FRAMES, end=True, size=SIDE)
        wait_until(lambda: env.caget("ce:ioc:FramesStitched_RBV") == FRAMES, 20, "the single IOC's last frame")
        wait_until(lambda: env.caget("ce:ioc:ScanActive_RBV") == 0, 20, "the single IOC's end of the scan")
        phase, weight = image(env, "ce:ioc:Phase"), image(env, "ce:ioc:Weight")
        assert phase[weight > 0].std() > 0.01, "a network that says nothing proves nothing"
        for cluster in clusters:
            cluster.wait("FramesStitched_RBV", FRAMES)
            cluster.wait("ScanActive_RBV", 0)
            figures = cluster.figures("FramesReceived", "FramesPending", "FramesMissed", "FramesTwice", "Accounting")
            assert list(figures.values()) == [FRAMES, 0, 0, 0, 0], f"{figures} {cluster}"
            assert cluster.get("Consumers_RBV").count(f"{ENGINE} m") == cluster.consumers, str(cluster)
            assert image(env, f"{cluster.prefix}Weight").tobytes() == weight.tobytes(), cluster.prefix
            assert image(env, f"{cluster.prefix}Phase").tobytes() == phase.tobytes(), cluster.prefix
        for cluster in clusters:
            assert cluster.stop() == 0, str(cluster)
