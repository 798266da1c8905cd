"""A cluster on three hosts, as docs/how-to/run-a-cluster.md says: `make test-hosts`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from cluster_helpers import PIXEL_M, SIZE, Cluster, Source, canvas_of, image
from epics_env import EpicsEnv, Process, wait_until
from network_hosts import Hosts, hosts

pytestmark = pytest.mark.hosts
FRAMES = 300


class HostEnv(EpicsEnv):
    """EPICS on the hosts' network; this process is a client on one of them."""

    def __init__(self, variables: dict[str, str], ca_servers: str) -> None:
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("EPICS_")} | variables
        self.epics = {**variables, "EPICS_CA_ADDR_LIST": ca_servers, "EPICS_CA_AUTO_ADDR_LIST": "NO"}
        self._pva = None

    def server_env(self) -> dict[str, str]:
        return self.env

    def cluster_env(self) -> dict[str, str]:
        return self.env


class Stage(NamedTuple):
    hosts: Hosts
    env: HostEnv
    source: Source
    cluster: Cluster
    others: list[Process]


@pytest.fixture(params=["one subnet", "a subnet each"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """Detector, single IOC, collector and this client on host a, a consumer each on b and c."""
    routed = request.param == "a subnet each"
    with ExitStack() as stack:
        net = stack.enter_context(hosts("abc", routed))
        addresses = " ".join(net.address(host) for host in "abc")
        variables = {"EPICS_PVA_ADDR_LIST": addresses} if routed else {}
        stack.enter_context(net.entered("a"))
        env = stack.enter_context(HostEnv(variables, net.address("a").rpartition(".")[0] + ".255"))
        source = stack.enter_context(Source(env, "h:det:Image"))
        dealing = "queue_size = 20"  # what a host that is cut off can have afterwards
        cluster = Cluster(env, tmp_path, "h:", source.channel, 2, dealing=dealing, run=("--run", "collector"))
        stack.enter_context(cluster)
        others = []
        for host, consumer in (("b", "1"), ("c", "2")):
            with net.entered(host):
                process = cluster.start("--run", "consumers", "--consumer", consumer)
            others.append(stack.enter_context(process))
        cluster.wait_ready()
        yield Stage(net, env, source, cluster, others)


def test_a_cluster_on_three_hosts_makes_the_canvas_of_a_single_ioc_and_outlives_a_cut(stage: Stage) -> None:
    net, env, source, cluster, others = stage
    arguments = ("--engine", "none", "--frame-shape", f"{SIZE}x{SIZE}", "--pixel-size", str(PIXEL_M))
    with env.start_ioc("--prefix", "h1:", "--input-pv", source.channel, *arguments, wait="ready") as ioc:
        source.send("exact", 1, FRAMES, rate=200, end=True)
        wait_until(lambda: env.caget("h1:FramesStitched_RBV") == FRAMES, 20, "the single IOC's last frame")
        wait_until(lambda: env.caget("h1:ScanActive_RBV") == 0, 20, "the single IOC's end of the scan")
        cluster.wait("FramesStitched_RBV", FRAMES)
        cluster.wait("ScanActive_RBV", 0)
        for name in ("Weight", "Phase"):
            assert image(env, f"h:{name}").tobytes() == image(env, f"h1:{name}").tobytes(), f"{name}; {cluster}"
        assert ioc.stop() == 0
    assert all(len(cluster.laid(consumer)) > FRAMES // 4 for consumer in (1, 2)), str(cluster)

    source.send("cut", 1, 100, rate=100)
    net.cut("c")
    source.send("cut", 101, 200, rate=100)
    cluster.wait("ConsumersMissing_RBV", 1)
    before = cluster.get("FramesStitched_RBV")
    source.send("cut", 301, 200, rate=100)
    wait_until(lambda: cluster.get("FramesStitched_RBV") > before + 50, 20, lambda: f"the other goes on; {cluster}")
    net.restore("c")
    cluster.wait("ConsumersLive_RBV", 2)
    wait_until(lambda: max(cluster.laid(2)) > 100, 60, lambda: f"frames reach the other again; {cluster}")
    source.send("cut", 501, 100, rate=100, end=True)
    cluster.wait("ScanActive_RBV", 0)
    sets = [cluster.laid(consumer) for consumer in (1, 2)]
    whole = sets[0] | sets[1]
    assert sum(map(len, sets)) == len(whole)
    cluster.wait("FramesMissed_RBV", 600 - len(whole))
    assert list(cluster.figures("FramesTwice", "FramesPending", "Accounting").values()) == [0, 0, 0], str(cluster)
    assert 0 < 600 - len(whole) < 250, str(cluster)
    assert max(sets[1]) > 500, "the host that was cut off is back"
    wanted = canvas_of(whole)
    cluster.wait_image("Weight", wanted.weight)
    covered = wanted.weight > 0
    assert np.array_equal(image(env, "h:Phase")[covered], wanted.phase[covered])

    assert [process.stop(timeout=60) for process in others] == [0, 0]
    assert cluster.stop() == 0
