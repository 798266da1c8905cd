"""`ptychostream inspect PV`: what a live channel says, what is assumed, what contradicts; exit status as for files."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv
from p4p.nt import NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV
from tiny_model import tiny_contract, tiny_graph

from ptychostream.cli.inspect import is_channel
from ptychostream.cli.main import main
from ptychostream.model.model_file import write_model
from ptychostream.pva.ntndarray import build
from ptychostream.statements.quantities import QUANTITIES

PV = "insp:Pva1:Image"
ROWS, COLUMNS = tiny_contract(name="tiny").input_shape
EPICS_S = 631_152_000.0


class Camera:
    """A p4p server with one image channel, whose frames say what a test wants, and with a scalar."""

    def __init__(self, env: EpicsEnv) -> None:
        self.changes: dict[str, Any] = {}
        self._number = 0
        self._pv = SharedPV(initial=self._image())
        scalar = SharedPV(nt=NTScalar("d"), initial=1.5)
        self._server = Server([{PV: self._pv, "insp:Energy": scalar}], conf=env.server_env(), useenv=False)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def acquiring(self, **changes: Any) -> Iterator[None]:
        """Send 200 frames a second that say this of themselves."""
        self.changes = changes
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._thread.join()

    def stop(self) -> None:
        self._server.stop()

    def _run(self) -> None:
        while not self._ending.wait(0.005):
            self._pv.post(self._image())

    def _image(self) -> Any:
        changes = self.changes
        self._number += 1
        attributes = {"ScanID": "s7", "PositionX": 1.0, **changes.get("attributes", {})}
        counts = np.ones((ROWS, changes.get("columns", COLUMNS)), changes.get("dtype", np.uint16))
        when = time.time() - changes.get("behind_s", 0.0)
        image = build(counts, self._number, when, attributes, descriptor="", units="")
        odd = changes.get("every", 1)
        if self._number % odd == 0:
            image["dimension"] = [{**one, **changes.get("dimension", {})} for one in _plain(image)]
        return image


def _plain(image: Any) -> list[dict[str, Any]]:
    return [one.todict() for one in image["dimension"]]


@pytest.fixture(scope="module")
def camera() -> Iterator[tuple[Camera, EpicsEnv]]:
    with EpicsEnv() as env:
        made = Camera(env)
        try:
            yield made, env
        finally:
            made.stop()


def inspected(env: EpicsEnv, *words: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "ptychostream", "inspect", *words, "--json"]
    done = subprocess.run(command, env=env.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def said(found: dict[str, Any]) -> dict[str, tuple[Any, str, str]]:
    return {one["quantity"]: (one["value"], one["origin"], one["where"]) for one in found["statements"]}


@pytest.mark.server
def test_what_a_sound_channel_says(camera: tuple[Camera, EpicsEnv]) -> None:
    detector, env = camera
    with detector.acquiring(attributes={"Energy": 9.1}):
        words = ("--energy-attribute", "Energy", "--energy-unit", "keV", "--frames", "12")
        status, found = inspected(env, PV, *words)
    assert (status, found["sound"], found["contradictions"], found["error"]) == (0, True, [], None)
    stream = found["stream"]
    assert (stream["height"], stream["width"], stream["pixel_type"], stream["codec"]) == (ROWS, COLUMNS, "uint16", "")
    assert stream["frames"] >= 12 and stream["missed"] == 0 and not stream["held"] and stream["scans"] == ["s7"]
    statements = said(found)
    assert statements["binning_x"] == (1, "stated", "dimension[0].binning")
    assert statements["energy"] == (9_100.0, "stated", "the energy attribute")
    assert statements["scan_id"] == ("s7", "stated", "attribute ScanID")
    assert statements["epoch"] == ("POSIX", "stated", "dataTimeStamp")
    assert statements["first_id"][0] == stream["first_id"]
    assert set(statements) <= set(QUANTITIES)


@pytest.mark.server
@pytest.mark.parametrize(
    ("changes", "quantity", "words"),
    [
        ({"attributes": {"BinX": 2}}, "binning_x", ("dimension[0].binning says 1", "attribute BinX says 2")),
        ({"dimension": {"offset": 6}, "every": 2}, "offset_x", ("offset says 6 px", "offset says 0 px")),
        ({"behind_s": EPICS_S}, "epoch", ("seconds since 1990", "seconds since 1970")),
        ({"dimension": {"binning": 5000}}, "binning_y", ("5000", "from 1 to 4096")),
    ],
)
def test_what_contradicts_itself(
    camera: tuple[Camera, EpicsEnv], changes: dict[str, Any], quantity: str, words: tuple[str, ...]
) -> None:
    detector, env = camera
    with detector.acquiring(**changes):
        status, found = inspected(env, f"pva://{PV}")
    assert (status, found["sound"]) == (2, False)
    texts = [one["text"] for one in found["contradictions"] if one["quantity"] == quantity]
    assert texts and all(word in " ".join(texts) for word in words)
    assert all(one["remedy"] for one in found["contradictions"])


@pytest.mark.server
def test_what_contradicts_a_model(camera: tuple[Camera, EpicsEnv], tmp_path: Path) -> None:
    detector, env = camera
    path = tmp_path / "model.onnx"
    contract = tiny_contract(name="tiny").model_copy(update={"region": {"offset_x": 8.0, "binning_x": 2.0}})
    write_model(path, tiny_graph(ROWS), contract)
    with detector.acquiring():
        status, found = inspected(env, PV, "--model", str(path))
        assert status == 2
        assert {one["quantity"] for one in found["contradictions"]} == {"offset_x", "binning_x"}
        assert "region.binning_x says 2" in found["contradictions"][1]["text"]
    with detector.acquiring(columns=COLUMNS + 4, dimension={"offset": 8, "binning": 2}):
        status, found = inspected(env, PV, "--model", str(path))
    assert status == 2
    assert "model tiny takes" in found["error"]["what"] or "does not fit model tiny" in found["error"]["what"]


@pytest.mark.server
def test_dimensions_that_say_nothing_are_assumed_to_be_unbinned(camera: tuple[Camera, EpicsEnv]) -> None:
    detector, env = camera
    with detector.acquiring(dimension={"binning": 0}):
        status, found = inspected(env, PV)
    assert status == 0
    assert said(found)["binning_x"] == (1, "assumed", "neither the dimensions nor an attribute say it")


@pytest.mark.server
def test_channels_that_cannot_be_used(camera: tuple[Camera, EpicsEnv]) -> None:
    detector, env = camera
    status, found = inspected(env, "insp:Nobody", "--seconds", "1")
    assert status == 2 and "no such channel: nobody answers (searched 127.0.0.1" in found["error"]["what"]
    status, found = inspected(env, "insp:Energy")
    assert status == 2 and "not an NTNDArray: it is epics:nt/NTScalar:1.0, without" in found["error"]["what"]
    with detector.acquiring(dtype=np.float32):
        status, found = inspected(env, PV)
    assert status == 2 and "values of type float32" in found["error"]["what"]
    status, found = inspected(env, PV, "--seconds", "1")
    assert (status, found["stream"]) == (2, None)  # the image that is held is of floats
    with detector.acquiring():
        status, found = inspected(env, PV, "--select-attribute", "Threshold", "--select-value", "1")
    assert status == 2 and "none of" in found["error"]["what"] and "--select-attribute" in found["error"]["remedy"]
    status, found = inspected(env, PV, "--seconds", "1")
    assert status == 0 and found["stream"]["held"] and found["stream"]["frames"] == 0


def test_what_is_a_file_and_what_is_a_channel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = tmp_path / "scan"
    here.touch()
    names = ("13SIM1:Pva1:Image", "pva://x.h5", "image", str(here), "data/scan", "scan.h5")
    assert [is_channel(name) for name in names] == [True, True, True, False, False, False]
    assert main(["inspect", "det:Image", "--binning", "2"]) == 2
    assert "--binning is about files" in capsys.readouterr().err
    assert main(["inspect", str(here), "--energy-attribute", "E"]) == 2
    assert "--energy-attribute is about PVs" in capsys.readouterr().err
