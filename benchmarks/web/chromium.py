"""A Chromium without a window, driven by its DevTools protocol."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from ptychostream.errors import PtychostreamError

START_S = 30.0
ANSWER_S = 60.0
_ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-port=0", "--window-size=1440,1100", "about:blank",
)  # fmt: skip


class BrowserError(PtychostreamError):
    """The browser is missing, does not start, or a script in it failed."""


class Page:
    """One page of the browser; `pid` is the browser's first process."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, pid: int) -> None:
        self.pid = pid
        self._socket = socket
        self._numbers = itertools.count(1)

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            told = await self._socket.receive_json(timeout=ANSWER_S)
            if told.get("id") == number:
                if "error" in told:
                    raise BrowserError(str(told["error"].get("message")), where=method)
                found: dict[str, Any] = told["result"]
                return found

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are waited for."""
        told = await self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            raise BrowserError(str(told["exceptionDetails"].get("text")), where=script[:80])
        return told["result"].get("value")

    async def until(self, script: str, timeout_s: float, what: str) -> None:
        """Wait until an expression is true."""
        end = asyncio.get_running_loop().time() + timeout_s
        while not await self.run(script):
            if asyncio.get_running_loop().time() > end:
                raise BrowserError(f"not within {timeout_s:g} s: {what}", where="page", remedy="see the logs")
            await asyncio.sleep(0.1)


@asynccontextmanager
async def chromium() -> AsyncIterator[Page]:
    """A page in a new Chromium with a fresh profile.

    Raises
    ------
    BrowserError
        There is no Chromium, or it does not start.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise BrowserError("no chromium", where="PATH", remedy="apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="ptychostream-chromium-", ignore_cleanup_errors=True) as profile:
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            program, f"--user-data-dir={profile}", *_ARGUMENTS, stdout=quiet, stderr=quiet
        )
        try:
            port = await _port(Path(profile) / "DevToolsActivePort", process)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    address = next(one for one in await answer.json() if one["type"] == "page")["webSocketDebuggerUrl"]
                async with session.ws_connect(address, max_msg_size=1 << 26) as socket:
                    yield Page(socket, process.pid)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _port(path: Path, process: asyncio.subprocess.Process) -> int:
    end = asyncio.get_running_loop().time() + START_S
    while asyncio.get_running_loop().time() < end and process.returncode is None:
        if path.exists() and (lines := path.read_text(encoding="utf-8").splitlines()):
            return int(lines[0])
        await asyncio.sleep(0.1)
    raise BrowserError("chromium does not start", where=str(path), remedy="start it by hand to see why")
