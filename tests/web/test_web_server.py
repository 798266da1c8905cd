"""The page's server between an IOC and its clients, good and hostile ones."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import h5py
import numpy as np
import pytest
from aiohttp import WSMsgType
from epics_env import EpicsEnv
from PIL import Image
from web_helpers import PREFIX, StandIn, browsing, image, resident_bytes, serving

from ptychostream.errors import StreamError
from ptychostream.web import connections, session
from ptychostream.web.images.messages import read_image_message
from ptychostream.web.server import WebServer

pytestmark = pytest.mark.server

RNG = np.random.default_rng(5)
PHASE = RNG.normal(size=(70, 90)).astype(np.float32)
ABOUT: dict[str, float | str] = {"ScanID": "s1", "PixelSize": 1e-8, "OriginX": 1e-6, "OriginY": 2e-6, "FillValue": 9.0}


@pytest.fixture
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv() as made:
        yield made


@pytest.fixture
def ioc(env: EpicsEnv) -> Iterator[StandIn]:
    images = {"Phase": image(PHASE, 7, **ABOUT), "Sigma": image(PHASE[:5, :5].astype(np.float64), 7)}
    texts, choices = {"StatusMessage_RBV": "running"}, {"Ready_RBV": ["Not ready", "Ready"]}
    made = StandIn(env, images, {"SSIM_RBV": 0.5}, texts, choices)
    with made:
        yield made


def port_of(server: WebServer) -> int:
    return int(server.address.split(":")[2].strip("/"))


def step_of(header: dict[str, Any]) -> float:
    return float(header["step"])


def test_a_browser_gets_images_by_discovery_records_and_events(env: EpicsEnv, ioc: StandIn) -> None:
    async def scenario() -> None:
        async with serving(env) as server, browsing(server.address) as browser:
            await browser.until(lambda: browser.iocs and browser.iocs[0]["images"], "the images' names")
            assert list(browser.iocs[0]["images"]) == ["Phase", "Sigma"]
            await browser.show("Phase", "Sigma")
            await browser.until(lambda: len(browser.images) == 2, "both images")
            header = browser.headers["Phase"]
            assert np.abs(browser.images["Phase"] - PHASE).max() <= 0.51 * step_of(header)
            assert (header["units"], header["number"], header["attributes"]["ScanID"]) == ("rad", 7, "s1")
            assert browser.images["Sigma"].shape == (5, 5)
            await browser.until(lambda: len(browser.records) >= 4, "the records")
            assert browser.records["SSIM_RBV"][:2] == [0.5, 0]
            assert browser.records["Ready_RBV"][0] == "Not ready"
            ioc.put("SSIM_RBV", 0.1, 2, "LOW")
            await browser.until(
                lambda: browser.events and browser.events[-1]["record"] == "SSIM_RBV", "the alarm's event"
            )
            assert browser.events[-1]["severity"] == 2
            assert browser.records["SSIM_RBV"][1:3] == [2, "LOW"]

    asyncio.run(scenario())


def test_the_places_of_patches_become_the_path_of_this_scan(env: EpicsEnv, ioc: StandIn) -> None:
    async def scenario() -> None:
        async with serving(env) as server, browsing(server.address) as browser:
            await browser.until(lambda: browser.iocs and browser.iocs[0]["images"], "the images' names")
            await browser.show("Sigma")
            for number, (scan, x) in enumerate([("a", 1e-6), ("a", 2e-6), ("b", 3e-6)], 20):
                ioc.images["Sigma"].post(
                    image(PHASE[:5], number, ScanID=scan, PositionX=x, PositionY=-x, LastFrameId=number)
                )
                await browser.until(lambda x=x: browser.places and browser.places[-1][1] == x, "the place")
            async with browsing(server.address) as late:
                await late.until(lambda: late.places, "the path")
                assert [place[1:] for place in late.places] == [[3e-6, -3e-6, 22]]

    asyncio.run(scenario())


def test_the_page_says_what_it_waits_for_and_survives_restarts_of_the_ioc(env: EpicsEnv, ioc: StandIn) -> None:
    ioc.stop()

    async def scenario() -> None:
        async with serving(env) as server, browsing(server.address) as browser:
            await browser.until(lambda: browser.iocs, "the state")
            assert "no IOC answers to w:HEARTBEAT" in browser.iocs[0]["waits_for"]
            for value in (0.25, 0.75):
                await asyncio.to_thread(ioc.start)
                ioc.put("SSIM_RBV", value)
                await browser.until(lambda: browser.iocs[0]["connected"] and browser.iocs[0]["images"], "the IOC")
                await browser.show("Phase")
                await browser.until(lambda value=value: browser.records.get("SSIM_RBV", [0])[0] == value, "its records")
                ioc.images["Phase"].post(image(PHASE + np.float32(value), 8))
                await browser.until(lambda: "Phase" in browser.images, "its image")
                await browser.until(
                    lambda value=value: np.nanmax(browser.images["Phase"]) > PHASE.max() + value - 0.1, "the new image"
                )
                await asyncio.to_thread(ioc.stop)
                await browser.until(lambda: not browser.iocs[0]["connected"], "the loss of the IOC")
                assert "no IOC answers" in browser.iocs[0]["waits_for"]
                await browser.until(lambda: browser.records["SSIM_RBV"][1] == 4, "its records as lost")
            assert [event["text"] for event in browser.events if not event["record"]] == 2 * [
                "the IOC answers", "the IOC does not answer",
            ]  # fmt: skip

    asyncio.run(scenario())


def test_another_iocs_phase_of_other_type_or_size_is_told_and_the_next_image_is_shown(
    env: EpicsEnv, ioc: StandIn
) -> None:
    colour = image(np.zeros((6, 8), np.uint8))
    colour["dimension"] = [{"size": 2}, {"size": 3}, {"size": 8}]
    ragged = image(np.zeros((6, 8), np.int16))
    ragged["dimension"] = [{"size": 6}, {"size": 6}]
    packed = image(np.zeros((6, 8), np.uint8))
    packed["codec.name"] = "lz77"

    async def scenario() -> None:
        async with serving(env) as server, browsing(server.address) as browser:
            await browser.until(lambda: browser.iocs and browser.iocs[0]["images"], "the images' names")
            await browser.show("Phase")
            await browser.until(lambda: browser.images, "the image")
            for bad, text in ((colour, "dimensions 8 × 3 × 2"), (ragged, "48 values"), (packed, "lz77")):
                ioc.images["Phase"].post(bad)
                await browser.until(lambda text=text: text in browser.iocs[0]["images"]["Phase"], text)
            for good in (
                PHASE[:3],
                RNG.integers(0, 99, (200, 10)).astype(np.uint8),
                np.full((4, 4), np.nan),
                PHASE.astype(np.float64) * 1e300,
            ):
                shown = image(good, 9)
                shown["codec.name"] = ""  # a server keeps what a post does not name
                ioc.images["Phase"].post(shown)
                await browser.until(lambda good=good: browser.images["Phase"].shape == good.shape, f"{good.shape}")
                await browser.until(lambda: not browser.iocs[0]["images"]["Phase"], "no complaint")

    asyncio.run(scenario())


def test_scripts_get_status_history_events_and_images(env: EpicsEnv, ioc: StandIn) -> None:
    async def scenario() -> None:
        async with serving(env) as server, aiohttp.ClientSession(server.address) as client:

            async def get(path: str, status: int = 200) -> Any:
                async with client.get(path) as answer:
                    body = await answer.read()
                    assert answer.status == status, body
                    return json.loads(body) if answer.content_type == "application/json" else body

            async def told() -> dict[str, Any]:
                found: dict[str, Any] = (await get("/api/status"))["iocs"][0]
                return found

            while len((await told())["records"]) < 4 or "Phase" not in (await told())["images"]:
                await asyncio.sleep(0.05)
            found = await told()
            assert found["connected"]
            assert found["records"]["SSIM_RBV"]["value"] == 0.5
            assert set((await get("/api/status?ioc=w:&records=SSIM_RBV"))["iocs"][0]["records"]) == {"SSIM_RBV"}
            about = await get("/api/image.json?ioc=w:&image=Phase")
            assert (about["shape"], about["attributes"]["ScanID"]) == ([70, 90], "s1")
            drawn = np.asarray(
                Image.open(io.BytesIO(await get("/api/image.png?image=Phase&colours=gray"))).convert("RGB")
            )
            assert drawn.shape == (70, 90, 3)
            assert np.corrcoef(drawn[..., 0].ravel(), PHASE.ravel())[0, 1] > 0.98
            ioc.images["Phase"].post(image(PHASE * 2, 8, **ABOUT))
            while (await get("/api/image.json?image=Phase"))["number"] != 8:
                await asyncio.sleep(0.05)
            with h5py.File(io.BytesIO(await get("/api/image.h5?image=Phase"))) as file:
                data = file["entry/data"]
                assert np.array_equal(data["image"][()], PHASE * 2)
                assert np.allclose(data["x"][()], 1e-6 + 1e-8 * np.arange(90))
                assert (data["image"].attrs["units"], data["image"].attrs["ScanID"]) == ("rad", "s1")
            assert (await get("/api/records"))["SSIM_RBV"]["about"]
            while not (await get("/api/history?records=SSIM_RBV"))["SSIM_RBV"]:
                await asyncio.sleep(0.1)
            assert any(event["text"] == "the IOC answers" for event in await get("/api/events"))
            assert b"<title>ptychostream" in await get("/")
            for path, status in (
                ("/api/image.png?image=Nobody", 404), ("/api/status?ioc=x:", 404), ("/api/image.png?colours=jet", 400),
                ("/api/image.png?low=a&high=2", 400), ("/api/image.exe", 404), ("/page/../settings.py", 404),
                ("/page/%2e%2e/settings.py", 404), ("/api/history?since=x", 400),
            ):  # fmt: skip
                await get(path, status)
            async with client.post("/api/status", data=b"x") as answer:
                assert answer.status == 405

    asyncio.run(scenario())


def test_an_image_is_read_only_while_somebody_looks(
    env: EpicsEnv, ioc: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptychostream.web.images.image_watch.KEEP_S", 0.0)

    async def scenario() -> None:
        async with serving(env) as server:
            async with browsing(server.address) as browser:
                await browser.until(lambda: browser.iocs and browser.iocs[0]["images"], "the images' names")
                await asyncio.sleep(0.3)
                watch = server._views[PREFIX].image("Phase")
                assert watch is not None
                assert not watch.open
                await browser.show("Phase")
                await browser.until(lambda: browser.images, "the image")
                assert watch.open
            await asyncio.sleep(0.2)
            await asyncio.to_thread(watch.tidy)
            assert not watch.open

    asyncio.run(scenario())


# ---- hostile clients


def test_pages_from_elsewhere_and_clients_without_the_token_are_refused(
    env: EpicsEnv, ioc: StandIn, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123")

    async def status(address: str, **options: Any) -> int:
        try:
            async with browsing(address, **options):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status

    async def scenario() -> None:
        async with serving(env) as server:
            assert await status(server.address) == 101
            assert await status(server.address, origin=server.address.rstrip("/")) == 101
            assert await status(server.address, origin="http://evil.example") == 403
            assert await status(server.address, headers={"Host": "evil.example"}) == 403
        async with serving(env, token_file=token) as server, aiohttp.ClientSession() as client:
            plain = server.address.partition("?")[0]
            assert await status(plain) == 401
            assert await status(plain, headers={"Authorization": "Bearer 0123456789abcdef0123"}) == 101
            assert await status(plain, headers={"Authorization": "Bearer 0123456789abcdef012"}) == 401
            async with client.get(plain + "api/status") as answer:
                assert answer.status == 401
                assert "token" in await answer.text()
            jar = aiohttp.CookieJar(unsafe=True)
            async with aiohttp.ClientSession(cookie_jar=jar) as known:
                async with known.get(server.address) as answer:
                    assert answer.status == 200
                    assert "token" not in str(answer.url), "the token does not stay in the address"
                async with known.get(plain + "api/status") as answer:
                    assert answer.status == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("hostile", "code"),
    [
        (lambda socket: socket.send_str("{"), 1008),
        (lambda socket: socket.send_str('{"ask":"put","record":"EndScan","value":1}'), 1008),
        (lambda socket: socket.send_str('{"ask":"show","ioc":"other:","images":[]}'), 1008),
        (lambda socket: socket.send_bytes(b"\0" * 100), 1003),
        (lambda socket: socket.send_str("x" * 100_000), 1009),
    ],
)
def test_a_malformed_or_huge_request_ends_that_browser_alone(
    env: EpicsEnv, ioc: StandIn, hostile: Any, code: int
) -> None:
    async def scenario() -> None:
        async with serving(env) as server, browsing(server.address) as good, browsing(server.address) as bad:
            await hostile(bad.socket)
            while (message := await bad.socket.receive(timeout=10)).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED):
                pass
            assert (message.data or bad.socket.close_code) == code
            ioc.put("SSIM_RBV", 0.9)
            await good.until(lambda: good.records.get("SSIM_RBV", [0])[0] == 0.9, "the other browser's figures")

    asyncio.run(scenario())


def test_a_flood_of_requests_ends_that_browser(env: EpicsEnv, ioc: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with serving(env) as server, browsing(server.address) as bad:
            closed = False
            for _ in range(20 * session.MOST_REQUESTS):
                try:
                    await bad.socket.send_str('{"ask":"drawn","image":"Phase"}')
                except ConnectionError:
                    closed = True
                    break
            while not closed:
                message = await bad.socket.receive(timeout=10)
                closed = message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)

    asyncio.run(scenario())


def test_a_browser_that_draws_nothing_gets_two_images_and_then_the_newest(env: EpicsEnv, ioc: StandIn) -> None:
    async def scenario() -> None:
        async with serving(env) as server, browsing(server.address) as slow, browsing(server.address) as fast:
            await fast.until(lambda: fast.iocs and fast.iocs[0]["images"], "the images' names")
            await fast.show("Phase")
            await slow.show("Phase")
            for number in range(10, 40):
                ioc.images["Phase"].post(image(RNG.normal(size=(300, 300)).astype(np.float32), number))
                await fast.until(
                    lambda number=number: fast.headers.get("Phase", {}).get("number") == number, f"image {number}"
                )

            async def numbers() -> list[int]:
                """Numbers of the images that come until nothing has come for half a second."""
                found = []
                while True:
                    try:
                        message = await slow.socket.receive(timeout=0.5)
                    except asyncio.TimeoutError:
                        return found
                    if message.type is WSMsgType.BINARY:
                        found.append(read_image_message(message.data)[0]["number"])

            assert len(await numbers()) == session.IN_FLIGHT
            await slow.socket.send_json({"ask": "drawn", "image": "Phase"})
            assert await numbers() == [39]

    asyncio.run(scenario())


def test_a_browser_is_told_that_the_server_ends(env: EpicsEnv, ioc: StandIn) -> None:
    async def scenario() -> None:
        async with aiohttp.ClientSession() as client:
            async with serving(env) as server:
                socket = await client.ws_connect(f"{server.address}socket")
                await socket.receive(timeout=10)
            while (message := await socket.receive(timeout=10)).type is WSMsgType.TEXT:
                pass
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)

    asyncio.run(scenario())


def test_a_client_that_reads_nothing_is_let_go_and_costs_no_memory(
    env: EpicsEnv, ioc: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "SEND_S", 1.0)
    monkeypatch.setattr(session, "IN_FLIGHT", 1000)  # the browser says that it has drawn everything

    async def scenario() -> None:
        async with serving(env) as server, browsing(server.address) as good:
            await good.until(lambda: good.iocs and good.iocs[0]["images"], "the images' names")
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server), limit=1024)
            writer.write(
                b"GET /socket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            ask = json.dumps({"ask": "show", "ioc": PREFIX, "images": ["Phase"]}).encode()
            writer.write(bytes([0x81, 0x80 | len(ask), 0, 0, 0, 0]) + ask)  # masked by zeros
            while len(server._sessions) < 2:
                await asyncio.sleep(0.02)
            number = 100
            while len(server._sessions) > 1:
                number += 1
                assert number < 3000, "the client that reads nothing is still served"
                ioc.images["Phase"].post(image(RNG.normal(size=(512, 512)).astype(np.float32), number))
                await asyncio.sleep(0.02)
            ioc.put("SSIM_RBV", 0.9)
            await good.until(lambda: good.records.get("SSIM_RBV", [0])[0] == 0.9, "the other browser's figures")
            assert "it took no data for 1 s" in caplog.text
            writer.close()
            del reader

    asyncio.run(scenario())


def test_many_browsers_and_many_connections_are_bounded(
    env: EpicsEnv, ioc: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SILENT_S", 0.5)
    monkeypatch.setattr("ptychostream.web.server._TIDY_S", 0.2)

    async def scenario() -> None:
        async with serving(env, clients=2, connections=20) as server, aiohttp.ClientSession() as client:
            async with browsing(server.address), browsing(server.address), browsing(server.address) as third:
                message = await third.socket.receive(timeout=10)
                assert (message.type, third.socket.close_code) == (WSMsgType.CLOSE, 1013)
                assert "2 browsers" in message.extra
            port = port_of(server)
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
            answers = [await asyncio.wait_for(reader.read(200), 10) for reader, _ in idle[100:]]
            assert all(answer.startswith(b"HTTP/1.1 503") for answer in answers)
            # the silent ones are closed, and the page works again
            assert await asyncio.wait_for(idle[0][0].read(100), 10) == b""
            while True:
                async with client.get(server.address + "api/server") as answer:
                    if answer.status == 200:
                        about = await answer.json()
                        break
                await asyncio.sleep(0.1)
            assert about["connections"] <= 20
            assert about["connections_refused"] >= 200
            for _, writer in idle:
                writer.close()

    asyncio.run(scenario())


def test_reconnects_leave_memory_flat(env: EpicsEnv, ioc: StandIn) -> None:
    async def once(address: str) -> None:
        async with browsing(address) as browser:
            await browser.until(lambda: browser.iocs and browser.iocs[0]["images"], "the images' names")
            await browser.show("Phase")
            await browser.until(lambda: browser.images, "the image")

    async def scenario() -> list[int]:
        async with serving(env) as server:
            memory = []
            for _ in range(4):
                for _ in range(40):
                    await once(server.address)
                gc.collect()
                memory.append(resident_bytes())
            while server._sessions:
                await asyncio.sleep(0.01)
            return memory

    memory = asyncio.run(scenario())
    assert memory[-1] - memory[1] < 8 << 20, memory


def test_a_taken_port_is_told(env: EpicsEnv) -> None:
    async def scenario() -> None:
        async with serving(env) as server:
            port = port_of(server)
            with pytest.raises(StreamError, match="--port"):
                async with serving(env, port=port):
                    pass

    asyncio.run(scenario())


def test_the_command_serves_a_real_ioc_and_ends_in_time(env: EpicsEnv) -> None:
    import sys

    with env.start_ioc("--prefix", "r:", "--input-pv", "r:det", "--engine", "none", "--frame-shape", "32x32"):
        words = (sys.executable, "-m", "ptychostream", "web", "r:", "absent:", "--port", "0")
        with env.start(*words) as process:

            async def scenario() -> None:
                while "the page: " not in process.output:
                    assert process.popen.poll() is None, process.output
                    await asyncio.sleep(0.1)
                address = process.output.split("the page: ")[1].split()[0]
                async with browsing(address) as browser:
                    await browser.until(lambda: browser.iocs and browser.iocs[0]["images"], "the images' names")
                    assert {"Phase", "Weight", "Patch"} <= set(browser.iocs[0]["images"])
                    assert [one["ioc"] for one in browser.iocs] == ["r:", "absent:"]
                    assert "absent:HEARTBEAT" in browser.iocs[1]["waits_for"]
                    await browser.show("Phase", ioc="r:")
                    await browser.until(lambda: len(browser.records) > 200, "the records")
                    await browser.until(lambda: "Phase" in browser.images, "the image")

            asyncio.run(scenario())
            began = time.monotonic()
            assert process.stop() == 0
            assert time.monotonic() - began < 15, process.output
