"""A frame that pvaPy's distributor repeats to another consumer: on the canvas once, whoever dies when."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from cluster_helpers import Cluster, Source, canvas_of, image
from epics_env import EpicsEnv, free_port, wait_until

pytestmark = pytest.mark.server

ESTABLISHED = "01"


class Stage(NamedTuple):
    source: Source
    cluster: Cluster
    port: int

    @property
    def subscriptions(self) -> int:
        """Consumers' connections to the detector."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[2].endswith(f":{self.port:04X}") and row[3] == ESTABLISHED for row in rows)

    def wait_subscribed(self, consumers: int) -> None:
        wait_until(lambda: self.subscriptions == consumers, 40, lambda: f"{self.subscriptions}; {self.cluster}")

    def break_connections(self) -> None:
        """The detector is silent for so long that the consumers subscribe again.

        The distributor then gives each its last update, whose ever that was.
        """
        self.source.signal(signal.SIGSTOP)
        self.wait_subscribed(0)
        self.source.signal(signal.SIGCONT)

    def taken_back(self) -> int:
        """How often a consumer took a frame back."""
        return sum(path.read_text().count("taken back") for path in self.cluster.logs.glob("consumer-*.log"))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Two consumers that give a silent detector up after seconds."""
    port = free_port()
    with (
        EpicsEnv() as env,
        Source(env, "cr:det:Image", {"EPICS_PVAS_SERVER_PORT": str(port)}) as source,
        Cluster(env, tmp_path, "cr:", source.channel, 2, environment={"EPICS_PVA_CONN_TMO": "2"}) as cluster,
    ):
        cluster.wait_ready()
        made = Stage(source, cluster, port)
        made.wait_subscribed(2)
        yield made


def test_a_repeated_frame_is_on_the_canvas_once(stage: Stage) -> None:
    source, cluster, _ = stage
    last = 41
    source.send("repeats", 1, last)
    cluster.wait_image("Weight", canvas_of(range(1, last + 1)).weight)

    # both live: each gets the last frame again, one of them for the first time
    stage.break_connections()
    cluster.wait("DroppedDuplicate_RBV", 2)
    assert stage.taken_back() == 1
    cluster.wait_image("Weight", canvas_of(range(1, last + 1)).weight)

    # the frame is on the canvas of one that is killed, while no frame comes
    source.send("repeats", last + 1, 20)
    last += 20
    cluster.wait_image("Weight", canvas_of(range(1, last + 1)).weight)
    held = {consumer: cluster.laid(consumer) for consumer in (1, 2)}
    assert sorted(held[1] | held[2]) == list(range(1, last + 1))
    dead, heir = (1, 2) if last in held[1] else (2, 1)
    os.kill(cluster.pid(f"consumer {dead}"), signal.SIGKILL)
    stage.wait_subscribed(1)
    stage.break_connections()
    wait_until(lambda: stage.taken_back() == 2, 40, lambda: f"the heir takes frame {last} back; {cluster}")
    cluster.wait_image("Weight", canvas_of(range(1, last + 1)).weight)
    cluster.wait_ready()
    stage.wait_subscribed(2)

    # the scan goes on
    source.send("repeats", last + 1, 20, end=True)
    last += 20
    cluster.wait("ScanActive_RBV", 0)
    sets = [held[dead], cluster.laid(dead), cluster.laid(heir)]
    whole = set().union(*sets)
    figures = cluster.figures("FramesMissed", "FramesTwice", "FramesPending", "Accounting")
    assert list(figures.values()) == [last - len(whole), 0, 0, 0], f"{figures} {cluster}"
    assert sum(map(len, sets)) == len(whole)
    wanted = canvas_of(whole)
    cluster.wait_image("Weight", wanted.weight)
    covered = wanted.weight > 0
    assert np.array_equal(image(cluster.env, "cr:Phase")[covered], wanted.phase[covered])
    assert cluster.stop() == 0
