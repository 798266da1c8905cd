"""Pushes, judgements, reports and connections of others."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from p4p.client.thread import Context

from ptychostream.benchmarks.limits.models import Act, refusal
from ptychostream.benchmarks.limits.push_client import PREFIX, loopback
from ptychostream.ioc.images.images import ImageServer
from ptychostream.ioc.model.canary_rollback import Judgement
from ptychostream.ioc.model.model_rpc import ModelRpc
from ptychostream.ioc.model.model_rpc_folder import PushedModels
from ptychostream.ioc.model.verdicts import Verdicts
from ptychostream.model.model_push import REFUSED, read_key
from ptychostream.plugins.consumer.consumer_report import Report
from ptychostream.plugins.consumer.consumer_word import check_report
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.positions.positions import AttributePositions
from ptychostream.pva.server import port_of, serve

_KEY = b"a key for the measurement"
_CLIENT = "ptychostream.benchmarks.limits.push_client"
_JUDGED = Judgement("a" * 64, "b" * 64, 0.1, 0.9)
_SILENT, _NEWCOMERS = 200, 8
_PVA_HEADER = b"\xca\x02\x00\x01\x10\x00\x00\x00"


class _Slot:
    """A slot that takes nothing."""

    live = previous = None
    message = ""

    def load(self, path: Any, expected_sha256: str = "") -> None:
        raise AssertionError(f"{path} {expected_sha256}")


class _Lines(logging.Handler):
    """Counts the lines of the log."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.levelno >= logging.WARNING


def _pushing(folder: Path, way: str, key: bytes | None = None) -> Act:
    slot, models = _Slot(), PushedModels(folder, 3)
    rpc = ModelRpc(PREFIX, slot, models, may_write=lambda *_: True, max_bytes=256 << 20, key=key)
    server = serve([rpc.open()])
    words = [sys.executable, "-m", _CLIENT, str(port_of(server)), way]

    def act() -> str:
        done = subprocess.run(words, capture_output=True, check=True)
        rpc.stop()
        server.stop()
        left = [path.name for path in folder.iterdir()]
        assert not left, left
        said = done.stdout.decode().strip()
        assert said.startswith(REFUSED), said
        return said

    return act


def push_in_parts(folder: Path) -> Act:
    """As the agent pushes."""
    return _pushing(folder, "parts")


def push_at_once(folder: Path) -> Act:
    """As older agents push."""
    return _pushing(folder, "once")


def push_too_large(folder: Path) -> Act:
    """A first part that announces more than the limit."""
    return _pushing(folder, "large")


def push_unsigned(folder: Path) -> Act:
    """Many pushes to an edge that has a key."""
    logging.disable(logging.NOTSET)
    lines = _Lines()
    logging.getLogger().addHandler(lines)
    act = _pushing(folder, "unsigned", _KEY)
    return lambda: f"{act()}; {lines.count} lines in the log"


def judged_by_nobody(_: Path) -> Act:
    """While no agent has the lease."""
    return lambda: refusal(lambda: Verdicts("p:", None).check(_JUDGED, "", "", False))


def judged_wrongly(_: Path) -> Act:
    """By an agent that has the lease and another key."""
    return lambda: refusal(lambda: Verdicts("p:", _KEY).check(_JUDGED, "0" * 64, "agent", True))


def unsigned_report(_: Path) -> Act:
    """By whoever serves the channel of a consumer."""
    report = Report(consumer=1, instance="i", sequence=1, time=0.0)
    return lambda: refusal(lambda: check_report(report, _KEY))


def open_key(folder: Path) -> Act:
    """A file with the usual permissions."""
    path = folder / "key"
    path.write_bytes(_KEY)
    path.chmod(0o644)
    return lambda: refusal(lambda: read_key(path, "model.key_file"))


def silent_connections(_: Path) -> Act:
    """As a port scanner opens them, and clients that come meanwhile."""
    pipeline = Pipeline(PipelineSettings(), AttributePositions("x", "y"))
    images = ImageServer("limits:", pipeline, lambda _: "", 5.0, None, (128, 128))
    images.start()
    port = images.port

    def act() -> str:
        silent = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(_SILENT)]
        for connection in silent[::2]:
            connection.sendall(_PVA_HEADER)
        waits = []
        for _ in range(_NEWCOMERS):
            began = time.monotonic()
            with Context("pva", conf=loopback(port), useenv=False, nt=False) as newcomer:
                newcomer.get("limits:Phase", timeout=30)
                waits.append(time.monotonic() - began)
        for connection in silent:
            connection.close()
        images.stop()
        return f"each served, after {np.median(waits):.3f} s (median), {max(waits):.3f} s (longest)"

    return act
