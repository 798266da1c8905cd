"""The page's server for tests: an IOC that stands in for a real one, and a browser without a screen."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from epics_env import EpicsEnv
from numpy.typing import NDArray
from p4p.nt import NTEnum, NTScalar
from p4p.server import Server, StaticProvider
from p4p.server.raw import SharedPV

from ptychostream.pva.channel_list import IMAGES, list_channel
from ptychostream.pva.ntndarray import build
from ptychostream.pva.server import at_port
from ptychostream.web.images.messages import read_image_message, unpack
from ptychostream.web.images.tiles import TILE, tile_grid
from ptychostream.web.server import WebServer
from ptychostream.web.settings import WebSettings

PREFIX = "w:"


def image(array: NDArray[Any], number: int = 1, **attributes: float | str) -> Any:
    """An NTNDArray as the IOC serves it."""
    return build(array, number, time.time(), attributes, descriptor="Phase", units="rad")


class StandIn:
    """A PVA server with the channels of an IOC that a test chooses, at one port, to be started and stopped.

    Parameters
    ----------
    env
        Its ports.
    images
        First value of each image; the names are listed in `Images`.
    numbers, texts, choices
        Records with their first values; a choice is its states, the first of which is set.
    """

    def __init__(
        self,
        env: EpicsEnv,
        images: dict[str, Any],
        numbers: dict[str, float] | None = None,
        texts: dict[str, str] | None = None,
        choices: dict[str, list[str]] | None = None,
        prefix: str = PREFIX,
    ) -> None:
        self._environment = env.server_env()
        self.images = {name: SharedPV(initial=value) for name, value in images.items()}
        self._kinds = {kind: NTScalar(kind, display=True) for kind in "ds"}
        number, text, choice = self._kinds["d"], self._kinds["s"], NTEnum()
        self.records = {
            "HEARTBEAT": SharedPV(initial=number.wrap(0.0)),
            **{name: SharedPV(initial=number.wrap(value)) for name, value in (numbers or {}).items()},
            **{name: SharedPV(initial=text.wrap(value)) for name, value in (texts or {}).items()},
            **{
                name: SharedPV(initial=choice.wrap({"index": 0, "choices": states}))
                for name, states in (choices or {}).items()
            },
        }
        self._listed = list_channel(self.images)
        self._prefix = prefix
        self._server: Server | None = None

    def start(self) -> StandIn:
        provider = StaticProvider("stand-in")
        for name, channel in {**self.images, **self.records, IMAGES: self._listed}.items():
            provider.add(f"{self._prefix}{name}", channel)
        port = int(self._environment["EPICS_PVAS_SERVER_PORT"])
        self._server = Server([provider], conf=at_port(self._environment, port), useenv=False)
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def put(self, name: str, value: float | str, severity: int = 0, message: str = "") -> None:
        """A new value of a number or a text."""
        new = self._kinds["s" if isinstance(value, str) else "d"].wrap(value, timestamp=time.time())
        new["alarm.severity"], new["alarm.message"] = severity, message
        self.records[name].post(new)

    def __enter__(self) -> StandIn:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class Browser:
    """What the page's script does with the messages, in Python."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.records: dict[str, list[Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.places: list[list[float]] = []
        self.iocs: list[dict[str, Any]] = []
        self.headers: dict[str, dict[str, Any]] = {}
        self.images: dict[str, NDArray[np.float64]] = {}
        self.sizes: list[int] = []
        self._codes: dict[str, NDArray[np.uint16]] = {}

    async def show(self, *images: str, ioc: str = PREFIX) -> None:
        await self.socket.send_json({"ask": "show", "ioc": ioc, "images": images})

    async def until(self, condition: Callable[[], Any], what: str, timeout: float = 20.0) -> None:
        """Take messages until the condition holds."""
        end = time.monotonic() + timeout
        while not condition():
            left = end - time.monotonic()
            assert left > 0, f"not within {timeout} s: {what}"
            try:
                message = await self.socket.receive(timeout=min(left, 1.0))
            except asyncio.TimeoutError:
                continue
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), f"{what}: {message}"
            await self.take(message)

    async def take(self, message: aiohttp.WSMessage) -> None:
        if message.type is aiohttp.WSMsgType.TEXT:
            told = json.loads(message.data)
            self.iocs = told.get("iocs", self.iocs)
            self.records |= told.get("records", {})
            self.events += told.get("events", [])
            self.places += told.get("places", [])
            return
        header, packed = read_image_message(message.data)
        self.sizes.append(len(message.data))
        self.images[header["image"]] = self._decode(header, packed)
        self.headers[header["image"]] = header
        await self.socket.send_json({"ask": "drawn", "image": header["image"]})

    def _decode(self, header: dict[str, Any], packed: bytes) -> NDArray[np.float64]:
        name, shape = header["image"], (header["height"], header["width"])
        tiles = header["tiles"]
        if tiles is None:
            tiles = range(int(np.prod(tile_grid(shape))))
            codes = np.zeros(shape, np.uint16)
        else:
            assert header["base"] == self.headers[name]["version"]
            codes = self._codes[name].copy()
        columns = tile_grid(shape)[1]
        boxes = []
        for tile in tiles:
            row, column = divmod(tile, columns)
            boxes.append(codes[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE])
        values, at = unpack(packed, sum(box.size for box in boxes)), 0
        for box in boxes:
            box[:] = values[at : at + box.size].reshape(box.shape)
            at += box.size
        self._codes[name] = codes
        return np.where(codes == 65535, np.nan, header["offset"] + header["step"] * codes.astype(np.float64))


@asynccontextmanager
async def serving(env: EpicsEnv, **settings: Any) -> AsyncIterator[WebServer]:
    """The page's server in this process, at any port."""
    values: dict[str, Any] = {"iocs": (PREFIX,), "port": 0, **settings}
    with env.active():
        server = WebServer(WebSettings(**values))
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@asynccontextmanager
async def browsing(address: str, **options: Any) -> AsyncIterator[Browser]:
    """A browser at the page."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{address}socket", **options) as socket:
        yield Browser(socket)


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
