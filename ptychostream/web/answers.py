"""Answers for scripts: the state as JSON, images as PNG, HDF5 and attributes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ptychostream.errors import ConfigError
from ptychostream.web.catalog import Entry
from ptychostream.web.images.draw import png_of
from ptychostream.web.images.files import hdf5_of
from ptychostream.web.images.image_watch import ImageWatch
from ptychostream.web.ioc_view import IocView

FIRST_IMAGE_S = 3.0
"""How long a request waits for the first image of a channel that nobody looked at before."""
_AT_ONCE = 2
"""Images that are drawn or written at once."""
_POLL_S = 0.02


class Answers:
    """Answers requests. All of them only read.

    Parameters
    ----------
    views
        The IOCs by prefix.
    entries
        The catalogue of records.
    """

    def __init__(self, views: Mapping[str, IocView], entries: Mapping[str, Entry]) -> None:
        self._views = views
        self._entries = entries
        self._making = asyncio.Semaphore(_AT_ONCE)

    def routes(self) -> list[web.RouteDef]:
        """The addresses that are answered."""
        return [
            web.get("/api/records", self.records),
            web.get("/api/status", self.status),
            web.get("/api/history", self.history),
            web.get("/api/events", self.events),
            web.get("/api/image.{kind:png|h5|json}", self.image),
        ]

    def described(self) -> list[dict[str, Any]]:
        """Every IOC: whether it answers, what it waits for, its images and what they wait for."""
        return [
            {
                "ioc": view.prefix,
                "connected": view.records.connected,
                "waits_for": view.waits_for(),
                "images": {name: _image_waits(view, name) for name in view.image_names()},
            }
            for view in self._views.values()
        ]

    async def records(self, _request: web.Request) -> web.Response:
        """What each record means."""
        return web.json_response({name: entry.plain() for name, entry in self._entries.items()})

    async def status(self, request: web.Request) -> web.Response:
        """The state of all IOCs or of one, with all records or some."""
        wanted = [name for name in request.query.get("records", "").split(",") if name]
        views = [self._view(request)] if "ioc" in request.query else list(self._views.values())
        told = {one["ioc"]: one for one in self.described()}
        iocs = []
        for view in views:
            readings = view.records.readings()
            shown = {name: one for name, one in readings.items() if not wanted or name in wanted}
            records = {
                name: {
                    "value": one.value,
                    "severity": one.severity,
                    "alarm": one.alarm,
                    "time": one.time_s,
                    "units": one.units or self._entries[name].unit,
                }
                for name, one in sorted(shown.items())
            }
            alarms = sorted(name for name, one in readings.items() if one.trouble)
            iocs.append({**told[view.prefix], "alarms": alarms, "records": records})
        return web.json_response({"time": time.time(), "iocs": iocs})

    async def history(self, request: web.Request) -> web.Response:
        """Values of some records over the last minutes, or by the minute over the last day."""
        names = request.query.get("records", "").split(",")[:32]
        history, since_s = self._view(request).history, _number(request, "since", 0)
        return web.json_response(history.series(names, since_s, minutes=request.query.get("minutes") == "1"))

    async def events(self, request: web.Request) -> web.Response:
        """The newest events of an IOC."""
        return web.json_response(self._view(request).events.since(int(_number(request, "since", 0))))

    async def image(self, request: web.Request) -> web.Response:
        """One image as PNG, as HDF5, or its attributes as JSON."""
        view, kind, query = self._view(request), request.match_info["kind"], request.query
        name = query.get("image", "") or next(iter(view.image_names()), "")
        watch = view.image(name)
        if watch is None:
            known = ", ".join(view.image_names()) or view.waits_for()
            raise web.HTTPNotFound(text=f"{view.prefix} has no image {name[:60]!r}: {known}")
        picture = (await self._looked_at(watch)).feed.picture
        if picture is None:
            raise web.HTTPServiceUnavailable(text=watch.waits_for)
        if kind == "json":
            about = {"number": picture.number, "time": picture.time_s, "units": picture.units}
            shape = list(picture.array.shape)
            return web.json_response({**about, "shape": shape, "attributes": dict(picture.attributes)})
        async with self._making:
            if kind == "h5":
                body = await asyncio.to_thread(hdf5_of, picture, watch.channel)
            else:
                given = "low" in query and "high" in query
                limits = (_number(request, "low", 1.0), _number(request, "high", 99.0)) if given else (1.0, 99.0)
                percentiles = not given or query.get("percentiles") == "1"
                colours = query.get("colours", "viridis")
                try:
                    body = await asyncio.to_thread(png_of, picture, colours, *limits, percentiles)
                except ConfigError as error:
                    raise web.HTTPBadRequest(text=str(error)) from error
        types = {"png": "image/png", "h5": "application/x-hdf5"}
        told = {"X-Image-Number": str(picture.number), "X-Image-Time": f"{picture.time_s:.6f}"}
        return web.Response(body=body, content_type=types[kind], headers=told)

    async def _looked_at(self, watch: ImageWatch) -> ImageWatch:
        """The subscription, after its first image if nobody looked before."""
        version, waited = watch.feed.version, not watch.open
        watch.want()
        end = time.monotonic() + FIRST_IMAGE_S
        while (waited and watch.feed.version == version) or not watch.feed.version:
            if time.monotonic() > end:
                break
            await asyncio.sleep(_POLL_S)
        return watch

    def _view(self, request: web.Request) -> IocView:
        prefix = request.query.get("ioc", "") or next(iter(self._views))
        if prefix not in self._views:
            raise web.HTTPNotFound(text=f"{prefix[:60]!r} is not shown here: {', '.join(self._views)}")
        return self._views[prefix]


def _image_waits(view: IocView, name: str) -> str:
    watch = view.image(name)
    return "" if watch is None else watch.waits_for


def _number(request: web.Request, name: str, default: float) -> float:
    text = request.query.get(name, "")
    try:
        return float(text) if text else default
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"{name} is {text[:40]!r}, where a number is needed") from error
