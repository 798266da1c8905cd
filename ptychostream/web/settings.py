"""Settings of `ptychostream web`: which IOCs it shows, and whom it serves."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from ptychostream.config import Setting, Settings


class WebSettings(Settings):
    """All settings of the page's server.

    Attributes
    ----------
    iocs
        Prefixes of the IOCs that the page shows, the first one first.
    images
        Further PVA channels with images (NTNDArray), such as the detector's. They are shown with every IOC.
    host, port
        Where the page is served. Port 0 takes a free one.
    token_file
        File with the token that a client must give. On another address than loopback there is always a token: without
        a file a new one is made at each start.
    origins
        Addresses of pages, such as `https://beamline.example`, that may open the WebSocket too. A reverse proxy
        needs its own address here.
    clients
        Browsers at once; a further one is refused.
    connections
        TCP connections at once, those of scripts included.
    image_rate_hz
        The largest number of images per second that a browser gets of one channel.
    """

    iocs: tuple[str, ...] = ("ptycho:NN1:",)
    images: tuple[str, ...] = ()
    host: Annotated[str, Setting(about="Address to serve the page at", flag="--host")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535), Setting(about="TCP port of the page; 0: any", flag="--port")] = 8080
    token_file: Annotated[
        Path | None, Setting(about="File with the token that a client must give", flag="--token-file")
    ] = None
    origins: tuple[str, ...] = ()
    clients: Annotated[int, Field(ge=1, le=1000), Setting(about="Browsers at once", flag="--clients")] = 32
    connections: Annotated[int, Field(ge=8, le=10000), Setting(about="TCP connections at once")] = 256
    image_rate_hz: Annotated[
        float, Field(gt=0, le=100), Setting(about="Images a browser gets per second", flag="--image-rate")
    ] = 30.0

    @field_validator("iocs")
    @classmethod
    def _some_ioc(cls, iocs: tuple[str, ...]) -> tuple[str, ...]:
        if not iocs or not all(iocs) or len(set(iocs)) != len(iocs):
            raise ValueError("name at least one prefix, and each one once")
        return iocs

    @property
    def on_loopback(self) -> bool:
        """Whether only programs of this machine can reach the page."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
