"""The image server by itself: what clients get before the first frame, and what they cannot do to one another."""

from __future__ import annotations

import itertools
import json
import queue
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, free_port, wait_until
from image_sources import CanvasSource
from ioc_helpers import attributes_of
from numpy.typing import NDArray
from p4p.client.thread import Context, RemoteError

from ptychostream.imaging.phase_image import canvas_part
from ptychostream.ioc.images.images import ImageServer
from ptychostream.pva.server import at_port

pytestmark = pytest.mark.server

P = "im:"
IMAGES = ("Phase", "PhaseSigma", "Weight", "Patch", "Pattern")


class Stand:
    """A server with its source, and a client."""

    def __init__(self, env: EpicsEnv) -> None:
        self.env = env
        self.source = CanvasSource()
        self.server = ImageServer(P, self.source, lambda name: f"sha of {name}", 50.0, None, (24, 32))
        with env.active():
            self.server.start()
        conf = self.server._server.conf()  # type: ignore[union-attr]
        self.port = int(conf["EPICS_PVAS_SERVER_PORT"])

    def get(self, name: str) -> Any:
        return self.env.pvget(P + name)


class Watcher:
    """(uniqueId, side) of every image Phase that a client receives."""

    def __init__(self, env: EpicsEnv) -> None:
        self.seen: list[tuple[int, int]] = []
        request = "record[queueSize=100]field(uniqueId,dimension)"
        self._context = Context("pva", conf=env.epics, useenv=False, nt=False)
        self._watch = self._context.monitor(P + "Phase", self._note, request=request)
        wait_until(lambda: self.seen, 10, "the first image")

    def _note(self, value: Any) -> None:
        columns, rows = (dimension.size for dimension in value.dimension)
        assert columns == rows
        self.seen.append((value.uniqueId, columns))

    def close(self) -> None:
        self._watch.close()
        self._context.close()


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with EpicsEnv() as env:
        stand = Stand(env)
        yield stand
        stand.server.stop()


def pixels(value: Any) -> NDArray[np.float32]:
    columns, rows = (dimension.size for dimension in value.dimension)
    return np.asarray(value.value).reshape(rows, columns)


def test_the_images_are_listed(stand: Stand) -> None:
    names = list(stand.get("Images").value)
    assert names == list(IMAGES)
    for name in names:
        assert stand.get(name).getID() == "epics:nt/NTNDArray:1.0"


@pytest.fixture
def gateway(stand: Stand, tmp_path: Path) -> Iterator[Context]:
    """A client that reaches the server through p4p's gateway alone."""
    port, udp = free_port(), free_port()
    config = {
        "version": 2,
        "clients": [
            {"name": "beamline", "provider": "pva", "addrlist": "127.0.0.1", "autoaddrlist": False,
             "bcastport": stand.env.broadcast_port},
        ],
        "servers": [
            {"name": "office", "clients": ["beamline"], "interface": ["127.0.0.1"], "addrlist": "127.0.0.1",
             "autoaddrlist": False, "serverport": port, "bcastport": udp},
        ],
    }  # fmt: skip
    (tmp_path / "gateway.conf").write_text(json.dumps(config))
    with stand.env.start(sys.executable, "-m", "p4p.gw", str(tmp_path / "gateway.conf")) as process:
        office = {
            "EPICS_PVA_ADDR_LIST": f"127.0.0.1:{udp}",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            "EPICS_PVA_BROADCAST_PORT": str(udp),
        }
        with Context("pva", conf=office, useenv=False, nt=False) as context:
            yield context
        assert process.popen.poll() is None, process.output


@pytest.mark.slow
def test_a_gateway_passes_images_on_before_the_first_frame(stand: Stand, gateway: Context) -> None:
    assert stand.server.served == 0
    for name in IMAGES:
        image = gateway.get(P + name, timeout=20)
        assert image.uniqueId == 0
        assert pixels(image).shape == ((24, 32) if name in ("Patch", "Pattern") else (128, 128))
        assert not pixels(image).any()


