"""The ports of an IOC: images and pushed models at one that can be set; and what is told of the positions' unit."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from epics_env import EpicsEnv, free_port
from p4p import Type, Value
from p4p.client.thread import Context

from ptychostream.model.model_push import push_channel

pytestmark = pytest.mark.server

P = "port:"
PLAIN = ("--prefix", P, "--engine", "None", "--frame-shape", "16x16", "--position-unit", "um")


@pytest.fixture
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv() as made:
        yield made


def test_images_and_pushed_models_come_from_one_port_that_is_set(env: EpicsEnv) -> None:
    port = free_port()
    with env.start_ioc(*PLAIN, "--images-port", str(port)) as ioc:
        assert env.caget(f"{P}ImagesPort_RBV") == port
        assert f"images and pushed models at TCP port {port}" in ioc.output
        direct = {
            "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{port}",
            "EPICS_PVA_ADDR_LIST": "",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        }
        with Context("pva", conf=direct, useenv=False, nt=False) as client:
            sizes = {
                name: [dimension.size for dimension in client.get(f"{P}{name}", timeout=10).dimension]
                for name in ("Phase", "Weight", "Patch")
            }
            assert sizes == {"Phase": [64, 64], "Weight": [64, 64], "Patch": [16, 16]}
            query = Type([("query", ("S", None, [("sha256", "s"), ("name", "s"), ("nonce", "s"), ("hmac", "s")]))])
            answer = client.rpc(push_channel(P), Value(query, {"query": {}}), timeout=10)
            assert answer["nonce"]
        assert env.pvget(f"{P}PositionsX").display.units == "um"
        assert ioc.stop() == 0, ioc.output


def test_a_port_of_the_images_that_is_taken_is_refused(env: EpicsEnv) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "ptychostream", "ioc", *PLAIN, "--images-port", port]
        done = subprocess.run(command, env=env.server_env(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"images_port: the images' PV Access port {port} is in use" in done.stderr
