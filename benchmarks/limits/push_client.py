"""`python -m ptychostream.benchmarks.limits.push_client PORT WAY`: pushes noise, and prints what the edge said."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from p4p import Type, Value
from p4p.client.thread import Context, RemoteError

from ptychostream.model.model_push import QUERY, push_channel

PREFIX = "limits:"
SIZE = 100 << 20
_URI = Type(
    [("scheme", "s"), ("authority", "s"), ("path", "s"), ("query", ("S", None, list(QUERY)))], id="epics:nt/NTURI:1.0"
)
_CHANNEL = push_channel(PREFIX)
_SHA = "0" * 64


def loopback(port: int | str) -> dict[str, str]:
    """How a client finds the server at a port of the loopback interface."""
    return {"EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{port}", "EPICS_PVA_AUTO_ADDR_LIST": "NO"}


class Client:
    """The edge at a port of the loopback interface."""

    def __init__(self, port: str) -> None:
        self._context = Context("pva", conf=loopback(port), useenv=False, nt=False)

    def call(self, **query: Any) -> str:
        """What the edge said."""
        request = Value(_URI, {"scheme": "pva", "path": _CHANNEL, "query": query})
        try:
            return str(self._context.rpc(_CHANNEL, request, timeout=60)["value"])
        except RemoteError as error:
            return str(error)


def main(port: str, way: str) -> None:
    client, noise, said = Client(port), np.random.default_rng(0), ""
    client.call()
    push = {"sha256": _SHA, "name": "noise", "nonce": "n"}
    if way == "once":
        said = client.call(model=np.frombuffer(noise.bytes(SIZE), np.uint8), **push)
    elif way == "parts":
        for offset in range(0, SIZE, 1 << 20):
            part = np.frombuffer(noise.bytes(1 << 20), np.uint8)
            said = client.call(model=part, size=SIZE, offset=offset, **push)
    elif way == "large":
        said = client.call(model=np.zeros(1 << 20, np.uint8), size=2 << 30, offset=0, **push)
    else:
        for _ in range(1000):
            said = client.call(model=np.zeros(1000, np.uint8), **push)
    print(said)


if __name__ == "__main__":
    main(*sys.argv[1:])