def test_every_attribute_is_there_before_the_first_frame(stand: Stand) -> None:
    before = {name: set(attributes_of(stand.get(name))) for name in IMAGES}
    stand.source.show(np.ones((4, 5), np.float32), np.ones((4, 5), np.float32))
    wait_until(lambda: stand.get("Patch").uniqueId, 10, "the first images")
    assert {name: set(attributes_of(stand.get(name))) for name in IMAGES} == before


def test_images_are_what_every_viewer_reads(stand: Stand) -> None:
    phase = np.float32([[0.1, 0.2, 0.7], [9.0, 9.0, 9.0]])
    weight = np.float32([[1, 2, 3], [0, 0, 0]])
    served = stand.server.served
    stand.source.show(phase, weight)
    wait_until(lambda: stand.server.served > served, 10, "the images")
    got = {name: stand.get(name) for name in IMAGES}
    for name, unit in (("Phase", "rad"), ("Weight", "patches"), ("Patch", "rad")):
        assert pixels(got[name]).dtype == np.float32
        assert pixels(got[name]).shape == ((2, 3) if name == "Patch" else (128, 128))
        assert (got[name].codec.name, got[name].codec.parameters) == ("", None)  # PyDM takes these for the pixels' type
        assert got[name].compressedSize == got[name].uncompressedSize == 4 * pixels(got[name]).size
        assert (got[name].display.units, got[name].descriptor, got[name].alarm.severity) == (unit, name, 0)
        assert got[name].timeStamp.secondsPastEpoch == got[name].dataTimeStamp.secondsPastEpoch > 1_700_000_000
        assert got[name].getID() == "epics:nt/NTNDArray:1.0"
    assert got["Phase"].uniqueId == got["Weight"].uniqueId == stand.server.served
    shown, told = pixels(got["Phase"]), attributes_of(got["Phase"])
    part = canvas_part(told)
    assert np.array_equal(pixels(got["Weight"])[part], weight)
    assert pixels(got["Weight"]).sum() == weight.sum()
    assert np.isfinite(shown).all()
    assert np.array_equal(shown[part][0], phase[0])
    fill = pixels(got["Weight"]) == 0
    assert set(shown[fill].tolist()) == {told["FillValue"]}  # equal, not close: the value that the pixels hold
    expected = {"ScanID": "s", "ModelVersion": "m", "ModelSHA": "sha of m", "DoseScale": 1.5, "PixelSize": 1e-8,
                "FramesStitched": 3, "LastFrameId": 7, "ColorMode": 0}  # fmt: skip
    assert expected.items() <= told.items()
    rows, columns = part
    assert told["OriginX"] + columns.start * 1e-8 == pytest.approx(1e-6)
    assert told["OriginY"] + rows.start * 1e-8 == pytest.approx(2e-6)
    where = attributes_of(got["Patch"])
    assert (where["PositionX"], where["PositionY"], where["LastFrameId"], where["ScanID"]) == (3e-6, 4e-6, 7, "s")


def test_a_growing_scan_changes_the_size_four_times_at_most_and_its_last_image_comes_twice() -> None:
    with EpicsEnv() as env:
        stand = Stand(env)
        watcher = Watcher(env)
        for scan in (1, 2):
            watcher.seen.clear()
            for side in range(32, 700, 24):
                served = stand.server.served
                stand.source.run(scan, active=True)
                stand.source.show(np.ones((side, side), np.float32), np.ones((side, side), np.float32))
                stand.server.serve()
                assert stand.server.served > served  # its own thread may have served the beginning of the scan
            last = stand.server.served + 1
            stand.source.run(scan, active=False)
            wait_until(lambda last=last: [number for number, _ in watcher.seen].count(last) == 2, 10, "the last, twice")
            sides = [side for _, side in watcher.seen]
            changes = sum(one != other for one, other in itertools.pairwise(sides))
            assert (changes, sides[-1] < 1.12 * 700) == ((4 if scan == 1 else 0), True), sides
            assert sides[-1] == sides[-2]
        watcher.close()
        stand.server.stop()


def test_the_pattern_is_that_of_the_patch_and_is_made_while_somebody_watches() -> None:
    with EpicsEnv() as env:
        stand = Stand(env)

        def show() -> int:
            stand.source.show(np.ones((4, 5), np.float32), np.ones((4, 5), np.float32))
            wait_until(lambda: stand.server._patch_shown is stand.source.patch, 10, "the patch")
            return stand.source.batches - 1

        for _ in range(2):
            number = show()
            assert stand.server._pattern_shown is not stand.source.patch
            updates: queue.Queue[Any] = queue.Queue()
            with Context("pva", conf=env.epics, useenv=False, nt=False) as client:
                watch = client.monitor(P + "Pattern", updates.put)
                first = updates.get(timeout=10)
                assert (pixels(first).dtype, pixels(first)[0].tolist()) == (np.uint16, [number, number + 1, number + 2])
                assert first.uniqueId == stand.get("Patch").uniqueId
                number = show()
                assert updates.get(timeout=10).value[0] == number
                watch.close()
            wait_until(lambda: not stand.server._watched, 10, "nobody watches")
        stand.server.stop()


@pytest.mark.parametrize("name", IMAGES)
def test_no_client_writes_or_calls(stand: Stand, name: str) -> None:
    before = stand.get(name)
    with pytest.raises(RemoteError):
        stand.env.pva.put(P + name, {"uniqueId": 99}, timeout=10)
    with pytest.raises(RemoteError):
        stand.env.pva.rpc(P + name, before, timeout=10)
    assert stand.get(name).uniqueId == before.uniqueId


def test_a_newcomer_is_served_beside_handshakes_that_were_never_finished(stand: Stand) -> None:
    for _ in range(3):  # a client that is killed while it connects
        with socket.create_connection(("127.0.0.1", stand.port), 5) as connection:
            assert connection.recv(8)
    half_open = [socket.create_connection(("127.0.0.1", stand.port), 5) for _ in range(3)]
    try:
        assert all(connection.recv(8) for connection in half_open)
        with Context("pva", conf=stand.env.epics, useenv=False, nt=False) as newcomer:
            assert newcomer.get(P + "Phase", timeout=10).value is not None
        for connection in half_open:  # they are open still: nobody had to give them up first
            connection.setblocking(False)
            rest = b"more"
            while rest:
                try:
                    rest = connection.recv(65536)
                except BlockingIOError:
                    break
            assert rest, "the server closed it"
    finally:
        for connection in half_open:
            connection.close()


SILENT = 200
NEWCOMERS = 8


def test_newcomers_are_served_beside_many_silent_connections(stand: Stand) -> None:
    """A port scanner's connections say nothing, or begin a handshake and stop; they stay open all the time."""
    silent = [socket.create_connection(("127.0.0.1", stand.port), 5) for _ in range(SILENT)]
    try:
        for connection in silent[::2]:
            assert connection.recv(8)
            connection.sendall(b"\xca\x02\x00\x01\x10\x00\x00\x00")  # the header of a message that never comes
        for number in range(1, NEWCOMERS + 1):
            stand.source.show(np.full((8, 9), number, np.float32), np.ones((8, 9), np.float32))
            stand.server.serve(again=True)
            with Context("pva", conf=stand.env.epics, useenv=False, nt=False) as newcomer:
                got = newcomer.get([P + name for name in IMAGES], timeout=10)
            assert [float(pixels(image).max()) for image in (got[0], got[IMAGES.index("Patch")])] == [number, number]
    finally:
        for connection in silent:
            connection.close()


def test_the_other_pva_server_of_a_process_has_a_port_of_its_own_and_keeps_the_rest() -> None:
    asked = {"EPICS_PVAS_SERVER_PORT": "1", "EPICS_PVAS_INTF_ADDR_LIST": "10.0.0.1", "EPICS_CA_ADDR_LIST": "a"}
    assert at_port(asked, 0) == {
        "EPICS_PVAS_SERVER_PORT": "0",
        "EPICS_PVA_SERVER_PORT": "0",
        "EPICS_PVAS_INTF_ADDR_LIST": "10.0.0.1",
    }
